"""Frames of one sample of a shard, by number, decoded as they are asked for: none behind the last one that is wanted, and
before the first only those since its key frame.

A frame's number is its place in the order of showing; containers only know times. So times are read from the packets, which
decodes nothing, and are believed where the container has an index, there are as many as the sample's row says frames, and the
frame that comes first has the time that was sought. Anywhere else decoding begins at the start and the first ones are dropped.
"""

import contextlib
import itertools
import json
import tempfile
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.data.decode import OpenVideo, open_video, to_array
from wfm.data.images import read_image, resized
from wfm.data.orientation import Orientation
from wfm.data.signatures import image_member
from wfm.errors import DataError

if TYPE_CHECKING:
    import av

    from wfm.data.shards import Sample

Size = tuple[int, int] | Callable[[int, int], tuple[int, int]]
"""Height and width that pictures are brought to [pixels], or what gives them for those of the upright picture."""


def row_of(sample: "Sample") -> dict[str, Any]:
    """What a sample says of itself. Raises DataError for one without, or without pictures."""
    for part in (image_member(sample.members) or "mp4", "json"):
        if part not in sample.members:
            raise DataError(f"sample {sample.key}: no member {part!r}; it has {', '.join(sorted(sample.members))}")
    row: dict[str, Any] = json.loads(sample.members["json"])
    return row


@contextlib.contextmanager
def open_frames(
    sample: "Sample", size: Size, start: int = 0, stop: int | None = None
) -> Iterator[Iterator[np.ndarray]]:
    """Frames `start` to `stop` (None: the end) of a sample, uint8 `[H, W, 3]`, upright and resized; a still image has one.

    Damage behind `stop` is not seen. Raises DataError as `row_of`, VideoError for frames that cannot be decoded.
    """
    stated = row_of(sample).get("num_frames")
    picture = image_member(sample.members)
    if picture:
        yield itertools.islice(_still(sample.members[picture], size), start, stop)
        return
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(sample.members["mp4"])
        file.flush()
        with open_video(file.name) as video:
            wanted = None if stop is None else max(0, stop - start)
            found = itertools.islice(_from(video, start, stated), wanted)
            with contextlib.closing(_arrays(found, size)) as arrays:
                yield arrays


def _still(data: bytes, size: Size) -> Iterator[np.ndarray]:
    pixels = read_image(data)
    height, width = pixels.shape[:2]
    yield resized(pixels, size(height, width) if callable(size) else size)


def _arrays(frames: Iterator["av.VideoFrame"], size: Size) -> Generator[np.ndarray, None, None]:
    import av.video.reformatter

    scaler = av.video.reformatter.VideoReformatter()
    for frame in frames:
        if callable(size):
            height, width = frame.height, frame.width
            size = size(width, height) if Orientation.of(frame).transpose else size(height, width)
        yield to_array(frame, size=size, scaler=scaler)


def _from(video: OpenVideo, start: int, stated: Any) -> Iterator["av.VideoFrame"]:
    """The frames from number `start` on."""
    sought = _time_of(video, start, stated)
    if sought is not None:
        frames = video.frames(sought)
        first = next(frames, None)
        if first is not None and first.pts == sought:
            yield first
            yield from frames
            return
    yield from itertools.islice(video.frames(), start, None)


def _time_of(video: OpenVideo, number: int, stated: Any) -> int | None:
    """When frame `number` is shown [ticks], told by the packets alone; None where that is not sure, or is where all begins."""
    if not number or not video.rewinds or not video.straight:
        return None
    times = [packet.pts for packet in video.packets() if not packet.is_discard]
    if len(times) != stated or len({*times} - {None}) != stated or number >= stated:
        return None
    return sorted(times)[number]
