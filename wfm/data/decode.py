"""Video files -> frames, true to presentation timestamps.

    open_video   one file, checked and open: geometry, time base, frames one at a time
    iter_frames  (frame, seconds) pairs in bounded memory
    read_frames  the same, stacked

Seconds count from the start of the video stream. Rotation and mirroring (the display matrix phones write) are applied,
so height and width are always those of the upright picture. Every error of the codec library becomes a `VideoError` that
names the file, carries a stable reason code, and says what was wrong (`containers`).
"""

import contextlib
import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.video.reformatter
import numpy as np

from wfm.data.alpha_decoder import decoder_of
from wfm.data.claims import PictureLimit
from wfm.data.containers import ERRORS, open_container, video_stream, words_of
from wfm.data.containers import VideoError as VideoError
from wfm.data.frame_order import Clock, FrameOrder, Joined, Shown
from wfm.data.nal_units import is_torn
from wfm.data.orientation import Orientation
from wfm.data.transport import torn_pictures

_LONGEST_LAST_FRAME_SECONDS = 2.0
_BETWEEN_KEYS_SECONDS = 12.0  # most encoders put a key frame within so long
_BARE = ("h264", "hevc", "m4v", "mpegvideo", "vc1", "obu", "asf")
"Formats in which no time can be sought: bare streams have none, and the index of ASF is seldom there."
_TOLERANCE_SECONDS = 1e-6  # seconds that went through a float compare equal to their own pts


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
        self.tick = max(1, round(1 / self.nominal_fps / self.time_base))  # a frame's length where none is told
        self._pictures = PictureLimit(stream.codec_context)
        self.misplaced = 0
        "Frames of the last whole pass that had no place on the time line: their time was that of another frame, or earlier."
        self.other_tracks: tuple[str, ...] = ()
        "The video tracks that were not taken, in words."
        self._used = self._crooked = False
        self._timed_by_packets = container.format.name == "avi"
        self._pieces: tuple[Joined, ...] | None = None
        self._torn: frozenset[int] | None = None

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
        in_fragments = "mp4" in self.container.format.name and not self.stream.frames  # told on the clock of the file
        told = (0 if in_fragments else self.origin_pts) + int(self.stream.duration or 0)
        if 0 < (told - last_pts) * self.time_base <= _LONGEST_LAST_FRAME_SECONDS:
            return told
        return last_pts + (int(duration) if duration else self.tick)

    def frames(self, start_pts: int | None = None) -> Iterator[av.VideoFrame]:
        """Decoded frames whose pts is at least ``start_pts``, in presentation order, each pts larger than the last.

        Frames without a timestamp get one from the nominal rate. Raises `VideoError` (code ``decode_error``).
        """
        for shown in self.shown(start_pts, strict=True):
            yield shown.frame

    def shown(
        self, start_pts: int | None = None, *, strict: bool = False, sought_before_seconds: float = 0.0
    ) -> Iterator[Shown]:
        """The same frames, with those that cannot be trusted: made from data that was missing or damaged.

        A packet that cannot be decoded damages what follows; strict: it raises. sought_before_seconds: how much earlier than
        ``start_pts`` decoding begins. A pass that is at its end leaves the number of frames that have no place on the time line
        in ``misplaced``.
        """
        if start_pts is not None and start_pts > self.origin_pts and not self.seekable:
            yield from self._from_the_start(start_pts, strict)
            return
        sought = self._rewind(start_pts, sought_before_seconds)
        sound = not sought or start_pts is None
        last: int | None = None
        repeated: Shown | None = None
        self.misplaced = 0
        try:
            for shown in self._decoded(strict):
                frame = shown.frame
                if last is None and sought and start_pts is not None and (frame.pts is None or frame.pts > start_pts):
                    break  # sought past the target, or nobody knows where: this container has no usable index
                if frame.pts is None:
                    frame.pts = self.origin_pts if last is None else last + self.tick
                sound = sound or not shown.damaged
                if not sound and start_pts is not None and frame.pts >= start_pts:
                    last = None
                    break  # sought into the midst of pictures that refer to earlier ones: it has no index of key frames
                if last is not None and frame.pts <= last:
                    repeated = shown  # a repeated or backward timestamp has no place on the time line
                    self.misplaced += 1
                    continue
                last, repeated = frame.pts, None
                if start_pts is None or frame.pts >= start_pts:
                    yield shown
            if repeated is not None and repeated.frame.pts == last:
                repeated.frame.pts = last + self.tick  # the last one of a program stream has no time of its own
                self.misplaced -= 1
                if start_pts is None or repeated.frame.pts >= start_pts:
                    yield repeated
        except ERRORS as error:
            if words := self._pictures.outgrown(error):
                raise VideoError(self.path, "too_large", words) from error
            if last is not None or not sought:  # else a bare stream, in which nothing can be sought
                at = "before the first frame" if last is None else f"after {self.seconds(last):.3f} s"
                raise VideoError(self.path, "decode_error", f"decoding failed {at}: {words_of(error)}") from error
        if last is None and sought:
            if sound or sought_before_seconds:
                yield from self._from_the_start(start_pts, strict)
            else:
                yield from self.shown(start_pts, strict=strict, sought_before_seconds=_BETWEEN_KEYS_SECONDS)

    def demux(self, streams: Any) -> Iterator[Any]:
        """Packets of these streams from where the file stands, the codec library's errors as they are."""
        self._used = True
        yield from self.container.demux(streams)

    def packets(self) -> Iterator[Any]:
        """The stream's packets in decoding order, from where the file stands (its start, when just opened), undecoded.

        Raises `VideoError` (code ``truncated``) where reading stops.
        """
        clock = Clock(self.tick, self.time_base)
        try:
            for packet in self.demux(self.stream):
                if packet.size:
                    clock.joins(packet)
                    yield packet
        except ERRORS as error:
            raise VideoError(self.path, "truncated", f"reading stopped: {words_of(error)}") from error

    def time_of(self, packet: Any) -> int | None:
        """When a packet's picture is shown, as far as the container knows: AVI only knows when it is decoded."""
        first, second = (packet.dts, packet.pts) if self._timed_by_packets else (packet.pts, packet.dts)
        time: int | None = second if first is None else first
        return time

    def is_damaged(self, packet: Any) -> bool:
        """Whether a packet of the video is known not to be whole."""
        if packet.is_corrupt and self._torn is None and self.container.format.name == "mpegts":
            self._torn = torn_pictures(self.path, self.stream.id)
        if packet.is_corrupt if self._torn is None else packet.pos in self._torn:
            return True
        context = self.stream.codec_context
        return context.name == "hevc" and is_torn(packet, context.extradata)

    @property
    def straight(self) -> bool:
        """Whether the packets' own times served so far: else a time cannot be sought, nor packets be copied by their times."""
        return not (self._timed_by_packets or self._crooked)

    @property
    def seekable(self) -> bool:
        """Whether a time can be sought. Without an index that takes one clock from end to end, which is looked for once."""
        return self.straight and self.container.format.name not in _BARE and not self.pieces

    @property
    def pieces(self) -> tuple[Joined, ...]:
        """What a file was joined of end to end, for those that have more than one clock; empty for all others."""
        name = self.container.format.name
        if self.straight and ("mp4" in name or "matroska" in name):
            return ()
        if self._pieces is None:
            self._pieces = self._read_pieces()
        return self._pieces

    def _read_pieces(self) -> tuple[Joined, ...]:
        found: list[Joined] = []
        with open_video(self.path) as again, contextlib.suppress(*ERRORS):  # what can be read counts
            clock = Clock(again.tick, again.time_base)
            for packet in again.demux(again.stream):
                time = again.time_of(packet) if packet.size else None
                if time is None:
                    continue
                joins = clock.joins(packet)
                begin, position = (again.time_of(packet) or 0) * again.time_base, packet.pos or 0
                if joins or not found:
                    found.append(Joined(begin, clock.shift, position, position))
                else:
                    found[-1] = found[-1]._replace(begin=min(begin, found[-1].begin), last=position)
        return tuple(found) if len(found) > 1 else ()

    def _decoded(self, strict: bool) -> Iterator[Shown]:
        """Frames in their places, from where the file stands to its end."""
        context = decoder_of(self.stream)
        self._pictures.bind(context)
        order = FrameOrder(context.name, self.container.format.name)
        clock = Clock(self.tick, self.time_base)
        for packet in itertools.chain(self.demux(self.stream), (None,)):
            if packet is not None:
                if not packet.size:
                    continue
                joint = clock.joins(packet)
                order.send(packet, self.time_of(packet), joint=joint, damaged=self.is_damaged(packet))
                self._crooked |= joint
            try:
                frames = context.decode(packet)
            except av.error.FFmpegError as error:
                if strict or isinstance(error, MemoryError) or self._pictures.outgrown(error):
                    raise
                order.refused()
                continue
            for frame in frames:
                frame.time_base = self.time_base  # those that come at the end have none
                yield from order.came(frame)
            self._crooked |= order.put_right
        yield from order.rest()
        self._crooked |= order.put_right

    def _rewind(self, start_pts: int | None, before_seconds: float) -> bool:
        """Go to the key frame at or before ``start_pts`` (None: the start), less some seconds; whether that took a seek."""
        target = self.origin_pts if start_pts is None else start_pts - round(before_seconds / self.time_base)
        used, self._used = self._used, True
        if not used and target <= self.origin_pts:
            return False
        with contextlib.suppress(*ERRORS):
            self.container.seek(target, stream=self.stream, backward=True, any_frame=False)
        return True

    def _from_the_start(self, start_pts: int | None, strict: bool) -> Iterator[Shown]:
        with open_video(self.path) as again:
            for shown in again.shown(strict=strict):
                if start_pts is None or shown.frame.pts >= start_pts:
                    yield shown


@contextlib.contextmanager
def open_video(path: str | Path, *, threads: int = 1) -> Iterator[OpenVideo]:
    """Open one local video file. Raises `VideoError` with the code ``not_a_video``, ``truncated``, ``empty_file``,
    ``no_video_stream``, ``no_decoder:<tag>`` or ``unreadable``, and `MissingDecoder` for a known codec without a decoder.
    Decoding raises it with ``too_large`` for a picture that outgrows the stream (`claims`)."""
    path = Path(path).absolute()
    container = open_container(path)
    try:
        stream, others = video_stream(path, container)
        stream.codec_context.thread_count = threads
        video = OpenVideo(path, container, stream)
        video.other_tracks = others
        yield video
    finally:
        container.close()


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
        frame, width=width, height=height, format=channels, interpolation="AREA" if size else None, src_colorspace=space,
        threads=1,  # by itself it has one for each processor: several times as long for a small frame, and never other bytes
    )  # fmt: skip
    image = small.to_ndarray()
    return image if turn.identity else turn.apply(image)


def _ceil(value: Fraction | float) -> int:
    return int(np.ceil(float(value)))
