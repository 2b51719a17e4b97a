"""What a detector of shots is: how it is chosen and set, what it is fed, and what it says."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np
import pydantic

from wfm.config import AboveZero, AtLeastZero, Config, Device, how

Detector = Literal["adaptive", "content", "transnetv2", "stride", "whole"]


class ShotConfig(Config):
    """How a video is divided into spans."""

    detector: Detector = "adaptive"
    """adaptive (a frame differs far more than its neighbours do: bears moving cameras), content (it differs more than a
    threshold), transnetv2 (a network that knows gradual transitions too: extra curate-models), stride (fixed length) or whole
    (no division)."""
    adaptive_ratio: AboveZero = 3.0
    "adaptive: how many times more than its neighbours a frame must differ."
    minimum_content: AtLeastZero = 15.0
    "adaptive: and at least by this (mean HSV difference, 0 to 255)."
    content_threshold: AboveZero = 27.0
    "content: mean HSV difference that makes a cut (0 to 255)."
    gradual: bool = False
    "adaptive and content: look for dissolves and fades as well; the mixed frames belong to no shot."
    gradual_ratio: float = 0.6
    "gradual: how far pictures and their detail may stray from a dissolve's course, a sum of shares; less finds fewer."
    transnet_threshold: float = 0.5
    "transnetv2: probability that makes a transition."
    transnet_weights_sha256: str = "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de"
    "transnetv2: the weights that are meant; other ones are refused."
    transnet_batch: int = how(4, ge=1)
    "transnetv2: windows of 100 frames that go through the network at once."
    device: Device = how("cpu")
    "transnetv2: where the network runs: cpu, cuda, cuda:1, ..."
    stride_seconds: float = 10.0
    "stride: length of a span [s]."
    minimum_seconds: float = 1.5
    "Shorter spans are left out and counted [s]."
    maximum_seconds: float = 60.0
    "Longer spans are divided evenly [s]."
    crop_start_seconds: float = 0.0
    "Cut off the beginning of every shot, such as for fades [s]."
    crop_end_seconds: float = 0.0
    "Cut off the end of every shot [s]."
    detection_side: int = 128
    "Shorter side of the pictures that detection looks at [pixels]; smaller videos are looked at as they are."

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Self:
        if not 0 < 2 * self.minimum_seconds <= self.maximum_seconds:
            raise ValueError(
                f"maximum_seconds={self.maximum_seconds} must be at least twice minimum_seconds={self.minimum_seconds}, "
                "and both positive: an evenly divided span may be half the maximum"
            )
        if self.stride_seconds < self.minimum_seconds:
            raise ValueError(f"stride_seconds={self.stride_seconds} is below minimum_seconds={self.minimum_seconds}")
        if min(self.crop_start_seconds, self.crop_end_seconds) < 0 or self.detection_side < 16:
            raise ValueError("crop_start_seconds and crop_end_seconds must be at least 0, detection_side at least 16")
        if self.gradual and self.detector not in ("adaptive", "content"):
            raise ValueError(f"gradual=True goes with the detectors adaptive and content, not with {self.detector!r}")
        if not 0 < self.transnet_threshold < 1 or self.gradual_ratio <= 0:
            raise ValueError("transnet_threshold must lie between 0 and 1, gradual_ratio above 0")
        return self


class Mixed(NamedTuple):
    """Frames ``first`` up to and without ``last`` that show two shots at once, or the dark between them."""

    first: int
    last: int


Cut = int | Mixed
"""A hard cut is the index of the frame that begins a new shot."""


class Finder(Protocol):
    """What looks at every picture of a video and then says where its shots begin."""

    def push(self, picture: np.ndarray) -> Sequence[int] | None:
        """The next picture. Returns hard cuts that are sure now, in order; None: all are told at the end alone."""

    def finish(self) -> list[Cut]:
        """The cuts of the whole video, in order."""
