"""Which bin a clip goes to: aspect x resolution x duration, so that a trainer takes only shapes it can batch.

Every clip has exactly one bin. The named ones start at 0 seconds and have no upper end; what none of them describes (a picture
wider than 5:2 or taller than 2:5, a size or length that is not a positive number) goes to ``overflow``, where it is counted
and can be opened like any other. The edges and words are cosmos-curate's, whose own bins begin at 5 s and drop the rest.

Still images have bins of their own, ``image_resolution_…_aspect_ratio_…`` and ``image_overflow``: no shard holds both, so a
reader of clips need not meet an image, nor the other way round.
"""

import math
from bisect import bisect_right

OVERFLOW = "overflow"
ASPECT_EDGES, ASPECTS = (0.65, 0.88, 1.16, 1.55), ("9_16", "3_4", "1_1", "4_3", "16_9")
"Width over height; an edge belongs to the wider side."
EXTREME_ASPECT = 2.5
RESOLUTION_EDGES, RESOLUTIONS = (720, 1080), ("lt_720", "720", "1080")
"The shorter side [pixels]."
DURATION_EDGES, DURATIONS = (5.0, 10.0, 30.0), ("0_5", "5_10", "10_30", "30_inf")
"Seconds."

BINS = (
    *(
        f"resolution_{resolution}_aspect_ratio_{aspect}_duration_{duration}"
        for resolution in RESOLUTIONS
        for aspect in ASPECTS
        for duration in DURATIONS
    ),
    OVERFLOW,
)
"""Every bin there is, named as its folder."""


IMAGES = "image"
"""Folder of still images where clips are not binned, and how the names of their bins begin."""


def image_bin(width: int, height: int) -> str:
    """The bin of a still image of that size [pixels]."""
    of_clip = shard_bin(width, height, 1.0)
    return f"{IMAGES}_{of_clip.partition('_duration')[0]}"


def shard_bin(width: int, height: int, seconds: float) -> str:
    """The bin of a clip of that size [pixels] and length [s]; total: one of `BINS` for any numbers."""
    if min(width, height) <= 0 or not (math.isfinite(seconds) and seconds > 0):
        return OVERFLOW
    aspect = width / height
    if not 1 / EXTREME_ASPECT <= aspect <= EXTREME_ASPECT:
        return OVERFLOW
    resolution = RESOLUTIONS[bisect_right(RESOLUTION_EDGES, min(width, height))]
    duration = DURATIONS[bisect_right(DURATION_EDGES, seconds)]
    return f"resolution_{resolution}_aspect_ratio_{ASPECTS[bisect_right(ASPECT_EDGES, aspect)]}_duration_{duration}"
