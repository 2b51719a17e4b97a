"""The sentence encoder that search, clusters and taxonomy are given: curation may not load models, so who calls it brings one.

A sentence is the mean of its tokens' last hidden states (special tokens included, padding not), at length 1: what MiniLM was
trained for. Importing this loads nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wfm.errors import MissingPackage
from wfm.models.text.config import TextConfig
from wfm.models.text.identity import encoder_identity

_AT_ONCE = 256


class SentenceEncoder:
    """Texts -> float32 [N, D] of length 1, by the embedded MiniLM or a local folder. Weights are read at the first call."""

    def __init__(self, config: TextConfig | None = None) -> None:
        self._config = config or TextConfig(encoder="minilm")
        self.identity = f"mean-{encoder_identity(self._config)}"
        self._encoder: Any = None

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """One vector a text. Raises MissingPackage without torch or transformers."""
        if self._encoder is None:
            try:
                from wfm.models.text.encoders import open_encoder
            except ImportError as error:
                raise MissingPackage(str(error.name), extra="text", purpose="search by words") from error
            self._encoder = open_encoder(self._config)
        means = []
        for start in range(0, len(texts), _AT_ONCE):
            tokens, lengths = self._encoder.encode(
                list(texts[start : start + _AT_ONCE])
            )  # [B, L, D], zero past lengths
            means.append(tokens.sum(dim=1).numpy() / lengths[:, None].numpy())
        mean = np.concatenate(means).astype(np.float32)
        return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
