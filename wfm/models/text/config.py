"""Configuration of the text encoder. Torch-free."""

from typing import Literal, Self

import pydantic

from wfm.config import Config, how


class TextConfig(Config):
    """Which encoder turns captions into token embeddings."""

    encoder: Literal["none", "minilm", "folder"] = "none"
    "none: captions are not used; minilm: the small encoder that is installed as a package; folder: one on disk."
    folder: str = how("")
    "For encoder=folder: a local folder of a T5 or BERT encoder. It enters keys by the hash of its files, not by its name."
    max_length: int = 0
    "Most tokens of a caption, longer ones are cut; 0: the encoder's own (T5 512, MiniLM 256)."
    dtype: Literal["float32", "bfloat16"] = "float32"
    "How embeddings are kept; encoding itself is in float32."
    batch_size: int = how(32)
    "Captions encoded at once."
    cache: str = how("")
    "Folder that keeps embeddings by caption between runs; empty: none is kept."

    @pydantic.model_validator(mode="after")
    def _sane(self) -> Self:
        if (self.encoder == "folder") != bool(self.folder):
            raise ValueError(
                f"encoder={self.encoder!r} with folder={self.folder!r}: encoder=folder needs one, others none"
            )
        if self.max_length < 0 or self.batch_size < 1:
            raise ValueError(f"max_length {self.max_length} and batch_size {self.batch_size} must not be negative or 0")
        return self

    @property
    def used(self) -> bool:
        """Whether captions are encoded at all."""
        return self.encoder != "none"
