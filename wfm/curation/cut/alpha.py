"""Pictures with transparency, laid on a ground of one colour: an encoded clip has no alpha, and what a decoder leaves where a
picture is transparent is nobody's intention."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import av

_WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
"Number of a matrix -> its shares of red and blue in luma; BT.601 for the others."
_BT601 = (0.299, 0.114)


def has_alpha(frame: "av.VideoFrame") -> bool:
    """Whether a frame's pixel format can hold transparency; palettes can."""
    return frame.format.has_palette or any(part.is_alpha for part in frame.format.components)


def rgb_on_ground(frame: "av.VideoFrame", ground: tuple[int, int, int], *, premultiplied: bool) -> np.ndarray:
    """RGB with alpha, or a palette -> uint8 [H, W, 3]."""
    pixels = frame.to_ndarray(format="rgba")
    return laid_on(pixels[..., :3], pixels[..., 3:], ground, premultiplied=premultiplied)


def laid_on(colour: np.ndarray, alpha: np.ndarray, ground: tuple[int, int, int], *, premultiplied: bool) -> np.ndarray:
    """uint8 RGB [H, W, 3] and alpha [H, W, 1] -> uint8 [H, W, 3]."""
    if alpha.min() == 255:
        return np.ascontiguousarray(colour)
    return _mixed(colour, alpha, np.array(ground, np.float32), np.zeros(3, np.float32), premultiplied)


def yuv_on_ground(
    frame: "av.VideoFrame", ground: tuple[int, int, int], *, premultiplied: bool, full: bool, matrix: int
) -> "av.VideoFrame":
    """YUV or grey with alpha -> yuv444p of the same range and matrix; a frame without transparency comes back as it is."""
    import av

    limits: dict[str, Any] = {"src_color_range": 2 if full else 1, "dst_color_range": 2 if full else 1}
    small = frame.reformat(format="yuva444p", **limits)
    planes = [np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height, : p.width] for p in small.planes]
    alpha = planes[3]
    if alpha.min() == 255:
        return frame
    colour = np.stack(planes[:3], axis=-1)
    black = np.array([0 if full else 16, 128, 128], np.float32)
    mixed = _mixed(colour, alpha[..., None], _code(ground, full, matrix), black, premultiplied)
    made = av.VideoFrame.from_ndarray(np.ascontiguousarray(mixed.transpose(2, 0, 1)), "yuv444p")
    made.colorspace, made.color_range = frame.colorspace, frame.color_range
    made.color_primaries, made.color_trc = frame.color_primaries, frame.color_trc
    return made


def _mixed(
    colour: np.ndarray, alpha: np.ndarray, ground: np.ndarray, black: np.ndarray, premultiplied: bool
) -> np.ndarray:
    """uint8 codes [H, W, 3] and alpha [H, W, 1] over the codes of a ground [3]; ``black``: what nothing is written as [3]."""
    share = alpha.astype(np.float32) / 255
    own = colour - black if premultiplied else (colour - black) * share
    return (own + (1 - share) * (ground - black) + black + 0.5).clip(0, 255).astype(np.uint8)


def _code(ground: tuple[int, int, int], full: bool, matrix: int) -> np.ndarray:
    """An RGB colour (0 to 255) in YUV: float32 [3]."""
    r, g, b = (value / 255 for value in ground)
    red, blue = _WEIGHTS.get(matrix, _BT601)
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    scale, span, low = (255, 255, 0) if full else (219, 224, 16)
    return np.array([low + scale * y, 128 + span * u, 128 + span * v], np.float32)
