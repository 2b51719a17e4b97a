"""What a tokenizer is trained to minimise: the terms of its loss, their weights over time, and Cosmos's two stages.
Torch-free."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import pydantic

from wfm.config import AtLeastZero, Config, Decay, how

FeatureNetName = Literal["vgg16", "vgg19", "offline-gabor"]


class TermWeight(Config):
    """The weight of one term as a function of the step: one value, and from some step on another."""

    before: float = 0.0
    "Weight before step `start`."
    after: float = 0.0
    "Weight from step `start` on."
    start: int = 0
    "First step with the weight `after`, counted from 0."

    @pydantic.model_validator(mode="after")
    def _sane(self) -> Self:
        for name in ("before", "after", "start"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; weights and steps are not negative")
        return self

    def at(self, step: int) -> float:
        """The weight at `step` (0-based)."""
        return self.after if step >= self.start else self.before

    @property
    def ever(self) -> bool:
        """Whether the term counts at any step."""
        return self.after > 0 or (self.before > 0 and self.start > 0)


class AdversarialConfig(Config):
    """The second player: a discriminator that tells videos from reconstructions. (Cosmos names the loss and keeps the
    network to itself; this one is ours.)"""

    weight: TermWeight = TermWeight()
    "Weight of the discriminator's verdict in the tokenizer's loss."
    lead_steps: int = 0
    "Steps before the weight first turns positive from which the discriminator learns already."
    adaptive: bool = False
    "Scale the weight so that this term pulls at the reconstruction as hard as all others together (VQGAN's balance)."
    adaptive_limit: float = 1e4
    "adaptive: largest factor."
    r1: float = 0.0
    "Weight of the R1 penalty, half the squared gradient of a patch's verdict at real videos; 0: none."
    r1_every: int = 16
    "The penalty is taken at one step in so many, and counts so many times there."
    learning_rate: float = pydantic.Field(4e-4, gt=0)
    "Peak learning rate of the discriminator; it follows the tokenizer's schedule."
    betas: tuple[Decay, Decay] = (0.5, 0.999)
    "Decay rates of its AdamW's two moments."
    channels: int = 32
    "Width of its first layer; doubles with each level, up to eight times."
    levels: int = 3
    "Halvings of height and width; the verdict is one number for each patch that is left."

    @pydantic.model_validator(mode="after")
    def _sane(self) -> Self:
        for name in ("channels", "levels", "r1_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("lead_steps", "r1", "adaptive_limit"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it is not negative")
        return self

    @property
    def first_step(self) -> int:
        """The step from which the discriminator learns."""
        starts = 0 if self.weight.before > 0 else self.weight.start
        return max(0, starts - self.lead_steps)


class ReconstructionConfig(Config):
    """The loss of a tokenizer: a pixel error, and further terms whose weights are 0 unless given.

    The default is the squared error alone, the best loss for PSNR. `cosmos_stage1`, `cosmos_stage2` and `cosmos_schedule`
    are Cosmos's: give such a name in place of the whole (`--set train_tokenizer.loss=cosmos_stage1`), or as `preset` beside
    the fields that differ from it.
    """

    error: Literal["l2", "l1"] = "l2"
    "Pixel error: squared (what PSNR measures), or absolute (Cosmos)."
    gradient_weight: AtLeastZero = 0.0
    "Weight of the same error of neighbouring pixels' differences: sharper edges."
    perceptual: TermWeight = TermWeight()
    "Weight of the distance between the features of both videos."
    gram: TermWeight = TermWeight()
    "Weight of the squared distance between the Gram matrices of the same features: texture wherever it lies."
    flow: TermWeight = TermWeight()
    "Weight of the distance between the optical flows of both videos [1 / px]; images have none."
    adversarial: AdversarialConfig = AdversarialConfig()
    "The discriminator and its weight."
    feature_net: FeatureNetName = "offline-gabor"
    "vgg16 (Cosmos's code) or vgg19 (its paper), with weights from `feature_file`; or a fixed net that needs no file."
    feature_file: str = how("")
    "vgg16, vgg19: a safetensors file with torchvision's state dict of the net. Its sha256 enters the key."
    layer_weights: tuple[float, ...] = ()
    "Weights of the five layers whose features are compared; empty: the net's own."
    flow_scale: int = 2
    "Videos are shrunk by this factor before their flow is taken (Cosmos: 2)."
    checkpoint_features: bool = how(False)
    "Compute features again in the backward pass and do not keep them: less memory, more time."

    @pydantic.model_validator(mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> Any:
        if isinstance(values, str):
            values = {"preset": values}
        if not isinstance(values, Mapping) or "preset" not in values:
            return values
        name = values["preset"]
        if name not in PRESETS:
            raise ValueError(f"preset is {name!r}; choose from {', '.join(PRESETS)}")
        return {**PRESETS[name]().resolved(), **{key: value for key, value in values.items() if key != "preset"}}

    @pydantic.model_validator(mode="after")
    def _sane(self) -> Self:
        if self.layer_weights and len(self.layer_weights) != LAYERS:
            raise ValueError(f"layer_weights has {len(self.layer_weights)} entries; give {LAYERS}, or none")
        if self.feature_file and not self.feature_net.startswith("vgg"):
            raise ValueError(
                f"feature_file is {self.feature_file!r} and feature_net {self.feature_net!r} reads no file: use vgg16 or vgg19"
            )
        if self.flow_scale < 1:
            raise ValueError(f"flow_scale is {self.flow_scale}; it must be at least 1")
        return self

    @property
    def needs_features(self) -> bool:
        """Whether any term looks at features."""
        return self.perceptual.ever or self.gram.ever

    @property
    def needs_file(self) -> bool:
        """Whether `feature_file` has to be given."""
        return self.needs_features and self.feature_net.startswith("vgg")


LAYERS = 5
"""Layers of a feature net that are compared."""


def cosmos_stage1(feature_file: str = "", feature_net: FeatureNetName = "vgg16") -> ReconstructionConfig:
    """Cosmos's first stage: absolute error and perceptual distance (weight 0.1, from the released training code).

    Without `feature_file` give the feature net "offline-gabor".
    """
    return ReconstructionConfig(
        error="l1", perceptual=TermWeight(after=0.1), feature_net=feature_net, feature_file=feature_file
    )


def cosmos_stage2(
    feature_file: str = "", feature_net: FeatureNetName = "vgg16", *, adversarial_weight: float = 0.1
) -> ReconstructionConfig:
    """Cosmos's second stage, from step 0, for a run that continues from a tokenizer of the first: Gram and flow terms join,
    and the discriminator, which the paper uses for fine-tuning.

    Weights are the released code's. That of the discriminator is not published: ours, with VQGAN's balance.
    """
    return ReconstructionConfig(
        error="l1",
        perceptual=TermWeight(after=0.073),
        gram=TermWeight(after=0.062),
        flow=TermWeight(after=0.01),
        adversarial=AdversarialConfig(weight=TermWeight(after=adversarial_weight), adaptive=True),
        feature_net=feature_net,
        feature_file=feature_file,
    )


def cosmos_schedule(feature_file: str = "", feature_net: FeatureNetName = "vgg16") -> ReconstructionConfig:
    """Both stages in one run, as the released code has it: flow joins at step 250,000; at 500,000 Gram joins and the
    perceptual weight falls from 0.1 to 0.073. No discriminator, which was not released."""
    return ReconstructionConfig(
        error="l1",
        perceptual=TermWeight(before=0.1, after=0.073, start=500_000),
        gram=TermWeight(after=0.062, start=500_000),
        flow=TermWeight(after=0.01, start=250_000),
        feature_net=feature_net,
        feature_file=feature_file,
    )


PRESETS: dict[str, Callable[[], ReconstructionConfig]] = {
    "cosmos_stage1": cosmos_stage1,
    "cosmos_stage2": cosmos_stage2,
    "cosmos_schedule": cosmos_schedule,
}
"""What `ReconstructionConfig` may be called by."""
