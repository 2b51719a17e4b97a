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

from wfm.config import Config, how
from wfm.curation.embed.embedders import digest
from wfm.curation.rows import AestheticRow, vectors
from wfm.errors import ConfigError, DataError, MissingPackage
from wfm.parts.part import PartLike

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

Activation = Literal["none", "relu", "gelu"]


class AestheticConfig(Config):
    """A head over the embeddings; without one there is no aesthetic score."""

    sha256: str = ""
    "Of the head's file (`embedders.digest`): it decides the result, wherever the file lies. Empty: no head."
    activation: Activation = "none"
    "Between the head's layers; the published ones over CLIP have none."
    head: str = how("")
    "The head: a local safetensors file."


def judge_part(part: PartLike) -> None:
    """Write ``aesthetic.parquet`` beside the part's ``embeddings.parquet``, if there is a head (``part.config.aesthetic``).

    Raises `ConfigError` for another file than the config names, `DataError` for a head of another width.
    """
    import pyarrow.parquet as pq

    config: AestheticConfig = part.config.aesthetic
    if not config.head and not config.sha256:
        return
    head = open_head(config)
    table = pq.read_table(part.out / "embeddings.parquet")
    scores = head(vectors(table)) if len(table) else np.zeros(0)
    ids, hashes = (table.column(name).to_pylist() for name in ("clip_id", "clip_sha256"))
    rows = [
        AestheticRow(clip_id=clip_id, clip_sha256=sha256, aesthetic=None if np.isnan(score) else float(score))
        for clip_id, sha256, score in zip(ids, hashes, scores, strict=True)
    ]
    pq.write_table(AestheticRow.to_table(rows), part.out / "aesthetic.parquet", compression="zstd")


def open_head(config: AestheticConfig) -> "AestheticHead":
    """The head that the config names. Raises `ConfigError` where the file is not the one of ``sha256``."""
    path = Path(config.head)
    if not config.head or not path.is_file():
        raise ConfigError(f"aesthetic.head = {config.head!r}: no such file; give the head's safetensors file")
    found = digest(path)
    if found != config.sha256:
        raise ConfigError(
            f"aesthetic.sha256 = {config.sha256!r}, but {path.name!r} has {found!r}: another head gives other scores"
        )
    return load_head(path, config.activation)


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
    """Clip id -> score where there is one, of an ``embeddings`` artifact. Raises `DataError` for another kind or width."""
    if embeddings.kind != "embeddings":
        raise DataError(f"{embeddings.key!r} is of kind {embeddings.kind!r}: give embeddings")
    found: dict[str, float] = {}
    for _, table in embeddings.iterate_table("embeddings"):
        if table.num_rows:
            scores = head(vectors(table)).tolist()
            found |= {key: s for key, s in zip(table.column("clip_id").to_pylist(), scores, strict=True) if s == s}
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
