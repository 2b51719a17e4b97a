"""Video files -> frames, true to presentation timestamps.

    open_video   one file, checked and open: geometry, time base, frames one at a time
    probe        what a file holds, decided by reading every packet of it
    iter_frames  (frame, seconds) pairs in bounded memory
    read_frames  the same, stacked

Seconds count from the start of the video stream. Rotation and mirroring (the display matrix phones write) are applied,
so height and width are always those of the upright picture. Every error of the codec library becomes a `VideoError` that
names the file, carries a stable reason code, and says what was wrong. Playlists and other formats that make the library open
further files are refused: a name from outside must not reach another file.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.video.reformatter
import numpy as np

from wfm.data.codec_names import KNOWN, MissingDecoder, codec_tag
from wfm.data.orientation import Orientation
from wfm.errors import DataError

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,obu,ivf,flv,asf,ogg,gif,yuv4mpegpipe,"
    "mxf,rm,nut,wtv,dv,vc1"
)
"""Containers that hold their own data. Playlists (hls, dash, concat), images and devices are not among them."""

_LONGEST_LAST_FRAME_SECONDS = 2.0
_TOLERANCE_SECONDS = 1e-6  # seconds that went through a float compare equal to their own pts
_ERRORS = (av.error.FFmpegError, OSError, ValueError, EOFError)


class VideoError(DataError):
    """A file that is not a usable video: ``code`` is stable, the message names the file and what was wrong."""

    def __init__(self, path: str | Path, code: str, words: str) -> None:
        super().__init__(f"{code}: {words} (file {Path(path).name!r})")
        self.path = Path(path)
        self.code = code
        self.words = words

    def __reduce__(self) -> tuple[Any, ...]:
        return VideoError, (self.path, self.code, self.words)  # crosses process borders

    @property
    def reason(self) -> str:
        """``code: words``, as tables of skipped items hold it."""
        return f"{self.code}: {self.words}"


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


class OpenVideo:
    """A video file that is open for decoding. Use `open_video`.

    ``origin_pts`` is time zero, in ticks of ``time_base``; ``width`` and ``height`` are upright pixels.
    """

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self.path = path
        self.container = container
        self.stream = stream
        self.time_base: Fraction = stream.time_base
        self.origin_pts: int = stream.start_time or 0
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        self.nominal_fps = float(rate) if rate else 25.0
        self._ticks = max(1, round(1 / self.nominal_fps / self.time_base))  # a frame's length where none is told
        self._used = False

    @property
    def rewinds(self) -> bool:
        """Whether the container has an index, by which reading can surely begin again at its first frame."""
        return "mp4" in self.container.format.name

    def seconds(self, pts: int) -> float:
        """Ticks -> seconds from the start of the stream."""
        return float((pts - self.origin_pts) * self.time_base)

    def end_pts(self, last_pts: int, duration: int | None) -> int:
        """Where the last frame ends, in ticks: at the stream's end where that is told, else after its own duration.

        A frame's duration comes from decoding order, so it is only near the truth where frame times are uneven.
        """
        told = self.origin_pts + int(self.stream.duration or 0)
        if 0 < (told - last_pts) * self.time_base <= _LONGEST_LAST_FRAME_SECONDS:
            return told
        return last_pts + (int(duration) if duration else self._ticks)

    def frames(self, start_pts: int | None = None) -> Iterator[av.VideoFrame]:
        """Decoded frames whose pts is at least ``start_pts``, in presentation order, each pts larger than the last.

        Frames without a timestamp get one from the nominal rate. Raises `VideoError` (code ``decode_error``).
        """
        sought = self._rewind(start_pts)
        last: int | None = None
        repeated: av.VideoFrame | None = None
        try:
            for frame in self.container.decode(self.stream):
                if frame.pts is None:
                    frame.pts = self.origin_pts if last is None else last + self._ticks
                if last is None and sought and start_pts is not None and frame.pts > start_pts:
                    break  # sought past the target: this container has no usable index
                if last is not None and frame.pts <= last:
                    repeated = frame  # a repeated or backward timestamp has no place on the time line
                    continue
                last, repeated = frame.pts, None
                if start_pts is None or frame.pts >= start_pts:
                    yield frame
            if repeated is not None and repeated.pts == last:  # the last one of a program stream has no time of its own
                repeated.pts = last + self._ticks
                if start_pts is None or repeated.pts >= start_pts:
                    yield repeated
        except _ERRORS as error:
            if last is not None or not sought:  # else a bare stream, in which nothing can be sought
                at = "before the first frame" if last is None else f"after {self.seconds(last):.3f} s"
                raise VideoError(self.path, "decode_error", f"decoding failed {at}: {_words(error)}") from error
        if last is None and sought:
            yield from self._from_the_start(start_pts)

    def packets(self) -> Iterator[Any]:
        """The stream's packets in decoding order, from where the file stands (its start, when just opened), undecoded.

        Raises `VideoError` (code ``truncated``) where reading stops.
        """
        self._used = True
        try:
            for packet in self.container.demux(self.stream):
                if packet.size:
                    yield packet
        except _ERRORS as error:
            raise VideoError(self.path, "truncated", f"reading stopped: {_words(error)}") from error

    def _rewind(self, start_pts: int | None) -> bool:
        """Go to the key frame at or before ``start_pts`` (None: the start); whether that took a seek."""
        target = self.origin_pts if start_pts is None else start_pts
        used, self._used = self._used, True
        if not used and target <= self.origin_pts:
            return False
        with contextlib.suppress(*_ERRORS):
            self.container.seek(target, stream=self.stream, backward=True, any_frame=False)
        return True

    def _from_the_start(self, start_pts: int | None) -> Iterator[av.VideoFrame]:
        with open_video(self.path) as again:
            for frame in again.frames():
                if start_pts is None or frame.pts >= start_pts:
                    yield frame


@contextlib.contextmanager
def open_video(path: str | Path, *, threads: int = 1) -> Iterator[OpenVideo]:
    """Open one local video file. Raises `VideoError` with the code ``not_a_video``, ``truncated``, ``empty_file``,
    ``no_video_stream``, ``no_decoder:<tag>`` or ``unreadable``, and `MissingDecoder` for a known codec without a decoder."""
    path = Path(path).absolute()
    container = _open_container(path)
    try:
        stream = _video_stream(path, container)
        stream.codec_context.thread_count = threads
        yield OpenVideo(path, container, stream)
    finally:
        container.close()


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
        ticks[-1] += video._ticks if len(ticks) > 1 and ticks[-1] == ticks[-2] else 0  # as `frames` has it
        span = int(ticks[-1] - ticks[0])
        end = video.end_pts(int(ticks[-1]), durations[int(np.argmax(pts))])
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


def iter_frames(
    path: str | Path,
    *,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    size: tuple[int, int] | None = None,
) -> Iterator[tuple[np.ndarray, float]]:
    """(uint8 [H, W, 3] RGB, seconds) of each frame with ``start_seconds <= seconds < end_seconds``, one at a time.

    ``size`` is (height, width) in pixels of the upright picture; None keeps the file's own. Raises `VideoError`.
    """
    with open_video(path) as video:
        start_pts = None
        if start_seconds is not None:
            start_pts = video.origin_pts + _ceil((start_seconds - _TOLERANCE_SECONDS) / video.time_base)
        scaler = av.video.reformatter.VideoReformatter()
        for frame in video.frames(start_pts):
            seconds = video.seconds(frame.pts)
            if end_seconds is not None and seconds >= end_seconds - _TOLERANCE_SECONDS:
                return
            yield to_array(frame, size=size, scaler=scaler), seconds


def read_frames(
    path: str | Path,
    *,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [T, H, W, 3] and their seconds float64 [T]; T = 0 when none lies in the range.

    Holds the whole range in memory: use `iter_frames` for a range that may be long. Raises `VideoError`.
    """
    pairs = list(iter_frames(path, start_seconds=start_seconds, end_seconds=end_seconds, size=size))
    if not pairs:
        return np.zeros((0, *(size or (0, 0)), 3), dtype=np.uint8), np.zeros(0)
    return np.stack([frame for frame, _ in pairs]), np.array([seconds for _, seconds in pairs], dtype=np.float64)


def to_array(
    frame: av.VideoFrame,
    *,
    size: tuple[int, int] | None = None,
    channels: str = "rgb24",
    upright: bool = True,
    scaler: av.video.reformatter.VideoReformatter | None = None,
) -> np.ndarray:
    """A decoded frame of any pixel format -> uint8 [H, W, 3], turned upright, resized to ``size`` (height, width) by area.

    ``scaler``: kept by the caller for frames that are all brought to one form; making a new one costs more than using it.
    """
    turn = Orientation.of(frame) if upright else Orientation()
    height, width = size if size is not None else (None, None)
    if turn.transpose:
        height, width = width, height
    # Untagged high-definition video is BT.709 by convention; smaller is BT.601, swscale's own default.
    space = "ITU709" if frame.colorspace == 2 and frame.height >= 720 else None
    small = (scaler or av.video.reformatter.VideoReformatter()).reformat(
        frame, width=width, height=height, format=channels, interpolation="AREA" if size else None, src_colorspace=space
    )
    image = small.to_ndarray()
    return image if turn.identity else turn.apply(image)


def _open_container(path: Path) -> Any:
    try:
        with path.open("rb") as file:  # a clear reason for what cannot be read at all, before the codec library sees it
            head = file.read(16)
    except OSError as error:
        raise VideoError(path, "unreadable", f"{error.strerror or error}") from error
    if not head:
        raise VideoError(path, "empty_file", "the file has no bytes")
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        # "file:" keeps a name with a colon from being taken for a protocol.
        container = av.open(f"file:{path}", options=options)
    except _ERRORS as error:
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
            raise VideoError(path, "truncated", f"an mp4 without a readable index (moov): {_words(error)}") from error
        raise VideoError(path, "not_a_video", f"no video container recognised: {_words(error)}") from error
    if not container.streams and head[4:8] == b"ftyp":
        container.close()
        raise VideoError(path, "truncated", f"an mp4 of {path.stat().st_size} bytes without its index (moov)")
    return container


def _video_stream(path: Path, container: Any) -> Any:
    streams = [s for s in container.streams.video if not (s.disposition & av.stream.Disposition.attached_pic)]
    if not streams:
        kinds = sorted({str(s.type) for s in container.streams})
        raise VideoError(path, "no_video_stream", f"the file holds {', '.join(kinds) or 'no stream'} only")
    stream = streams[0]
    if stream.codec_context is None:
        raise _no_decoder(path)
    if stream.time_base is None:
        raise VideoError(path, "not_a_video", "its video stream has no time base")
    return stream


def _no_decoder(path: Path) -> DataError:
    """A codec that is known elsewhere is missing here, which ends the run; a tag that nobody knows is the file's own fault."""
    tag = codec_tag(path)
    if tag in KNOWN:
        return MissingDecoder(KNOWN[tag], tag, path.name)
    return VideoError(path, f"no_decoder:{tag or 'unknown'}", "the codec of its video stream is not known")


def _announced_seconds(video: OpenVideo) -> float:
    """The length a container's header claims, or 0 where the length is only guessed from the file's end."""
    name = video.container.format.name
    told = any(part in name for part in ("mp4", "matroska", "avi", "flv"))
    return video.container.duration / av.time_base if told and video.container.duration else 0.0


def _demux(video: OpenVideo) -> tuple[list[int], list[int], float]:
    """(pts of each shown video packet, their durations, where the longest stream ended [s])."""
    pts: list[int] = []
    durations: list[int] = []
    end_seconds = 0.0
    streams = [video.stream, *video.container.streams.audio]
    wanted = video.stream.index
    try:
        for packet in video.container.demux(streams):
            time = packet.pts if packet.pts is not None else packet.dts
            if packet.size == 0:
                continue  # the flush packet at the end
            mine = packet.stream_index == wanted
            if mine and packet.is_corrupt:
                at = _position(video, packet, pts)
                raise VideoError(
                    video.path, "truncated", f"data ends inside a frame at {at} ({_fraction(video, len(pts))})"
                )
            if time is None:
                time = pts[-1] + video._ticks if mine and pts else video.origin_pts
            end = float((time + (packet.duration or 0)) * packet.time_base)
            end_seconds = max(end_seconds, end)
            if mine and not packet.is_discard:
                pts.append(int(time))
                durations.append(int(packet.duration or 0))
    except VideoError:
        raise
    except _ERRORS as error:
        how_far = _fraction(video, len(pts))
        raise VideoError(video.path, "truncated", f"reading stopped: {_words(error)} ({how_far})") from error
    video._used = True
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


def _position(video: OpenVideo, packet: Any, pts: list[int]) -> str:
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


def _ceil(value: Fraction | float) -> int:
    return int(np.ceil(float(value)))


def _words(error: BaseException) -> str:
    """An error's text without the path that the codec library appends."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
