"""Text: the caption's embeddings, which every block attends to with keys and values of their own.

The encoder (T5, MiniLM) stands outside the model: embeddings are made once by `wfm.models.text`, and the spec says by which
encoder, so that a prompt is encoded as the captions were. Absent, a text of zeros: it has no keys and no values, and adds
nothing.
"""

from typing import ClassVar, Literal

import numpy as np
import pydantic

from wfm.conditions.condition import Condition, Reads, View
from wfm.config import Natural
from wfm.models.slots import Geometry, Slot, SlotConfig


class Text(Condition):
    """Embeddings `text` `[B, L, embed_dim]` and how many of them each sample has, `text_lengths` `[B]`."""

    name: ClassVar[str] = "text"
    tensors: ClassVar[tuple[str, ...]] = ("text", "text_lengths")
    reads: ClassVar[tuple[Reads, ...]] = ("captions",)
    slot: ClassVar[Slot] = "context"

    embed_dim: int = pydantic.Field(1024, ge=1)
    "Width of a token's embedding (T5-11B: 1024)."
    encoded_by: Literal["minilm", "folder"] = "folder"
    "Which encoder made the embeddings (`wfm.models.text.config`)."
    identity: str = ""
    "sha256 over its files."
    max_length: Natural = 0
    "Most tokens of a caption; 0: the encoder's own."
    dtype: Literal["float32", "bfloat16"] = "float32"
    "How embeddings are kept."
    dropout: float = pydantic.Field(0.2, ge=0, le=1)
    "Share of samples trained with an empty text in place of their own (Cosmos code: 0.2; paper: 0)."

    def read(self, view: View) -> dict[str, np.ndarray]:
        """Nothing of a window's signals: embeddings stand beside them, of training captions and of prompts alike."""
        return {}

    def width(self, geometry: Geometry) -> int:
        """Of one token."""
        return self.embed_dim

    @classmethod
    def encoder_of(cls, slot: SlotConfig, geometry: Geometry) -> None:
        """None: embeddings enter as they are."""
        return None
