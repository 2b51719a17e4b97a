"""Frames that carry their own number, so that each is known again after any codec, and files made of them packet by packet."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

Writer = Callable[..., Path]


def counted(count: int, first: int = 0) -> np.ndarray:
    """uint8 [T, 64, 96, 3]: a picture that moves, with the frame's number as 8 light and dark fields along its top."""
    cells = np.random.default_rng(0).integers(30, 220, (8, 12, 3), dtype=np.uint8)
    picture = np.kron(cells, np.ones((8, 8, 1), np.uint8))
    frames = np.stack([np.roll(picture, 2 * index, axis=1) for index in range(first, first + count)])
    bits = (np.arange(first, first + count)[:, None] >> np.arange(8)) & 1
    frames[:, :16] = (255 * np.repeat(bits, 12, axis=1)).astype(np.uint8)[:, None, :, None]
    return frames


def numbers(frames: Sequence[np.ndarray] | np.ndarray) -> list[int]:
    """The numbers of decoded frames uint8 [64, 96, 3]."""
    fields = np.stack(frames)[:, 2:14].mean(axis=(1, 3)).reshape(len(frames), 8, 12)[:, :, 3:9].mean(axis=2)
    return [int(number) for number in ((fields > 127) << np.arange(8)).sum(axis=1)]


def remux(source: Path, target: Path, change: Callable[[int, Any], bool | None], container: str | None = None) -> Path:
    """The packets of ``source`` in another file; ``change`` is given each one's number and packet, and drops it by False."""
    with av.open(str(source)) as read, av.open(str(target), "w", format=container) as out:
        stream = out.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(packet for packet in read.demux(video=0) if packet.size):
            if change(number, packet) is not False:
                packet.stream = stream
                out.mux(packet)
    return target
