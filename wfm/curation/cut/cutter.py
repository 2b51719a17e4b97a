"""One span of a video -> one clip file.

Where the span begins at a key frame and nothing beyond its end is needed to decode it, packets are copied: no loss, no cost.
Else frames are decoded, made whole where they are interlaced (`interlaced`), turned upright and encoded (`transcode`) with
settings that give the same bytes every time (one thread, bit-exact muxer). A clip's pts begin at zero and keep the source's
spacing; sound is left out unless it is asked for (`sound`).
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wfm.curation.cut.alpha import has_alpha
from wfm.curation.cut.interlaced import Fields, FieldScan, unflagged, whole_frames
from wfm.curation.cut.sound import Sound
from wfm.curation.cut.transcode import ContainerTags, EncodeConfig, Shape, add_encoder, is_hdr
from wfm.curation.cut.uncommon import uncommon
from wfm.data.aspect import Aspects

if TYPE_CHECKING:
    import av

    from wfm.data.decode import OpenVideo
    from wfm.data.frame_order import Shown


class CutConfig(EncodeConfig):
    """How clip files are written."""

    copy_codecs: tuple[str, ...] = ("h264", "hevc", "vp9", "av1")
    "Codecs whose packets may be copied into an mp4; empty: always encode."
    uncommon: Literal["copy", "encode"] = "copy"
    """Streams that decoders of graphics cards and browsers refuse (4:4:4, 4:2:2, RGB, 10 bits, lossless, odd or very large
    sizes): copy them as they are, or encode them."""


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
    audio: str = ""
    "What became of the sound, as `Sound.said`; empty where none was asked for."
    interlaced: str = ""
    "``flagged`` (so it says; its frames are whole), ``deinterlaced``, ``combed`` (kept as it is), or empty."
    uncommon: str = ""
    "Why common decoders refuse the file (`uncommon`), or empty."


class Cutter:
    """Cuts the spans of one open video. Ask for spans in order: frames between neighbours are decoded once."""

    def __init__(self, video: "OpenVideo", config: CutConfig, scan: FieldScan | None = None) -> None:
        """scan: sees the video's frames, and knows a span by the time it is cut; without one, all film is taken for whole."""
        self._video = video
        self._config = config
        self._scan = scan
        self._aspects = Aspects(video)
        self._tags = ContainerTags.of(video.stream)
        self._packets = self._index()
        self._ahead: Iterator[av.VideoFrame] | None = None
        self._held: av.VideoFrame | None = None  # read, but beyond the span asked for last

    def cut(self, start_pts: int, end_pts: int, num_frames: int, target: Path) -> Written:
        """Write the ``num_frames`` frames of ``[start_pts, end_pts)``. Raises `VideoError` when they cannot be decoded."""
        found = self.copies(start_pts, end_pts, num_frames)
        written = self._copy(found, start_pts, end_pts, target) if found is not None else None
        return written or self.encode(self._frames(start_pts, end_pts), start_pts, end_pts, target, num_frames)

    def copies(self, start_pts: int, end_pts: int, num_frames: int) -> Packets | None:
        """The packets that make the clip of a span by being copied, or None."""
        if self._packets is None or not self._video.straight or self._deinterlaces(start_pts, end_pts):
            return None
        found = self._packets.copyable(start_pts, end_pts)
        return found if found is not None and int((found.pts >= start_pts).sum()) == num_frames else None

    def fields(self, start_pts: int, end_pts: int) -> Fields:
        """Whether the frames of a span are whole."""
        return self._scan.of(start_pts, end_pts) if self._scan is not None else Fields()

    def rejects(self, start_pts: int, end_pts: int) -> bool:
        """Whether a span is to be left out for being interlaced."""
        return self._config.interlaced == "reject" and self.fields(start_pts, end_pts).combed

    def _deinterlaces(self, start_pts: int, end_pts: int) -> bool:
        return self._config.interlaced == "deinterlace" and self.fields(start_pts, end_pts).combed

    def _interlaced(self, start_pts: int, end_pts: int) -> str:
        """`Written.interlaced` of a span."""
        if self._deinterlaces(start_pts, end_pts):
            return "deinterlaced"
        fields = self.fields(start_pts, end_pts)
        return "combed" if fields.combed else "flagged" if fields.flagged else ""

    def _index(self) -> Packets | None:
        """The packets of a video that may be copied at all, or None."""
        from wfm.data.decode import VideoError, open_video
        from wfm.data.orientation import Orientation

        video, container, config = self._video, self._video.container.format.name, self._config
        codec = video.stream.codec_context.name.replace("libdav1d", "av1")  # the decoder's name there
        if codec not in config.copy_codecs or not any(name in container for name in ("mp4", "matroska")):
            return None
        pts: list[int] = []
        key: list[bool] = []
        with open_video(video.path) as again:
            first = next(again.shown(), None)
            frame = first.frame if first is not None else None
            # A copy would leave turning, stretching, tone mapping or a ground to whoever plays it.
            if frame is None or not Orientation.of(frame).identity or has_alpha(frame):
                return None
            if config.tone_map and is_hdr(frame):
                return None
            if config.square_pixels and (again.stream.sample_aspect_ratio or 1) != 1:
                return None
            if config.uncommon == "encode" and uncommon(again.stream):
                return None
        with open_video(video.path) as again, contextlib.suppress(VideoError):  # of a broken file, decoding will tell
            for packet in again.packets():
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
        with (
            open_video(self._video.path) as source,
            self._sound(start_pts, end_pts, target) as sound,
            _mp4(target) as out,
        ):
            # libdav1d only decodes: its stream is described by its header, not by an encoder of that name.
            unknown = source.stream.codec_context.name == "libdav1d" or None
            stream = out.add_stream_from_template(source.stream, opaque=unknown)
            stream.time_base = source.time_base
            sound.begin(out)
            for packet in _span_packets(source, start_pts, end_pts):
                if count == len(shown) or packet.pts - start_pts != shown[count]:
                    return None
                packet.pts, packet.dts = int(shown[count]), int(decoded[count])
                # The muxer takes the clip's length from the packet shown last and from the one decoded last alike.
                last = count == len(shown) - 1
                packet.duration = int(lengths[-1] if last else lengths[np.searchsorted(in_order, shown[count])])
                packet.stream = stream
                out.mux(packet)
                sound.write(float(shown[count] * source.time_base))
                count += 1
            sound.finish()
        if count != len(shown):
            return None
        with open_video(target) as copy:
            # The copy's container says what the video's beginning was like, its packets what they are like.
            oblong = (copy.stream.codec_context.sample_aspect_ratio or 1) != 1 and not self._aspects.fixed
            frame = next(copy.frames(), None)
            if frame is None or copy.seconds(frame.pts) != 0.0 or (self._config.square_pixels and oblong):
                return None
            odd = uncommon(copy.stream)
            if odd and self._config.uncommon == "encode":
                return None
            how = self._interlaced(start_pts, end_pts)
            return Written("copy", count, frame.width, frame.height, sound.said, how, odd)

    def encode(
        self, frames: Iterable["av.VideoFrame"], start_pts: int, end_pts: int, target: Path, num_frames: int
    ) -> Written:
        """Write decoded frames, which are those of a span. Raises `VideoError` when they are not as many as expected."""
        from wfm.data.decode import VideoError, open_video

        video = self._video
        fps = Fraction(num_frames / float((end_pts - start_pts) * video.time_base)).limit_denominator(1001)
        stream: Any = None
        count = 0
        lengths: dict[int, int] = {}
        fields = self.fields(start_pts, end_pts)
        if self._deinterlaces(start_pts, end_pts):
            frames = whole_frames(frames, fields)
        if not fields.combed or self._deinterlaces(start_pts, end_pts):
            frames = unflagged(frames)
        with self._sound(start_pts, end_pts, target) as sound, _mp4(target) as out:
            shape: Shape | None = None
            for frame, ticks in _with_durations(frames, end_pts):
                shape = shape or Shape.of(self._tags.fill(frame), self._config, self._aspects.of(frame))
                ready = shape.apply(self._tags.fill(frame))
                if stream is None:
                    stream = add_encoder(out, ready, self._config, fps=fps, time_base=video.time_base)
                    sound.begin(out)
                ready.pts, ready.duration, ready.time_base = frame.pts - start_pts, ticks, video.time_base
                ready.pict_type = 0  # the source's key frames are not ours
                lengths[ready.pts] = ticks
                _mux(out, stream.encode(ready), lengths)
                sound.write(float((ready.pts + ticks) * video.time_base))
                count += 1
            if stream is not None:
                _mux(out, stream.encode(None), lengths)
                sound.finish()
        if count != num_frames:
            raise VideoError(video.path, "decode_error", f"{count} of {num_frames} frames decoded from {start_pts} on")
        with open_video(target) as made:
            odd = uncommon(made.stream)
        how = self._interlaced(start_pts, end_pts)
        return Written("encode", count, stream.width, stream.height, sound.said, how, odd)

    @contextlib.contextmanager
    def _sound(self, start_pts: int, end_pts: int, target: Path) -> Iterator[Sound]:
        """The sound of a span, ready to be written beside its pictures."""
        if self._config.audio == "drop":
            yield Sound("")
            return
        start, end = (pts * self._video.time_base for pts in (start_pts, end_pts))
        scratch = target.with_name(f"{target.name}.sound")
        sound = Sound.of(self._video.path, start, end, scratch, self._video.pieces)
        try:
            yield sound
        finally:
            sound.close()

    def _frames(self, start_pts: int, end_pts: int) -> Iterator["av.VideoFrame"]:
        """Frames of a span, going on from the last span when that is near."""
        video = self._video
        ahead = float((start_pts - self._held.pts) * video.time_base) if self._held is not None else -1.0
        near = ahead >= 0 and (ahead < 5.0 or not video.seekable)
        if not near or self._ahead is None:
            self._ahead, self._held = _trusted(video.shown(start_pts)), None
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


def _trusted(frames: "Iterable[Shown]") -> Iterator["av.VideoFrame"]:
    """Without those that are damaged."""
    return (shown.frame for shown in frames if not shown.damaged)


def _with_durations(frames: Iterable["av.VideoFrame"], end_pts: int) -> Iterator[tuple["av.VideoFrame", int]]:
    """Each frame with how long it is shown, in ticks: until the next one, the last until the span's end."""
    previous = None
    for frame in frames:
        if previous is not None:
            yield previous, int(frame.pts - previous.pts)
        previous = frame
    if previous is not None:
        yield previous, int(end_pts - previous.pts)


def _mux(out: Any, packets: Iterable[Any], lengths: dict[int, int]) -> None:
    """Write encoded packets with the length of their frames (by pts, in ticks), of which encoders keep only an average."""
    for packet in packets:
        packet.duration = lengths.pop(packet.pts)
        out.mux(packet)


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
