"""The card of the tokenizers: their configs and labels. Torch-free."""

from typing import Annotated, Literal, Self

import pydantic

from wfm.config import Count, Natural, how
from wfm.models.family import FAMILIES, Family
from wfm.models.tokenizer.config import TokenizerConfig
from wfm.models.tokenizer.loss_config import ReconstructionConfig
from wfm.registry import Named
from wfm.training.config import TokenizerTraining, TrainingConfig


class TokenizerTrainingConfig(TokenizerTraining):
    """What a tokenizer is, what it learns from, and how."""

    family: Annotated[Literal["tokenizer"], Named(FAMILIES, "fit")] = "tokenizer"
    model: TokenizerConfig = TokenizerConfig(
        patch_size=8,
        channels=(192, 192),
        encoder_blocks=1,
        mid_blocks=0,
        mid_attention=False,
        end_kernel=1,
        z_channels=64,  # 16 would be a bottleneck beside the linear code, whose networks start at zero
        linear_code=True,
    )
    "The network; the default is the demo's. Stated in part, the rest is Cosmos's CV8x8x8."
    loss: ReconstructionConfig = ReconstructionConfig()
    "What counts as a good reconstruction."
    training: TrainingConfig = TrainingConfig(
        steps=500, batch_size=8, learning_rate=1e-3, matrix_learning_rate=0.01, validate_every=100
    )
    "Steps, batch and optimiser."
    size: tuple[int, int] = (64, 64)
    "Height and width that frames are resized to [pixels]."
    num_frames: int = 33
    "Frames of a window read from the data set; 1 + temporal_compression * n."
    stride_frames: Count = 32
    "Distance between the starts of windows within a clip [frames]."
    crop_frames: int = 17
    "Frames of a training crop within a window; 1 + temporal_compression * n."
    max_windows: Natural = 2000
    "Most windows that are trained on, chosen by hash; 0: all."
    window_cache_bytes: Natural = how(2**30)
    """Bytes of decoded windows that stay in memory, so that a set of fewer is decoded once; further ones are decoded each time
    they are wanted."""
    validation_windows: Natural = 32
    "Windows of the val split that are watched; 0: all."
    start_windows: Count = 256
    "Windows from which the principal components are taken."
    image_every: int = 0
    "One batch in so many, from the first on, is of single frames of the windows (Cosmos's joint training); 0: none."
    images_per_window: Count = 4
    "Frames that an image batch takes from each window, evenly spaced."

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Self:
        for name in ("num_frames", "crop_frames"):
            try:
                self.model.latent_frames(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name} = {getattr(self, name)}: {error}") from None
        if self.crop_frames > self.num_frames:
            raise ValueError(f"crop_frames {self.crop_frames} is more than num_frames {self.num_frames}")
        if 1 < self.model.temporal_compression >= self.crop_frames:
            raise ValueError(f"crop_frames {self.crop_frames} holds no latent frame after the first: use more")
        for side in self.size:
            if side % self.model.spatial_compression:
                raise ValueError(f"size {self.size} is not a multiple of {self.model.spatial_compression}")
        if self.model.in_channels != 3:
            raise ValueError(f"model.in_channels is {self.model.in_channels}; the frames of a data set have 3")
        adversarial, parts = self.loss.adversarial, self.training.accumulation
        if parts > 1 and adversarial.adaptive and adversarial.weight.ever:
            raise ValueError(
                f"training.accumulation is {parts}, and loss.adversarial.adaptive balances the pulls of a whole batch: set "
                "accumulation 1, or adaptive false"
            )
        if self.image_every < 0 or self.image_every == 1:
            raise ValueError(f"image_every is {self.image_every}; give 0 for videos only, or 2 and more")
        if self.image_every and not 1 <= self.images_per_window <= self.crop_frames:
            raise ValueError(
                f"images_per_window is {self.images_per_window}; a crop has 1 to {self.crop_frames} frames to take"
            )
        return self

    def own_files(self) -> dict[str, tuple[str, str]]:
        """The weights of the loss's network of features."""
        if not self.loss.needs_file:
            return {}
        advice = (
            f"loss.feature_net {self.loss.feature_net!r} needs its weights: loss.feature_file = {self.loss.feature_file!r} is "
            "not a file; give torchvision's state dict as safetensors, or use the feature net 'offline-gabor'"
        )
        return {"loss.feature_file": (self.loss.feature_file, advice)}


class TokenizerFamily(Family):
    """Causal networks between video and latents or tokens."""

    name = "tokenizer"
    makes = "tokenizer"
    title = "Tokenizer"
    config = TokenizerConfig
    network = "wfm.models.tokenizer.network:Tokenizer"
    training = TokenizerTrainingConfig
    costs = "wfm.families.tokenizer.cost:cost"
    fit = "wfm.families.tokenizer.fit:open_tokenizer"


FAMILY = TokenizerFamily()
