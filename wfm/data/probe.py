"""What a video file holds, decided by reading every packet of it: a header may claim what is not there.

Only the video track tells whether a file is whole: sound and subtitles may end before it or after. Packets that were damaged on
their way are noted, not refused: decoding tells which pictures suffer (`wfm.data.frame_order`).
"""

import array
import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from wfm.data.claims import PacketCount, TooManyPackets
from wfm.data.containers import ERRORS, words_of
from wfm.data.decode import OpenVideo, VideoError, open_video
from wfm.data.frame_order import Clock
from wfm.data.holes import HOLE_SECONDS
from wfm.data.orientation import Orientation

_FEW = 0.02
"Share of the frames up to which uneven ones are accidents, such as lost ones; where there are more, they come as they please."
_CUT_ANYWHERE = ("mpegts", "mpeg")
"Containers made to be recorded from any moment to any other: the last picture may be cut, and nothing else is missing."
_READ_TO_THE_END = ("flv", "matroska")
"Containers in which packets stand up to the end, or nearly: where no more can be read before that, something was lost."


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
    "Frames come unevenly; single holes in an even video do not count."
    time_base: Fraction
    "Seconds per pts tick."
    container: str
    notes: tuple[str, ...] = ()
    "What was noticed and is no reason to refuse the file: other video tracks, damaged packets, joined pieces."


@dataclasses.dataclass
class _Read:
    """What reading every packet of a video gave."""

    pts: "array.array[int]" = dataclasses.field(default_factory=lambda: array.array("q"))
    "Of each packet that shows a picture."
    durations: "array.array[int]" = dataclasses.field(default_factory=lambda: array.array("q"))
    end_seconds: float = 0.0
    "Where the last of all tracks ended."
    video_end_seconds: float = 0.0
    damaged: int = 0
    "Packets of the video that the container marks as damaged."
    cut_short: bool = False
    "Whether the last of them is one."
    joints: int = 0
    "Times that the clock fell back."
    read_to: int = 0
    "Where in the file the last packet of any track ends [bytes]."


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
        found = _demux(video)
        pts, durations = found.pts, found.durations
        _require_whole(video, found, announced_frames, announced_seconds)
        ticks = np.sort(np.asarray(pts, dtype=np.int64))
        ticks[-1] += video.tick if len(ticks) > 1 and ticks[-1] == ticks[-2] else 0  # as `frames` has it
        span = int(ticks[-1] - ticks[0])
        end = video.end_pts(int(ticks[-1]), durations[int(np.argmax(np.asarray(pts)))])
        seconds = float((end - int(ticks[0])) * video.time_base)
        fps = (len(ticks) - 1) / float(span * video.time_base) if span else video.nominal_fps
        shown = next(video.shown(), None)
        if shown is None:
            raise VideoError(path, "decode_error", f"none of {len(ticks)} packets gave a frame")
        frame = shown.frame
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
            notes=_notes(video, found),
        )


def _announced_seconds(video: OpenVideo) -> float:
    """Where the video ends as a container's header claims, or 0 where that is only guessed from the file's end [s].

    mp4, avi and flv claim a length, Matroska where on its clock the track ends, or else the longest of all tracks.
    """
    name = video.container.format.name
    if "matroska" in name and (told := _clock_words(video.stream.metadata.get("DURATION", ""))):
        return told
    if not any(part in name for part in ("mp4", "matroska", "avi", "flv")):
        return 0.0
    if video.stream.frames and video.stream.duration:
        return float(video.stream.duration * video.time_base)
    return video.container.duration / av.time_base if video.container.duration else 0.0


def _clock_words(words: str) -> float:
    """``00:01:02.500000000`` -> 62.5; 0 for anything else."""
    try:
        hours, minutes, seconds = words.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0.0


def _demux(video: OpenVideo) -> _Read:
    """Read every packet of every track."""
    found = _Read()
    clock, count, wanted = Clock(video.tick, video.time_base), PacketCount(), video.stream.index
    try:
        for packet in video.demux(None):
            if packet.size == 0:
                continue  # the flush packet at the end
            count.add(packet.size)
            found.read_to = max(found.read_to, (packet.pos or 0) + packet.size)
            mine = packet.stream_index == wanted
            if mine:
                found.joints += clock.joins(packet)
                found.damaged += video.is_damaged(packet)
                found.cut_short = packet.is_corrupt
            time = video.time_of(packet) if mine else packet.pts if packet.pts is not None else packet.dts
            if time is None:
                time = found.pts[-1] + video.tick if mine and found.pts else video.origin_pts
            if packet.time_base is not None:
                end = float((time + (packet.duration or 0)) * packet.time_base)
                found.end_seconds = max(found.end_seconds, end)
                if mine:
                    found.video_end_seconds = max(found.video_end_seconds, end)
            if mine and not packet.is_discard and not _shows_nothing(video, packet):
                found.pts.append(int(time))
                found.durations.append(int(packet.duration or 0))
    except TooManyPackets as error:
        raise VideoError(video.path, "too_large", str(error)) from None
    except ERRORS as error:
        how_far = _fraction(video, len(found.pts))
        raise VideoError(video.path, "truncated", f"reading stopped: {words_of(error)} ({how_far})") from error
    return found


def _shows_nothing(video: OpenVideo, packet: Any) -> bool:
    """A picture of VP8 that is only there for others to refer to: its header says so."""
    return video.stream.codec_context.name == "vp8" and not memoryview(packet)[0] & 0x10


def _require_whole(video: OpenVideo, found: _Read, announced: int, announced_end: float) -> None:
    """Refuse a file that ends before what its header announces."""
    count, name = len(found.pts), video.container.format.name
    if count == 0:
        code = "truncated" if announced else "no_video_stream"
        raise VideoError(video.path, code, f"0 of {announced} frames could be read")
    if found.cut_short and name not in _CUT_ANYWHERE:
        at = f"{video.seconds(found.pts[-1]):.2f} s"
        raise VideoError(video.path, "truncated", f"data ends inside a frame at {at} ({_fraction(video, count)})")
    if announced:
        end = found.video_end_seconds - max(float(video.origin_pts * video.time_base), 0.0)
    else:  # in fragments, and in Matroska, the end is told on the clock of the file, however late that begins
        end = found.video_end_seconds if found.video_end_seconds >= announced_end else found.end_seconds
        if "flv" in name:
            end -= max(video.container.start_time or 0, 0) / av.time_base
    missing = announced_end - end
    if missing > max(0.5, 2 / video.nominal_fps) and count < 0.99 * announced_end * video.nominal_fps:
        words = f"read {end:.2f} s of {announced_end:.2f} s announced ({count} frames)"
        raise VideoError(video.path, "truncated", words)
    if count < announced and missing > 1.5 / video.nominal_fps:
        raise VideoError(video.path, "truncated", f"read {count} of {announced} frames announced, to {end:.2f} s")


def _notes(video: OpenVideo, found: _Read) -> tuple[str, ...]:
    notes = [f"{other} was not taken" for other in video.other_tracks]
    if found.damaged:
        notes.append(f"{found.damaged} damaged packet{'s' * (found.damaged > 1)}")
    if found.joints:
        times = "once" if found.joints == 1 else f"{found.joints} times"
        notes.append(f"the clock falls back {times}, as in files joined end to end")
    streams, size = video.container.streams, video.path.stat().st_size
    attached = any(stream.type == "attachment" for stream in streams)  # these may stand behind the film
    if video.container.format.name.startswith(_READ_TO_THE_END) and not attached and found.read_to < 0.9 * size:
        notes.append(f"the last {1 - found.read_to / size:.0%} of the file cannot be read")
    return tuple(notes)


def _fraction(video: OpenVideo, found: int) -> str:
    total = int(video.stream.frames or 0)
    return f"{found} of {total} frames read" if total else f"{found} frames read"


def _is_variable(ticks: np.ndarray, time_base: Fraction) -> bool:
    """Whether frames are unevenly spaced, beyond what rounding to the container's ticks and a few holes explain."""
    if len(ticks) < 3:
        return False
    gaps = np.diff(ticks)
    usual = float(np.median(gaps))
    rounding = 1 if float(time_base) <= 0.002 else 0
    odd = np.abs(gaps - usual) > max(rounding, 0.05 * usual)
    one_hole = odd.sum() == 1 and float(gaps.max()) > HOLE_SECONDS / float(time_base)
    return bool(odd.mean() >= _FEW and not one_hole)
