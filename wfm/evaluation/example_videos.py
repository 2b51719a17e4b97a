"""Short H.264 clips for looking at: panels side by side in one video, so that they cannot drift apart."""

import io
from collections.abc import Sequence

import numpy as np

from wfm.data.colour import as_bt709, tag
from wfm.data.x264 import STEADY

GAP = 4
"""Pixels between panels, even: 4:2:0 chroma."""


def panel_grid(panels: Sequence[np.ndarray], *, columns: int, scale: int = 2, gap: int = GAP) -> np.ndarray:
    """Lay videos uint8 [T, H, W, 3] of one shape out in a grid, enlarged `scale` times, on mid-grey: [T, H', W', 3],
    even sides.

    Empty places of the last row stay grey.
    """
    import cv2

    frames, height, width, _ = panels[0].shape
    tall, wide = height * scale, width * scale
    rows = -(-len(panels) // columns)
    out_height, out_width = rows * tall + (rows - 1) * gap, columns * wide + (columns - 1) * gap
    canvas = np.full((frames, out_height + out_height % 2, out_width + out_width % 2, 3), 128, dtype=np.uint8)
    for index, panel in enumerate(panels):
        if panel.shape != panels[0].shape:
            raise ValueError(f"panel {index} is {panel.shape}, panel 0 is {panels[0].shape}: all must be one shape")
        top, left = (index // columns) * (tall + gap), (index % columns) * (wide + gap)
        for frame in range(frames):
            large = cv2.resize(panel[frame], (wide, tall), interpolation=cv2.INTER_CUBIC)
            canvas[frame, top : top + tall, left : left + wide] = large
    return canvas


def encode_mp4(video: np.ndarray, fps: float, *, quality: int = 23) -> bytes:
    """uint8 [T, H, W, 3], even sides -> the bytes of an mp4 (H.264 High, yuv420p, a key frame every 8 frames so that
    stepping is quick)."""
    from fractions import Fraction

    import av

    if video.shape[1] % 2 or video.shape[2] % 2:
        raise ValueError(f"H.264 4:2:0 needs even sides, got {video.shape[1]}x{video.shape[2]}")
    buffer = io.BytesIO()
    options = {"crf": str(quality), "preset": "slow", "g": "8", **STEADY}
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width = video.shape[1], video.shape[2]
        stream.pix_fmt = "yuv420p"
        tag(stream.codec_context)
        for frame in video:
            container.mux(stream.encode(as_bt709(frame)))
        container.mux(stream.encode())
    return buffer.getvalue()


def spread(gains: np.ndarray, number: int, *, ends: bool = True) -> list[int]:
    """Windows from a poor gain to a good one, evenly by rank: a reader sees the whole range and not a choice of ours.

    With `ends` the worst and the best are among them, else the middles of `number` equal shares.
    """
    order = np.argsort(gains, kind="stable")
    if len(order) <= number:
        return [int(index) for index in order]
    last = len(order) - 1
    places = np.linspace(0, last, number) if ends else (np.arange(number) + 0.5) / number * last
    return [int(order[round(place)]) for place in places]
