"""Which pictures of a clip are measured: small ones of every frame, and stills spread over all of it."""

import pydantic

from wfm.config import Config

_GOLDEN = (5**0.5 - 1) / 2


class FrameSampling(Config):
    """Sizes and numbers of the frames that are kept."""

    thumbnail_side: int = pydantic.Field(64, ge=2)
    "Longer side of the frames that differences are taken of [pixels]."
    still_side: int = pydantic.Field(256, ge=2)
    "Longest side of the stills for sharpness and text [pixels]; a smaller picture keeps its size."
    stills: int = pydantic.Field(16, ge=1)
    "Stills a clip, spread over all of it."


def still_indices(count: int, frames: int) -> set[int]:
    """``count`` frames spread over a clip by the golden ratio, the first one among them.

    Uneven on purpose: a moving pattern that repeats itself would look fixed at even steps, and overlaid text is what stays
    fixed.
    """
    return {int(k * _GOLDEN % 1 * max(frames, 1)) for k in range(count)}
