"""What windows of a data set are encoded. Torch-free, and no family's."""

from typing import Annotated, Literal, Self

import pydantic

from wfm.config import Bytes, Config, Count, Natural, added, how
from wfm.models.family import FAMILIES
from wfm.models.video_tokenizer import TokenizerCard
from wfm.registry import Named


class EncodingConfig(Config):
    """Which windows a tokenizer encodes for the world models."""

    tokenizer_family: Annotated[str, Named(FAMILIES, "network")] = "tokenizer"
    "Family of the tokenizer."
    splits: tuple[str, ...] = ("train", "val")
    "Splits of the data set to encode. Evaluation reads the test split itself, from frames."
    size: tuple[int, int] = (64, 64)
    "Height and width that frames are resized to [pixels]."
    num_frames: Count = 33
    "Frames of a window, given and predicted together."
    stride_frames: Count = 8
    "Distance between the starts of windows within a clip [frames]."
    extrapolate_from: Natural = 0
    """Encode too what constant motion makes of a window's first so many frames, 2 or more, for models that are shown it; 0:
    no."""
    statistics_frames: int = pydantic.Field(2, ge=1)
    """Columns of the latent statistics (Cosmos: 16): one for each of the first latent frames, the last one for all from there
    on. Only the first latent frame is of another kind, so 2 are enough; it holds one frame and serves images too."""
    mirror: bool = False
    "Add the left-right mirror of every training window."
    maximum_shard_bytes: Bytes = added(500_000_000)
    "A shard is closed before it grows beyond this [bytes]."
    batch_size: Count = how(32)
    "Most windows encoded at once."
    batch_pixels: Count = how(1 << 24)
    "Most pixels encoded at once, those of all frames (frames x height x width); a larger sample is encoded alone."
    device: Literal["auto", "cpu", "cuda"] = how("auto")
    "Where the tokenizer runs. auto: on a GPU where torch sees one. cuda: the first that the worker sees."
    threads: Natural = how(1)
    "CPU threads of torch in each worker; 0: as torch chooses. The same number gives the same bits."

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Self:
        if self.extrapolate_from == 1 or self.extrapolate_from >= self.num_frames:
            raise ValueError(
                f"extrapolate_from is {self.extrapolate_from}; give 0 for none, or 2 to {self.num_frames - 1} frames: one "
                f"frame has no motion to go on, and something must follow within the {self.num_frames}"
            )
        return self

    def grid(self, tokenizer: TokenizerCard) -> tuple[int, int, int] | None:
        """Latents (t, h, w) of a window; None where the tokenizer cannot take so many frames."""
        try:
            frames = tokenizer.latent_frames(self.num_frames)
        except ValueError:
            return None
        return frames, self.size[0] // tokenizer.spatial_compression, self.size[1] // tokenizer.spatial_compression
