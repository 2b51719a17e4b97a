"""Small frames, stretch by stretch, give what the whole clip at once gives; and their number costs no memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wfm.curation.measure import quality, static
from wfm.curation.measure.block_flow import PAIRS_AT_ONCE, block_flow
from wfm.curation.measure.camera_moves import CameraTrack, camera_moves
from wfm.curation.measure.motion import VectorSum, block_motion
from wfm.curation.measure.small_frames import SmallFrames
from wfm.curation.measure.video_type import look, picture_changes
from wfm.curation.one_pass import Geometry, Moment, one_pass
from wfm.data.orientation import Orientation

Make = Callable[..., Path]
SIDE = 32


def film(frames: int, seed: int) -> np.ndarray:
    """uint8 [T, 32, 32]: grain that drifts, stands still, and goes dark in turn."""
    rng = np.random.default_rng(seed)
    world = rng.integers(0, 256, (SIDE, SIDE + frames), dtype=np.uint8)
    made = np.stack([world[:, t : t + SIDE] for t in range(frames)])
    made[frames // 3 : frames // 2] = made[frames // 3]
    made[frames // 2 : frames * 2 // 3] //= 20
    return made


def fed(frames: np.ndarray, seconds: np.ndarray, gap: float) -> SmallFrames:
    small = SmallFrames(VectorSum(), side=SIDE, gap_seconds=gap, camera=True)
    small.begin(Geometry(SIDE, SIDE, Orientation(), seconds))
    for index, (frame, second) in enumerate(zip(frames, seconds, strict=True)):
        small.feed(Moment(index, float(second), frame, None))  # type: ignore[arg-type]
    small.finish()
    return small


@pytest.mark.parametrize("frames", [1, 2, 5, PAIRS_AT_ONCE + 1, PAIRS_AT_ONCE + 2, 2 * PAIRS_AT_ONCE + 1, 300])
@pytest.mark.parametrize("gap", [0.25, 8.0])
@pytest.mark.parametrize("even", [True, False])
def test_stretches_give_what_the_whole_clip_gives(frames: int, gap: float, even: bool) -> None:
    pictures, rng = film(frames, frames), np.random.default_rng(frames)
    seconds = np.arange(frames) / 24 if even else np.cumsum(rng.integers(1, 5, frames)) / 48
    small = fed(pictures, seconds, gap)
    found, gray = small.numbers(), pictures.astype(np.float32) / 255
    assert static.share_of_rest(found.gap_change) == static.static_share(gray, seconds, gap_seconds=gap)
    assert static.share_of_repeats(found.change) == static.frozen_share(gray)
    assert float(found.black.mean()) == static.black_share(gray)
    np.testing.assert_array_equal(found.seconds, seconds)
    assert look(found.picture_change, found.block_change, gray[:1]) == look(*picture_changes(gray), gray[:1])
    whole = static.busiest_change(gray[:-1], gray[1:])
    freeze = quality.longest_freeze(static.repeats(whole), seconds)
    assert quality.longest_freeze(static.repeats(found.change), seconds) == freeze
    moved, expected_motion = small.motion(), block_motion(gray, seconds)
    assert (moved.speed, moved.patch_minimum) == pytest.approx(
        (expected_motion.speed, expected_motion.patch_minimum), rel=1e-9
    )  # seen: 1e-15
    expected = vars(camera_moves(CameraTrack.of(block_flow(gray, seconds))))
    assert vars(camera_moves(small.camera())) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_codecs_vectors_are_preferred(make_clip: Make) -> None:
    def motion(**options: Any) -> str:
        vectors = VectorSum()
        small = SmallFrames(vectors, side=SIDE, gap_seconds=0.25, camera=False)
        one_pass(make_clip(1, **options), [vectors, small])
        return small.motion().source

    assert motion() == "codec_vectors"
    assert motion(g="1") == "block_difference"


def test_frames_are_let_go_of() -> None:
    small = SmallFrames(VectorSum(), side=SIDE, gap_seconds=0.25, camera=True)
    frames, held = 2000, []
    small.begin(Geometry(SIDE, SIDE, Orientation(), np.arange(frames) / 24))
    for index in range(frames):
        small.feed(Moment(index, index / 24, np.zeros((SIDE, SIDE), np.uint8), None))  # type: ignore[arg-type]
        held.append(len(small._frames))
    assert max(held) <= PAIRS_AT_ONCE + 8
