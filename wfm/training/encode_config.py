"""What windows of a data set are encoded. Torch-free, and no family's."""

from typing import Annotated, Any, Literal, Self

import pydantic

from wfm.config import Bytes, Config, Count, Natural, added, how
from wfm.models.family import FAMILIES
from wfm.models.video_tokenizer import TokenizerCard
from wfm.registry import Named

_OF_WINDOWS = ("size", "num_frames", "stride_frames")


class EncodingConfig(Config):
    """Which windows a tokenizer encodes for the world models."""

    tokenizer_family: Annotated[str, Named(FAMILIES, "network")] = "tokenizer"
    "Family of the tokenizer."
    splits: tuple[str, ...] = ("train", "val")
    "Splits of the data set to encode. Evaluation reads the test split itself, from frames."
    take: Literal["windows", "clips"] = added("windows")
    """windows: of every clip those of `num_frames` frames, each `stride_frames` after the last, brought to `size`. clips: each
    clip whole and each still image as one frame, of its own size, aspect and rate (`wfm.data.own_shape`), which `max_pixels`
    and `max_frames` bound."""
    max_pixels: Count = added(65536)
    "Of clips: most pixels of a frame; larger ones are scaled down, and none is scaled up."
    max_frames: Natural = added(0)
    "Of clips: most frames of a sample; a longer clip gives several, one after the other. 0: any number."
    size: tuple[int, int] = (64, 64)
    "Of windows: height and width that frames are resized to [pixels]."
    num_frames: Count = 33
    "Of windows: their frames, given and predicted together."
    stride_frames: Count = 8
    "Of windows: the distance between their starts within a clip [frames]."
    extrapolate_from: Natural = 0
    """Of windows: encode too what constant motion makes of a window's first so many frames, 2 or more, for models that are
    shown it; 0: no."""
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
        foreign = ("max_pixels", "max_frames") if self.take == "windows" else ("extrapolate_from",)
        for name in foreign:
            if (value := getattr(self, name)) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is {value}, which is not for take = {self.take!r}: leave it out, or take the other"
                )
        if self.extrapolate_from == 1 or self.extrapolate_from >= self.num_frames:
            raise ValueError(
                f"extrapolate_from is {self.extrapolate_from}; give 0 for none, or 2 to {self.num_frames - 1} frames: one "
                f"frame has no motion to go on, and something must follow within the {self.num_frames}"
            )
        return self

    def what(self) -> dict[str, Any]:
        """What enters the key. Of clips the numbers of windows decide nothing, whatever a recipe has set: they enter as the
        defaults."""
        values = super().what()
        if self.take == "clips":
            plain = type(self)().what()
            values |= {name: plain[name] for name in _OF_WINDOWS}
        return values

    def grid(self, tokenizer: TokenizerCard) -> tuple[int, int, int] | None:
        """Latents (t, h, w) of a window; None where the tokenizer cannot take so many frames, and of clips, which differ."""
        if self.take == "clips":
            return None
        try:
            frames = tokenizer.latent_frames(self.num_frames)
        except ValueError:
            return None
        return frames, self.size[0] // tokenizer.spatial_compression, self.size[1] // tokenizer.spatial_compression
