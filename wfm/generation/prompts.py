"""Captions as a world model reads them: with the very encoder that its training data was encoded with.

The model folder notes which one that was (`text` in its card: encoder, identity, length, dtype). The encoder itself is no part
of a bundle: MiniLM comes with its package, a T5 from a folder that whoever generates has.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from wfm.errors import ConfigError, DataError
from wfm.models.text.config import TextConfig
from wfm.models.text.encoders import TextEncoder, open_encoder


class PromptEncoder:
    """Encodes captions one by one and pads all to one length, so that what a sequence is told does not depend, to the bit,
    on the captions beside it."""

    def __init__(self, encoder: TextEncoder, dtype: torch.dtype = torch.float32) -> None:
        self.encoder, self.dtype = encoder, dtype
        self._known: dict[str, tuple[Tensor, Tensor]] = {}

    @classmethod
    def of_model(cls, note: Mapping[str, Any] | None, *, folder: str = "", device: str = "cpu") -> Self:
        """The encoder of a model with this note; `folder`: where one lies that is no package. Raises ConfigError for a model
        without text or a folder that is not given, DataError for another encoder than it was trained with."""
        if not note:
            raise ConfigError(
                "text was given and this model reads none: leave it out, or train one on captions (wfm run world_model --set "
                "encode_text.text.encoder=minilm)"
            )
        if note["encoder"] == "folder" and not folder:
            raise ConfigError(
                f"this model was trained with the text encoder {note['identity'][:12]} from a folder: give that folder "
                "(wfm generate --text-encoder FOLDER)"
            )
        kind = "folder" if folder else note["encoder"]
        config = TextConfig(encoder=kind, folder=folder, max_length=note["max_length"], dtype=note["dtype"])
        encoder = open_encoder(config, device=device)
        if encoder.identity != note["identity"]:
            raise DataError(
                f"text encoder: the model was trained with {note['identity'][:12]}, this one is {encoder.identity[:12]}: "
                "use the same files, or train again"
            )
        return cls(encoder, torch.bfloat16 if config.dtype == "bfloat16" else torch.float32)

    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(embeddings fp32 `[B, max_length, D]`, zero past each caption's end; lengths int64 `[B]`). Raises ConfigError for no
        captions."""
        if not captions:
            raise ConfigError("no captions were given to encode")
        for caption in captions:
            if caption not in self._known:
                rows, lengths = self.encoder.encode([caption], pad_to=self.encoder.max_length)
                self._known[caption] = (rows[0].to(self.dtype).float(), lengths[0])
        found = [self._known[caption] for caption in captions]
        return torch.stack([rows for rows, _ in found]), torch.stack([length for _, length in found])
