"""A part of a model with its cost, and the video that the cost is for."""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from wfm.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """A named part of a network."""

    name: str
    parameters: int
    "Learnable numbers."
    flops: int = 0
    "Of one forward pass of the whole batch."
    backward: int = 0
    "FLOPs backward: twice those forward, once where the input needs no gradient, 2.5 times for attention (scores again)."
    saved: int = 0
    "Numbers that training keeps for the backward pass of the whole batch, without checkpointing."

    def __add__(self, other: "Part") -> "Part":
        """Both together under this one's name."""
        return Part(
            self.name,
            self.parameters + other.parameters,
            self.flops + other.flops,
            self.backward + other.backward,
            self.saved + other.saved,
        )

    def times(self, count: int, name: str = "") -> "Part":
        """`count` of them."""
        numbers = (self.parameters, self.flops, self.backward, self.saved)
        return Part(name or self.name, *(count * number for number in numbers))


def product(parameters: int, flops: int, *, fixed_input: bool = False, saved: int = 0) -> Part:
    """A linear layer or convolution; `fixed_input`: nothing in front of it learns."""
    return Part("", parameters, flops, flops if fixed_input else 2 * flops, saved)


def attention(queries: int, keys: int, width: int, *, saved: int = 0) -> Part:
    """The two products of attention: `queries` of the batch, each to `keys` of its own segment, `width` over all heads."""
    flops = 4 * queries * keys * width
    return Part("", 0, flops, flops * 5 // 2, saved)


def total(parts: "tuple[Part, ...] | list[Part]", name: str = "all") -> Part:
    """The sum of parts."""
    return sum(parts, Part(name, 0))


def encoders_apart(conditions: Collection[str]) -> str:
    """What a network's words say where further conditions may have encoders with weights of their own: those are not counted,
    what the network makes of them is."""
    return f"; not counted: encoders of {', '.join(conditions)}" if conditions else ""


@dataclass(frozen=True)
class Video:
    """Frames, height and width of one video [frames, pixels]."""

    frames: int
    height: int
    width: int

    @classmethod
    def parse(cls, text: str, *, fps: float = 24.0, compression: int = 1) -> Self:
        """`121x704x1280`, `704x1280` for an image, or `5sx704x1280` for a duration: as many frames as come nearest to it at
        `fps` [1/s] and are 1 + a multiple of `compression`. Raises ConfigError for anything else."""
        lasting = re.fullmatch(r"(\d+(?:\.\d+)?)s(x\d+x\d+)", text.strip().lower())
        if lasting:
            if not 0 < fps < math.inf:
                raise ConfigError(f"fps is {fps}; it must be positive [1/s]")
            groups = round((float(lasting[1]) * fps - 1) / compression)
            text = f"{1 + max(groups, 0) * compression}{lasting[2]}"
        found = re.fullmatch(r"(?:(\d+)x)?(\d+)x(\d+)", text.strip().lower())
        numbers = [int(group or 1) for group in found.groups()] if found else [0]
        if min(numbers) < 1:
            raise ConfigError(
                f"video: {text!r} is not of the form FRAMESxHEIGHTxWIDTH, such as 121x704x1280 or 5sx704x1280"
            )
        return cls(*numbers)

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"
