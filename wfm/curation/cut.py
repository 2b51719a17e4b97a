"""One span of a video -> one clip file.

Where the span begins at a key frame and nothing beyond its end is needed to decode it, packets are copied: no loss, no cost.
Else frames are decoded, turned upright and encoded as H.264 with settings that give the same bytes every time (one thread,
bit-exact muxer). A clip's pts begin at zero and keep the source's spacing; sound is left out.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.config import Config
from wfm.data.x264 import STEADY

if TYPE_CHECKING:
    import av

    from wfm.data.decode import OpenVideo
    from wfm.data.orientation import Orientation


class CutConfig(Config):
    """How clip files are written."""

    copy_codecs: tuple[str, ...] = ("h264", "hevc", "vp9", "av1")
    "Codecs whose packets may be copied into an mp4; empty: always encode."
    crf: int = 18
    "Quality of what is encoded (x264: 0 lossless, 18 nearly so, 51 worst)."
    preset: str = "veryfast"
    "x264 preset: how long it looks for a smaller file."
    keyframe_seconds: float = 1.0
    "Distance of key frames in what is encoded [s]: short ones make random reads cheap."


@dataclasses.dataclass(frozen=True)
class Packets:
    """A video's packets in decoding order: ``pts`` int64 [N], ``key`` bool [N]."""

    pts: np.ndarray
    key: np.ndarray

    def copyable(self, start_pts: int, end_pts: int) -> "Packets | None":
        """The packets of ``[start_pts, end_pts)`` in decoding order, or None when they cannot be cut out by copying.

        It can when the first one is a key frame and every packet up to the last one is shown inside the span. Pictures that
        follow the key frame but are shown before it (an open group of pictures) belong to the past and are passed over.
        """
        inside = np.flatnonzero((self.pts >= start_pts) & (self.pts < end_pts))
        if inside.size == 0:
            return None
        first, last = int(inside[0]), int(inside[-1])
        starts_well = bool(self.key[first]) and int(self.pts[first]) == start_pts
        needs_more = bool((self.pts[first : last + 1] >= end_pts).any())
        run = slice(first, last + 1)
        return Packets(self.pts[run], self.key[run]) if starts_well and not needs_more else None


@dataclasses.dataclass(frozen=True)
class Written:
    """A clip file as it came out; sizes in pixels."""

    transcode: str
    "``copy`` or ``encode``."
    num_frames: int
    width: int
    height: int


class Cutter:
    """Cuts the spans of one open video. Ask for spans in order: frames between neighbours are decoded once."""

    def __init__(self, video: "OpenVideo", config: CutConfig) -> None:
        self._video = video
        self._config = config
        self._packets = self._index()
        self._ahead: Iterator[av.VideoFrame] | None = None
        self._held: av.VideoFrame | None = None  # read, but beyond the span asked for last

    def cut(self, start_pts: int, end_pts: int, num_frames: int, target: Path) -> Written:
        """Write the ``num_frames`` frames of ``[start_pts, end_pts)``. Raises `VideoError` when they cannot be decoded."""
        found = self._packets.copyable(start_pts, end_pts) if self._packets is not None else None
        if found is not None and int((found.pts >= start_pts).sum()) == num_frames:
            written = self._copy(found, start_pts, end_pts, target)
            if written is not None:
                return written
        return self._encode(start_pts, end_pts, num_frames, target)

    def _index(self) -> Packets | None:
        """The packets of a video that may be copied at all, or None."""
        from wfm.data.decode import open_video
        from wfm.data.orientation import Orientation

        video, container = self._video, self._video.container.format.name
        codec = video.stream.codec_context.name
        if codec not in self._config.copy_codecs or not any(name in container for name in ("mp4", "matroska")):
            return None
        pts: list[int] = []
        key: list[bool] = []
        with open_video(video.path) as again:
            frame = next(again.frames(), None)
            if frame is None or not Orientation.of(frame).identity:
                return None  # a copy would leave the turning to whoever plays it
        with open_video(video.path) as again:
            for packet in again.container.demux(again.stream):
                if packet.size == 0:
                    continue
                if packet.pts is None or packet.is_discard:
                    return None  # hidden by an edit list, or timed by the decoder: not to be cut blindly
                pts.append(int(packet.pts))
                key.append(bool(packet.is_keyframe))
        return Packets(np.asarray(pts, dtype=np.int64), np.asarray(key, dtype=bool))

    def _copy(self, packets: Packets, start_pts: int, end_pts: int, target: Path) -> Written | None:
        """Copy packets; None when what comes out is not what was asked for."""
        from wfm.data.decode import open_video

        shown = packets.pts[packets.pts >= start_pts] - start_pts
        # Decoding times are made anew: some containers do not keep them. The k-th packet is decoded when the k-th picture
        # is shown, all of them earlier by what lets no picture come after its own time.
        in_order = np.sort(shown)
        decoded = in_order - int((in_order - shown).max())
        lengths = np.diff(in_order, append=end_pts - start_pts)
        count = 0
        with open_video(self._video.path) as source, _mp4(target) as out:
            stream = out.add_stream_from_template(source.stream)
            stream.time_base = source.time_base
            for packet in _span_packets(source, start_pts, end_pts):
                if count == len(shown) or packet.pts - start_pts != shown[count]:
                    return None
                packet.pts, packet.dts = int(shown[count]), int(decoded[count])
                # The muxer takes the clip's length from the packet shown last and from the one decoded last alike.
                last = count == len(shown) - 1
                packet.duration = int(lengths[-1] if last else lengths[np.searchsorted(in_order, shown[count])])
                packet.stream = stream
                out.mux(packet)
                count += 1
        if count != len(shown):
            return None
        with open_video(target) as copy:
            frame = next(copy.frames(), None)
            if frame is None or copy.seconds(frame.pts) != 0.0:
                return None
            return Written("copy", count, frame.width, frame.height)

    def _encode(self, start_pts: int, end_pts: int, num_frames: int, target: Path) -> Written:
        from wfm.data.decode import VideoError

        video = self._video
        fps = Fraction(num_frames / float((end_pts - start_pts) * video.time_base)).limit_denominator(1001)
        stream: Any = None
        count = 0
        with _mp4(target) as out:
            shape: Any = None
            for frame, ticks in _with_durations(self._frames(start_pts, end_pts), end_pts):
                shape = _Shape.of(frame) if shape is None else shape
                ready = shape.apply(frame)
                if stream is None:
                    stream = self._stream(out, ready, fps)
                ready.pts, ready.duration, ready.time_base = frame.pts - start_pts, ticks, video.time_base
                ready.pict_type = 0  # the source's key frames are not ours
                out.mux(stream.encode(ready))
                count += 1
            if stream is not None:
                out.mux(stream.encode(None))
        if count != num_frames:
            raise VideoError(video.path, "decode_error", f"{count} of {num_frames} frames decoded from {start_pts} on")
        return Written("encode", count, stream.width, stream.height)

    def _stream(self, out: Any, frame: "av.VideoFrame", fps: Fraction) -> Any:
        from av.codec.context import Flags

        config = self._config
        stream = out.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
        stream.time_base = self._video.time_base
        context = stream.codec_context
        context.time_base = self._video.time_base
        context.thread_count = 1
        context.flags |= Flags.bitexact
        context.max_b_frames = 0  # decoding order is showing order: cheap seeks, simple motion vectors
        context.gop_size = max(1, round(config.keyframe_seconds * fps))
        context.options = {"crf": str(config.crf), "preset": config.preset, **STEADY}
        for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
            setattr(context, name, getattr(frame, name))
        return stream

    def _frames(self, start_pts: int, end_pts: int) -> Iterator["av.VideoFrame"]:
        """Frames of a span, going on from the last span when that is near."""
        video = self._video
        near = self._held is not None and 0 <= float((start_pts - self._held.pts) * video.time_base) < 5.0
        if not near or self._ahead is None:
            self._ahead, self._held = video.frames(start_pts), None
        while True:
            frame = self._held or next(self._ahead, None)
            self._held = None
            if frame is None:
                self._ahead = None
                return
            if frame.pts >= end_pts:
                self._held = frame
                return
            if frame.pts >= start_pts:
                yield frame


@dataclasses.dataclass
class _Shape:
    """Decoded frame -> upright frame of even size in yuv420p, which every player and trainer opens."""

    graph: Any

    @classmethod
    def of(cls, frame: "av.VideoFrame") -> "_Shape":
        from wfm.data.orientation import Orientation

        turn = Orientation.of(frame)
        steps = _filters(turn, odd=bool(frame.width % 2 or frame.height % 2))
        if not steps:
            return cls(None)
        import av.filter

        graph = av.filter.Graph()
        last = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 90000)
        )
        for name, arguments in [("format", "yuv444p"), *steps, ("buffersink", "")]:
            node = graph.add(name, arguments) if arguments else graph.add(name)
            last.link_to(node)
            last = node
        graph.configure()
        return cls(graph)

    def apply(self, frame: "av.VideoFrame") -> "av.VideoFrame":
        if self.graph is not None:
            self.graph.push(frame)
            frame = self.graph.pull()
        return frame if frame.format.name == "yuv420p" else frame.reformat(format="yuv420p")


def _filters(turn: "Orientation", *, odd: bool) -> list[tuple[str, str]]:
    steps = []
    if turn.transpose:
        steps.append(("transpose", "cclock_flip"))  # the plain transpose of the picture
    if turn.mirror_x:
        steps.append(("hflip", ""))
    if turn.mirror_y:
        steps.append(("vflip", ""))
    if odd:
        steps.append(("crop", "max(2\\,trunc(iw/2)*2):max(2\\,trunc(ih/2)*2):0:0"))
    return steps


def _with_durations(frames: Iterator["av.VideoFrame"], end_pts: int) -> Iterator[tuple["av.VideoFrame", int]]:
    """Each frame with how long it is shown, in ticks: until the next one, the last until the span's end."""
    previous = None
    for frame in frames:
        if previous is not None:
            yield previous, int(frame.pts - previous.pts)
        previous = frame
    if previous is not None:
        yield previous, int(end_pts - previous.pts)


def _span_packets(source: "OpenVideo", start_pts: int, end_pts: int) -> Iterator[Any]:
    """Packets from the key frame at ``start_pts`` to the first one shown at or after ``end_pts``, in decoding order."""
    if start_pts > source.origin_pts:
        source.container.seek(start_pts, stream=source.stream, backward=True, any_frame=False)
    begun = False
    for packet in source.container.demux(source.stream):
        if packet.size == 0 or packet.pts is None:
            continue
        begun = begun or (packet.is_keyframe and packet.pts == start_pts)
        if not begun or packet.pts < start_pts:
            continue
        if packet.pts >= end_pts:
            return
        yield packet


@contextlib.contextmanager
def _mp4(target: Path) -> Iterator[Any]:
    import av

    target.parent.mkdir(parents=True, exist_ok=True)
    options = {"fflags": "+bitexact", "movflags": "+faststart"}
    with av.open(f"file:{target}", "w", format="mp4", options=options) as out:
        yield out
