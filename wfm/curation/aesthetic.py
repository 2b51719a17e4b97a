"""A head that reads how pleasing a clip looks from its embedding: weights from a local safetensors file, none of ours.

The file holds a linear map (``weight`` [1, D], ``bias`` [1]) or a stack of them (``layers.0.weight``, ``layers.2.weight``,
...), as the published heads over CLIP have it; those have no activation between their layers, and ``activation`` says
otherwise. A head belongs to the embedding it was trained on: another width is an error, another model of the same width cannot
be told from here.
"""

import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wfm.curation.rows import vectors
from wfm.errors import DataError, MissingPackage

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

Activation = Literal["none", "relu", "gelu"]


@dataclasses.dataclass(frozen=True)
class AestheticHead:
    """Layers in order, each (weight float32 [out, in], bias float32 [out])."""

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    activation: Activation = "none"

    @property
    def width(self) -> int:
        """Numbers of an embedding it takes."""
        return int(self.layers[0][0].shape[1])

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings [N, D] -> float64 [N], in the unit of the head (published ones: 1 to 10). NaN for a vector without length:
        a flat clip has no direction. Raises `DataError` for another width."""
        if embeddings.ndim != 2 or embeddings.shape[1] != self.width:
            raise DataError(
                f"the aesthetic head takes embeddings of {self.width} numbers, these have {embeddings.shape[-1]}: use the head"
                " of the model that made them"
            )
        x = embeddings.astype(np.float64)
        length = np.linalg.norm(x, axis=1, keepdims=True)
        x = x / np.maximum(length, 1e-12)
        for index, (weight, bias) in enumerate(self.layers):
            x = x @ weight.T.astype(np.float64) + bias
            if index + 1 < len(self.layers):
                x = _activated(x, self.activation)
        return np.where(length[:, 0] > 0, x[:, 0], np.nan)


def aesthetic_of(embeddings: "Artifact", head: AestheticHead) -> dict[str, float]:
    """Clip id -> score, of an ``embeddings`` artifact; part by part. Raises `DataError` for another kind or width."""
    if embeddings.kind != "embeddings":
        raise DataError(f"{embeddings.key!r} is of kind {embeddings.kind!r}: give embeddings")
    found: dict[str, float] = {}
    for _, table in embeddings.iterate_table("embeddings"):
        if table.num_rows:
            found |= dict(zip(table.column("clip_id").to_pylist(), head(vectors(table)).tolist(), strict=True))
    return found


def load_head(path: Path, activation: Activation = "none") -> AestheticHead:
    """Read a head. Raises `DataError` for names, shapes or an end that are not a head's, and `MissingPackage`."""
    try:
        from safetensors.numpy import load_file
    except ImportError:
        raise MissingPackage("safetensors", extra="train", purpose="an aesthetic head") from None
    try:
        tensors = load_file(path)
    except Exception as error:
        raise DataError(f"aesthetic head {path.name!r} is no safetensors file: {error}") from error
    stems = sorted((name.removesuffix("weight") for name in tensors if name.endswith("weight")), key=_place)
    layers = [(tensors[f"{stem}weight"].astype(np.float32), _bias(tensors, stem, path)) for stem in stems]
    fits = all(a[0].shape[0] == b[0].shape[1] for a, b in itertools.pairwise(layers))
    if not layers or not fits or layers[-1][0].shape[0] != 1 or len(tensors) != 2 * len(layers):
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        raise DataError(f"aesthetic head {path.name!r}: {shapes} is no stack of linear layers that ends in one number")
    return AestheticHead(tuple(layers), activation)


def _place(stem: str) -> tuple[int, str]:
    """Layers by their number: 10 after 2."""
    digits = [part for part in stem.split(".") if part.isdigit()]
    return (int(digits[-1]) if digits else 0, stem)


def _bias(tensors: dict[str, Any], stem: str, path: Path) -> np.ndarray:
    if f"{stem}bias" not in tensors:
        raise DataError(f"aesthetic head {path.name!r}: {stem}weight has no {stem}bias")
    return np.asarray(tensors[f"{stem}bias"], np.float32)


def _activated(x: np.ndarray, activation: Activation) -> np.ndarray:
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "gelu":  # the tanh form
        return x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return x
