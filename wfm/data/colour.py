"""What colours an mp4 that we write says it has: an untagged file is shown by a guess, and players guess differently.

`as_bt709` converts by BT.709 and `tag` says so, in the stream's own header (VUI) and in the container's. Numbers are those of
ITU-T H.273.
"""

from typing import Any

import numpy as np

LIMITED_RANGE = 1
BT709 = 1
"""As matrix, as primaries and as transfer."""
BT601 = 6
"""As matrix."""


def as_bt709(picture: np.ndarray, channels: str = "rgb24") -> Any:
    """uint8 [H, W, 3], even sides -> a yuv420p `av.VideoFrame` of limited range, by the matrix of BT.709."""
    import av

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=channels)
    frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
    frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc = BT709, LIMITED_RANGE, BT709, BT709
    return frame


def tag(context: Any, *, matrix: int = BT709) -> None:
    """Have an encoder say: this matrix, limited range, primaries and transfer of BT.709."""
    context.colorspace, context.color_range = matrix, LIMITED_RANGE
    context.color_primaries = context.color_trc = BT709
