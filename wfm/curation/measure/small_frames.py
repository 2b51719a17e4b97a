"""What is read from the small grey frames of a clip, stretch by stretch: no frame is kept for longer than its stretch.

    every frame, 64 pixels -> stretches of 128 pairs -> some numbers a frame -> shares, motion, camera

A clip's length costs some numbers a frame (a hundred bytes), not the frame. Each function that is used here says the same of a
whole clip held at once; the tests compare the two.
"""

import dataclasses

import numpy as np

from wfm.curation.arrays import array_module, to_numpy, unit
from wfm.curation.measure import static
from wfm.curation.measure.block_flow import PAIRS_AT_ONCE, block_flow
from wfm.curation.measure.camera_moves import CameraTrack
from wfm.curation.measure.motion import BlockMotion, Motion, VectorSum
from wfm.curation.measure.video_type import picture_changes
from wfm.curation.one_pass import Geometry, Moment, Wanted, fitted


@dataclasses.dataclass
class FrameNumbers:
    """Of a clip of T frames."""

    seconds: np.ndarray
    "float64 [T]."
    change: np.ndarray
    "[T-1]: `static.busiest_change` of neighbours."
    gap_change: np.ndarray
    "The same of `static.gap_pairs`."
    brightness: np.ndarray
    "[T]: means, 0 to 1."
    black: np.ndarray
    "bool [T]: `static.black_frames`."
    picture_change: np.ndarray
    "[T-1]: of `video_type.picture_changes`."
    block_change: np.ndarray
    "[T-1]: the same of its busiest block."


class SmallFrames:
    """A consumer of `one_pass`. ``vectors`` is fed before it; where the codec holds none, motion comes from brightness.

    camera: whether the camera is followed too, which takes most of the time.
    """

    def __init__(self, vectors: VectorSum, *, side: int, gap_seconds: float, camera: bool, device: str = "cpu") -> None:
        self._vectors, self._size, self._gap, self._camera = vectors, fitted(side), gap_seconds, camera
        self._xp = array_module(device)

    def wants(self) -> Wanted:
        # Stored, not upright: shares do not change when the picture is turned; whoever has a direction turns it.
        return Wanted("gray", self._size)

    def begin(self, geometry: Geometry) -> None:
        self._first, self._second = static.gap_pairs(geometry.seconds, self._gap)
        self._frames: dict[int, np.ndarray] = {}
        self._seconds: list[float] = []
        self._begun = self._paired = 0  # where the stretch begins; gap pairs that are done
        self._found: list[list[np.ndarray]] = []
        self._tracks: list[CameraTrack] = []
        self._motion = BlockMotion()

    def feed(self, moment: Moment) -> None:
        assert moment.picture is not None
        self._frames[moment.index] = moment.picture
        self._seconds.append(moment.seconds)
        if moment.index == self._begun + PAIRS_AT_ONCE:
            self._stretch()

    def finish(self) -> None:
        if len(self._seconds) > self._begun + 1 or not self._found:
            self._stretch()

    def numbers(self) -> FrameNumbers:
        """After the pass."""
        return FrameNumbers(np.array(self._seconds), *(np.concatenate(part) for part in zip(*self._found, strict=True)))

    def camera(self) -> CameraTrack:
        """The same, if the camera was followed."""
        return CameraTrack.joined(self._tracks)

    def motion(self) -> Motion:
        """The same: from the codec's vectors, or else from brightness."""
        return self._vectors.result() or self._motion.result()

    def _stretch(self) -> None:
        """Everything up to the last frame fed, which begins the next stretch."""
        last = len(self._seconds) - 1
        gray = self._stacked(np.arange(self._begun, last + 1))
        seconds = np.array(self._seconds[self._begun :])
        ready = int(np.searchsorted(self._second, last, side="right"))
        pairs = slice(self._paired, ready)
        gaps = static.busiest_change(self._stacked(self._first[pairs]), self._stacked(self._second[pairs]))
        new = gray[1:] if self._begun else gray
        brightness = to_numpy(self._xp.mean(new, axis=(1, 2)))
        changes = picture_changes(gray) if self._camera else (np.zeros(0), np.zeros(0))
        self._found.append(
            [static.busiest_change(gray[:-1], gray[1:]), gaps, brightness, static.black_frames(new), *changes]
        )
        if self._camera:
            self._tracks.append(CameraTrack.of(block_flow(gray, seconds)))
        if not self._vectors.found:
            self._motion.add(gray, seconds)
        self._begun, self._paired = last, ready
        oldest = min(last, int(self._first[ready])) if ready < len(self._first) else last
        self._frames = {index: frame for index, frame in self._frames.items() if index >= oldest}

    def _stacked(self, indices: np.ndarray) -> "np.ndarray":
        """Frames -> float32 [N, h, w] in 0..1, on the device."""
        shape = next(iter(self._frames.values())).shape
        frames = [self._frames[int(index)] for index in indices]
        return unit(self._xp, np.stack(frames) if frames else np.zeros((0, *shape), np.uint8))
