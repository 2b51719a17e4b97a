"""One decode of a video feeds everybody who wants to see it.

    thumbnails, stills = Gather(Wanted("gray", fitted(64))), Gather(Wanted("gray", fitted(256, enlarge=False), frames=pick))
    one_pass(path, [VectorSum(), thumbnails, stills, EmbeddingFrames()], prefetch_bytes=64 << 20)

A consumer says once what it wants (`Consumer.wants`: size, pixel format, which frames), is fed the frames in order of display,
and is told when the last one was fed. A picture that several want in one form is scaled once. The frames' times are known
before the first is decoded (read from the packets), so that whoever needs frames spread over the clip keeps only those.

A still image is fed as a video of one frame, shown at 0 s.

With ``prefetch_bytes`` a thread decodes ahead of the consumers by at most so many bytes of pictures: a slow model never makes
decoded video pile up, whatever the length or size of the video. Consumers always run in the caller's thread.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from wfm.curation.prefetch import ahead, frame_bytes

if TYPE_CHECKING:
    import av

    from wfm.data.decode import OpenVideo
    from wfm.data.orientation import Orientation

Channels = Literal["gray", "rgb24", "bgr24"]


@dataclasses.dataclass(frozen=True)
class Geometry:
    """What is known of a video before its frames are fed."""

    height: int
    "Of the stored picture [pixels]."
    width: int
    turn: "Orientation"
    "How the stored picture is turned upright."
    seconds: np.ndarray
    "float64 [T]: when each frame is shown, from the start of the stream."


SizeOf = Callable[[int, int], tuple[int, int]]
"""(height, width) of the picture -> the (height, width) wanted."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The form in which a consumer wants its pictures, and which ones."""

    channels: Channels | None = "rgb24"
    "Pixel format; None: no picture, only the decoded frame (for codec vectors)."
    size: SizeOf | None = None
    "Size wanted, of the stored or the upright picture as ``upright`` says; None: as it is."
    upright: bool = False
    frames: "Callable[[Geometry], Iterable[int]] | None" = None
    "Indices of the frames wanted; None: all."
    motion_vectors: bool = False
    "Whether frames must carry the codec's motion vectors."


@dataclasses.dataclass(frozen=True)
class Moment:
    """One frame as it is fed. ``picture`` uint8 [H, W] (gray) or [H, W, 3]; None where none was wanted. Read only."""

    index: int
    seconds: float
    picture: np.ndarray | None
    frame: "av.VideoFrame"


class Consumer(Protocol):
    """Somebody who looks at a video. A second `begin` means that the pass starts over: forget what was fed."""

    def wants(self) -> Wanted:
        """Asked once, before anything is decoded."""

    def begin(self, geometry: Geometry) -> None:
        """Before the first frame."""

    def feed(self, moment: Moment) -> None:
        """A frame that was wanted, in order of display."""

    def finish(self) -> None:
        """After the last frame."""


@dataclasses.dataclass(frozen=True)
class Passed:
    """What a pass did."""

    frames: int
    decodes: int
    "1; 2 where the packets told other times than the frames, so that the frames' own had to be found first."


def one_pass(path: Path, consumers: Sequence[Consumer], *, prefetch_bytes: int = 0, threads: int = 1) -> Passed:
    """Feed every consumer from one decode of ``path``.

    prefetch_bytes: how far a thread may decode ahead; 0 decodes in the caller's thread. threads: of the decoder. Neither
    changes what is fed. Raises `VideoError` when the video cannot be decoded, or holds no frame.
    """
    from wfm.data.images import format_of

    if format_of(path):
        return _still(path, consumers)
    planned, found = _run(path, consumers, None, prefetch_bytes, threads)
    if np.array_equal(planned, found):
        return Passed(len(found), 1)
    again, _ = _run(path, consumers, found, prefetch_bytes, threads)
    return Passed(len(again), 2)


def _still(path: Path, consumers: Sequence[Consumer]) -> Passed:
    """Feed one picture. Nothing is scaled by swscale, which reads past the end of RGB rows."""
    import av
    import cv2

    from wfm.data.images import read_image, resized
    from wfm.data.orientation import Orientation

    picture = read_image(path)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    forms = {"rgb24": picture, "gray": grey, "bgr24": picture[..., ::-1]}
    frame = av.VideoFrame.from_ndarray(grey, "gray")
    height, width = grey.shape
    geometry = Geometry(height, width, Orientation(), np.zeros(1))
    for consumer in consumers:
        want = consumer.wants()
        chosen = want.frames is None or 0 in set(want.frames(geometry))
        consumer.begin(geometry)
        if chosen:
            size = want.size(height, width) if want.size is not None else (height, width)
            shown = resized(np.ascontiguousarray(forms[want.channels]), size) if want.channels is not None else None
            consumer.feed(Moment(0, 0.0, shown, frame))
        consumer.finish()
    return Passed(1, 1)


def packet_seconds(video: "OpenVideo") -> np.ndarray:
    """float64 [T]: the times of a video's frames, ascending, read from its packets without decoding. Raises `VideoError`."""
    ticks: list[int] = []
    for packet in video.packets():
        if not packet.is_discard:
            ticks.append(int(video.time_of(packet) or 0))
    return np.array([video.seconds(pts) for pts in sorted(set(ticks))], dtype=np.float64)


def fitted(longer_side: int, *, enlarge: bool = True) -> SizeOf:
    """The size whose longer side is ``longer_side`` pixels, at least 2 each. ``enlarge=False``: small pictures stay small."""

    def size(height: int, width: int) -> tuple[int, int]:
        scale = longer_side / max(height, width)
        if scale > 1 and not enlarge:
            return height, width
        return max(2, round(height * scale)), max(2, round(width * scale))

    return size


@dataclasses.dataclass(frozen=True)
class _Fed:
    """A decoded frame with what was made of it: the pictures by form, and who gets it."""

    index: int
    seconds: float
    frame: "av.VideoFrame"
    pictures: dict[Wanted, np.ndarray]

    @property
    def nbytes(self) -> int:
        return frame_bytes(self.frame) + sum(picture.nbytes for picture in self.pictures.values())


def _run(
    path: Path, consumers: Sequence[Consumer], seconds: np.ndarray | None, prefetch_bytes: int, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """One pass; ``seconds``: when the frames are expected, None: as the packets tell. Returns (expected, when they came)."""
    from wfm.data.decode import VideoError, open_video
    from wfm.data.orientation import Orientation

    wanted = [consumer.wants() for consumer in consumers]
    times: list[float] = []
    with contextlib.ExitStack() as opened:
        video = opened.enter_context(open_video(path, threads=threads))
        if seconds is None:
            seconds = packet_seconds(video)
            if not video.rewinds:
                video = opened.enter_context(open_video(path, threads=threads))
        if any(want.motion_vectors for want in wanted):
            video.stream.codec_context.options |= {"flags2": "+export_mvs"}
        frames = video.frames()
        first = next(frames, None)
        if first is None:
            raise VideoError(path, "no_frames", "the video holds no frame")
        geometry = Geometry(first.height, first.width, Orientation.of(first), seconds)
        chosen = [None if want.frames is None else frozenset(want.frames(geometry)) for want in wanted]
        forms = _forms(wanted, chosen)
        for consumer in consumers:
            consumer.begin(geometry)
        with ahead(_fed(video, first, frames, forms), prefetch_bytes, lambda fed: fed.nbytes) as moments:
            for fed in moments:
                if (fed.frame.height, fed.frame.width) != (geometry.height, geometry.width):
                    words = f"from {geometry.width} x {geometry.height} to {fed.frame.width} x {fed.frame.height}"
                    raise VideoError(path, "size_changes", f"{words} at {fed.seconds:.3f} s")
                times.append(fed.seconds)
                for consumer, want, indices in zip(consumers, wanted, chosen, strict=True):
                    if indices is None or fed.index in indices:
                        picture = fed.pictures.get(_form(want))
                        consumer.feed(Moment(fed.index, fed.seconds, picture, fed.frame))
        for consumer in consumers:
            consumer.finish()
    return seconds, np.array(times, dtype=np.float64)


def _form(want: Wanted) -> Wanted:
    """What of a wish decides the picture."""
    return dataclasses.replace(want, frames=None, motion_vectors=False)


def _forms(wanted: Sequence[Wanted], chosen: Sequence[frozenset[int] | None]) -> dict[Wanted, frozenset[int] | None]:
    """Form -> indices of the frames that anybody wants in it (None: all)."""
    forms: dict[Wanted, frozenset[int] | None] = {}
    for want, indices in zip(wanted, chosen, strict=True):
        if want.channels is None:
            continue
        form = _form(want)
        before = forms.get(form, frozenset())
        forms[form] = None if indices is None or before is None else before | indices
    return forms


def _fed(
    video: "OpenVideo",
    first: "av.VideoFrame",
    rest: Iterator["av.VideoFrame"],
    forms: dict[Wanted, frozenset[int] | None],
) -> Iterator[_Fed]:
    from av.video.reformatter import VideoReformatter

    from wfm.data.decode import to_array
    from wfm.data.orientation import Orientation

    scalers = {form: VideoReformatter() for form in forms}
    index, frame = 0, first
    while frame is not None:
        pictures: dict[Wanted, np.ndarray] = {}
        made: dict[tuple[str, bool, tuple[int, int] | None], np.ndarray] = {}
        for form, indices in forms.items():
            if (indices is not None and index not in indices) or form.channels is None:
                continue
            height, width = frame.height, frame.width
            if form.upright and Orientation.of(frame).transpose:
                height, width = width, height
            size = form.size(height, width) if form.size is not None else None
            same = (form.channels, form.upright, size)
            if same not in made:
                made[same] = to_array(
                    frame, size=size, channels=form.channels, upright=form.upright, scaler=scalers[form]
                )
            pictures[form] = made[same]
        yield _Fed(index, video.seconds(frame.pts), frame, pictures)
        index, frame = index + 1, next(rest, None)
