"""Frames of one sample of a shard, by number, decoded as they are asked for: none behind the last one that is wanted, and
before the first only those since its key frame.

A frame's number is its place in the order of showing; containers only know times. So times are read from the packets, which
decodes nothing, and are believed where the container has an index, there are as many as the sample's row says frames, they are
no times of decoding, and the key frame that was sought comes out first. Anywhere else decoding begins at the start and the
first ones are dropped.
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
    times = _times_of(video, start, stated)
    if times is not None:
        key, sought = times
        frames = video.frames(key)
        first = next(frames, None)
        if first is not None and first.pts == key:  # else the decoder has dropped it: what came is of another place
            found = itertools.dropwhile(lambda frame: _time(frame) < sought, itertools.chain([first], frames))
            first = next(found, None)
            if first is not None and first.pts == sought:
                yield first
                yield from found
                return
    yield from itertools.islice(video.frames(), start, None)


def _time(frame: "av.VideoFrame") -> int:
    return 0 if frame.pts is None else frame.pts


def _times_of(video: OpenVideo, number: int, stated: Any) -> tuple[int, int] | None:
    """When the last key frame up to frame `number` is shown, and that frame itself [ticks], told by the packets alone; None
    where that is not sure, or is where all begins."""
    if not number or not video.rewinds or not video.straight:
        return None
    told = [(packet.pts, packet.is_keyframe) for packet in video.packets() if not packet.is_discard]
    times = [time for time, _ in told]
    if len(times) != stated or len({*times} - {None}) != stated or number >= stated:
        return None
    in_order = sorted(times)
    if times == in_order and video.stream.codec_context.has_b_frames:
        return None  # times of decoding, as AVI keeps them: those of showing are dealt out from the start on
    sought = in_order[number]
    keys = [time for time, is_key in told if is_key and time <= sought]
    return (max(keys), sought) if keys else None
