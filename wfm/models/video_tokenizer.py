"""What world models know of a tokenizer: how it packs video, and that it encodes and decodes. Torch-free to import."""

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class TokenizerCard(Protocol):
    """The configuration of a tokenizer, as far as others read it."""

    @property
    def discrete(self) -> bool:
        """Whether it makes tokens (and not latents)."""
        ...

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels of each digit of a token; empty for a continuous one."""
        ...

    @property
    def latent_channels(self) -> int:
        """Channels of its latents; digits of its tokens."""
        ...

    @property
    def temporal_compression(self) -> int:
        """Video frames per latent frame after the first."""
        ...

    @property
    def spatial_compression(self) -> int:
        """Pixels per latent position along each side."""
        ...

    def latent_frames(self, frames: int) -> int:
        """Latent frames of so many video frames. Raises ValueError for a number that it cannot take."""
        ...


class VideoTokenizer(Protocol):
    """A tokenizer's network. Video is `[B, 3, T, H, W]` in [-1, 1], latents `[B, C, t, h, w]`, tokens int64 `[B, t, h, w]`."""

    @property
    def config(self) -> TokenizerCard:
        """How it packs video."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """How many token ids there are."""
        ...

    def to(self, device: "torch.device") -> Any:
        """Move its weights there, in place."""
        ...

    def encode(self, video: "Tensor") -> "Tensor":
        """Latents of a video."""
        ...

    def decode(self, latents: "Tensor") -> "Tensor":
        """The video of latents."""
        ...

    def tokens(self, video: "Tensor") -> "Tensor":
        """Tokens of a video; discrete tokenizers alone."""
        ...

    def decode_tokens(self, tokens: "Tensor") -> "Tensor":
        """The video of tokens; discrete tokenizers alone."""
        ...
