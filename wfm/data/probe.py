"""What a video file holds, decided by reading every packet of it: a header may claim what is not there."""

import array
import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from wfm.data.claims import PacketCount, TooManyPackets
from wfm.data.decode import ERRORS, OpenVideo, VideoError, open_video, words_of
from wfm.data.orientation import Orientation

_BACK_SECONDS = 0.5  # decoding times never fall in a whole stream; some writers round badly


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a video file holds. Sizes are upright, in pixels; times in seconds from the start of the stream."""

    duration_seconds: float
    width: int
    height: int
    rotation_degrees: int
    "Clockwise turn that was needed to make the picture upright."
    fps: float
    "Average frames a second."
    num_frames: int
    codec: str
    pixel_format: str
    has_audio: bool
    variable_frame_rate: bool
    time_base: Fraction
    "Seconds per pts tick."
    container: str


def probe(path: str | Path, *, maximum_pixels: int = 2**28) -> Probe:
    """Read every packet of a file and its first frame; never holds more than two numbers per frame.

    Raises `VideoError`: the codes of `open_video`, ``truncated`` when the file ends before what its header announces, with
    how far it could be read, and ``too_large`` for a header that claims more than ``maximum_pixels`` a frame.
    """
    with open_video(path) as video:
        pixels = video.stream.codec_context.width * video.stream.codec_context.height
        if pixels > maximum_pixels:
            raise VideoError(path, "too_large", f"frames of {pixels} pixels, at most {maximum_pixels} are allowed")
        # Container-level facts go stale once packets are read, so take them first.
        announced_frames, announced_seconds = int(video.stream.frames or 0), _announced_seconds(video)
        has_audio = len(video.container.streams.audio) > 0
        pts, durations, end_seconds = _demux(video)
        _require_whole(video, len(pts), announced_frames, end_seconds, announced_seconds)
        ticks = np.sort(np.asarray(pts, dtype=np.int64))
        ticks[-1] += video.tick if len(ticks) > 1 and ticks[-1] == ticks[-2] else 0  # as `frames` has it
        span = int(ticks[-1] - ticks[0])
        end = video.end_pts(int(ticks[-1]), durations[int(np.argmax(np.asarray(pts)))])
        seconds = float((end - int(ticks[0])) * video.time_base)
        fps = (len(ticks) - 1) / float(span * video.time_base) if span else video.nominal_fps
        frame = next(video.frames(), None)
        if frame is None:
            raise VideoError(path, "decode_error", f"none of {len(ticks)} packets gave a frame")
        orientation = Orientation.of(frame)
        height, width = (frame.width, frame.height) if orientation.transpose else (frame.height, frame.width)
        return Probe(
            duration_seconds=seconds,
            width=width,
            height=height,
            rotation_degrees=orientation.degrees,
            fps=fps,
            num_frames=len(ticks),
            codec=video.stream.codec_context.name,
            pixel_format=frame.format.name,
            has_audio=has_audio,
            variable_frame_rate=_is_variable(ticks, video.time_base),
            time_base=video.time_base,
            container=video.container.format.name,
        )


def _announced_seconds(video: OpenVideo) -> float:
    """The length a container's header claims, or 0 where the length is only guessed from the file's end."""
    name = video.container.format.name
    told = any(part in name for part in ("mp4", "matroska", "avi", "flv"))
    return video.container.duration / av.time_base if told and video.container.duration else 0.0


def _demux(video: OpenVideo) -> tuple["array.array[int]", "array.array[int]", float]:
    """(pts of each shown video packet, their durations, where the longest stream ended [s])."""
    pts, durations = array.array("q"), array.array("q")
    count = PacketCount()
    end_seconds = 0.0
    latest: int | None = None
    streams = [video.stream, *video.container.streams.audio]
    wanted = video.stream.index
    try:
        for packet in video.demux(streams):
            time = packet.pts if packet.pts is not None else packet.dts
            if packet.size == 0:
                continue  # the flush packet at the end
            count.add(packet.size)
            mine = packet.stream_index == wanted
            if mine and packet.is_corrupt:
                at = _position(video, packet, pts)
                raise VideoError(
                    video.path, "truncated", f"data ends inside a frame at {at} ({_fraction(video, len(pts))})"
                )
            if mine and packet.dts is not None:
                back = float((latest - packet.dts) * packet.time_base) if latest is not None else 0.0
                if back > _BACK_SECONDS:
                    words = (
                        f"after {len(pts)} frames the times fall back by {back:.2f} s, as in files joined end to end"
                    )
                    raise VideoError(video.path, "clock_falls_back", words)
                latest = packet.dts
            if time is None:
                time = pts[-1] + video.tick if mine and pts else video.origin_pts
            end = float((time + (packet.duration or 0)) * packet.time_base)
            end_seconds = max(end_seconds, end)
            if mine and not packet.is_discard:
                pts.append(int(time))
                durations.append(int(packet.duration or 0))
    except VideoError:
        raise
    except TooManyPackets as error:
        raise VideoError(video.path, "too_large", str(error)) from None
    except ERRORS as error:
        how_far = _fraction(video, len(pts))
        raise VideoError(video.path, "truncated", f"reading stopped: {words_of(error)} ({how_far})") from error
    return pts, durations, end_seconds


def _require_whole(video: OpenVideo, found: int, announced: int, end: float, announced_end: float) -> None:
    """Refuse a file that ends before what its header announces."""
    if found == 0:
        code = "truncated" if announced else "no_video_stream"
        raise VideoError(video.path, code, f"0 of {announced} frames could be read")
    # Matroska announces when it ends, however late it starts; the others how long they are.
    late = 0 if "matroska" in video.container.format.name else video.container.start_time or 0
    start = max(late, 0) / av.time_base
    missing = announced_end - (end - start)
    if missing > max(0.5, 2 / video.nominal_fps) and found < 0.99 * announced_end * video.nominal_fps:
        words = f"read {end:.2f} s of {announced_end:.2f} s announced ({found} frames)"
        raise VideoError(video.path, "truncated", words)
    if announced > 0 and found < announced and missing > 1.5 / video.nominal_fps:
        raise VideoError(video.path, "truncated", f"read {found} of {announced} frames announced, to {end:.2f} s")


def _position(video: OpenVideo, packet: Any, pts: Sequence[int]) -> str:
    time = packet.pts if packet.pts is not None else (pts[-1] if pts else video.origin_pts)
    return f"{video.seconds(int(time)):.2f} s"


def _fraction(video: OpenVideo, found: int) -> str:
    total = int(video.stream.frames or 0)
    return f"{found} of {total} frames read" if total else f"{found} frames read"


def _is_variable(ticks: np.ndarray, time_base: Fraction) -> bool:
    """Whether frames are unevenly spaced, beyond what rounding to the container's ticks explains."""
    if len(ticks) < 3:
        return False
    gaps = np.diff(ticks)
    spread = int(gaps.max() - gaps.min())
    rounding = 1 if float(time_base) <= 0.002 else 0
    return spread > rounding and spread > 0.1 * float(np.median(gaps))
