"""The text tower of the CLIP that made a corpus's embeddings: words in the very space of the pictures."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.curation.embed.embedders import digest, open_tower
from wfm.errors import ConfigError, DataError, MissingPackage

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

_AT_ONCE = 256


class TextTower:
    """Texts -> float32 [N, D] of length 1, by the CLIP of a local folder. Weights are read at the first call.

    Raises ConfigError for a folder whose files are not those of ``weights_sha256`` (`embedders.digest`): another CLIP's
    words would find other pictures.
    """

    def __init__(self, folder: str, weights_sha256: str) -> None:
        path = Path(folder)
        found = digest(path)
        if found != weights_sha256:
            raise ConfigError(
                f"the embeddings were made by the CLIP {weights_sha256[:12]!r}; {path.name!r} is {found[:12]!r}: its words lie"
                " in another space; name the folder that embed_clips used"
            )
        self.identity = f"clip-{found}"
        self._path = path

    @functools.cached_property
    def _opened(self) -> tuple[Any, Any]:
        try:
            import torch  # noqa: F401
            import transformers
        except ImportError:
            raise MissingPackage("transformers", extra="text", purpose="words in CLIP's space") from None
        network = open_tower(self._path, "text")
        try:
            words = transformers.AutoTokenizer.from_pretrained(str(self._path), local_files_only=True)
        except Exception as error:  # transformers raises many kinds for a broken folder
            raise DataError(f"{self._path}: transformers cannot open this CLIP's tokenizer ({error})") from error
        return network, words

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """One vector a text; a text longer than the tower reads is cut."""
        import torch

        network, words = self._opened
        most = network.config.max_position_embeddings
        made = []
        for start in range(0, len(texts), _AT_ONCE):
            batch = words(
                list(texts[start : start + _AT_ONCE]),
                padding=True,
                truncation=True,
                max_length=most,
                return_tensors="pt",
            )
            with torch.no_grad():
                out = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).text_embeds
            made.append(torch.nn.functional.normalize(out, dim=-1).numpy())
        return np.concatenate(made).astype(np.float32)


def has_text_tower(embeddings: "Artifact") -> bool:
    """Whether the model that made the embeddings reads words too."""
    return bool(embeddings.manifest.config.get("model") == "clip")


def text_tower_of(embeddings: "Artifact", folder: str = "") -> TextTower:
    """The tower of the CLIP that made ``embeddings``, in ``folder`` or where they found it. Raises ConfigError for embeddings
    of another kind of model, or another CLIP."""
    config = embeddings.manifest.config
    if not has_text_tower(embeddings):
        raise ConfigError(
            f"{embeddings!r} was made by {config.get('model', 'an unknown model')!r}, which reads no words: only embeddings of"
            " clip meet words directly (embed_clips.model=clip)"
        )
    return TextTower(folder or str(config.get("weights", "")), str(config.get("weights_sha256", "")))
