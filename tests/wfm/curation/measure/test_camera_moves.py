"""Camera moves of known size from pixels alone, and the faults of codec-vector motion that they are free of."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.wfm.curation.measure.plain_frames import read_plain_frames
from wfm.curation.measure.block_flow import block_flow
from wfm.curation.measure.camera_moves import CameraMoves, CameraTrack, camera_moves
from wfm.curation.measure.frame_sampling import FrameSampling
from wfm.curation.measure.motion import VectorMotion
from wfm.curation.measure.quality import Borders, seams
from wfm.simulation.ground_truth import texture

Make = Callable[..., Path]
FRAMES, FPS, SIZE = 36, 24, 128


def camera_of(thumbnails: np.ndarray, seconds: np.ndarray) -> CameraMoves:
    return camera_moves(CameraTrack.of(block_flow(thumbnails.astype(np.float32) / 255, seconds)))


def filmed(view: Callable[[int], tuple[float, float, float, float]]) -> CameraMoves:
    """``view(frame)`` -> (x, y of the window's middle, zoom, turn [rad]) over one large picture."""
    from PIL import Image

    world, shots = Image.fromarray(texture(np.random.default_rng(3), 512, 512)), []
    for k in range(FRAMES):
        x, y, zoom, turn = view(k)
        c, s = np.cos(turn) / zoom, np.sin(turn) / zoom
        matrix = (c, s, x - SIZE / 2 * (c + s), -s, c, y - SIZE / 2 * (c - s))
        shot = world.transform((SIZE, SIZE), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC)
        shots.append(np.asarray(shot.convert("L").resize((64, 64), Image.Resampling.BOX)))
    return camera_of(np.stack(shots), np.arange(FRAMES) / FPS)


@pytest.mark.parametrize("pixels", [0.5, 2.0, 5.0])
def test_pan_and_tilt_have_the_cameras_sign_and_size(pixels: float) -> None:
    true = pixels * FPS / SIZE
    pan = filmed(lambda k: (160 + pixels * k, 256, 1, 0))
    assert (pan.pan, pan.tilt) == pytest.approx((true, 0), abs=0.08 * true)  # worst seen: 6 % at half a pixel
    assert pan.tags == ["pan_right"]
    assert filmed(lambda k: (256, 340 - pixels * k, 1, 0)).tags == ["tilt_up"]


def test_zoom_roll_shake_and_rest() -> None:
    zoom = filmed(lambda k: (256, 256, 1.01**k, 0))
    assert zoom.tags == ["zoom_in"]
    assert zoom.zoom == pytest.approx(np.log(1.01) * FPS, rel=0.06)  # seen: 2 %
    roll = filmed(lambda k: (256, 256, 1, np.radians(k)))
    assert [tag[:4] for tag in roll.tags] == ["roll"]
    assert abs(roll.roll) == pytest.approx(FPS, rel=0.08)  # seen: 4 %
    tremble = np.random.default_rng(0).normal(0, 2, (FRAMES, 2))
    assert filmed(lambda k: (256 + tremble[k, 0], 256 + tremble[k, 1], 1, 0)).tags == ["shake"]
    still = filmed(lambda k: (256, 256, 1, 0))
    assert (still.tags, still.speed) == (["static"], 0)


def test_a_turned_picture_turns_the_camera() -> None:
    moves = CameraMoves(1, 1, 0.3, 0.1, 0, 5, 0, 0, 1, 1)
    half = moves.turned(transpose=False, mirror_x=True, mirror_y=True)
    assert (half.pan, half.tilt, half.roll) == (-0.3, -0.1, 5)
    mirrored = moves.turned(transpose=False, mirror_x=True, mirror_y=False)
    assert (mirrored.pan, mirrored.tilt, mirrored.roll) == (-0.3, 0.1, -5)
    assert Borders(0.1, 0, 0, 0).turned(True, False, False) == Borders(0, 0, 0.1, 0)


def flow_of(path: Path) -> CameraMoves:
    found = read_plain_frames(path, FrameSampling(), expected_frames=48)
    return camera_of(found.thumbnails, found.seconds)


def test_flow_does_not_depend_on_the_encoder(make_clip: Make) -> None:
    """x264 rough and fine, MPEG-4, and intra-only, which holds no vectors at all: one speed."""
    ways = [{"crf": "18"}, {"crf": "36"}, {"g": "1"}, {"codec": "mpeg4"}]
    speeds = [flow_of(make_clip(1, **way)).speed for way in ways]  # type: ignore[arg-type]
    assert speeds == pytest.approx([2 * 24 / 128] * len(ways), rel=0.05)


def test_motion_in_the_second_half_counts_and_key_frames_at_every_half_second_do_not_hide_it(make_clip: Make) -> None:
    def late(frames: np.ndarray) -> np.ndarray:
        frames = frames.copy()
        frames[:24] = frames[24]
        return frames

    path = make_clip(1, change=late, g="12", bf="0")  # a key frame on each frame that two looks a second would see
    assert flow_of(path).speed > 0.1
    codec = read_plain_frames(path, FrameSampling(), expected_frames=48).motion
    assert codec is not None
    assert codec.speed > 0.1


def test_pictures_of_less_than_256_pixels_and_memory_that_does_not_grow_with_the_picture(make_clip: Make) -> None:
    assert flow_of(make_clip(1, size=64, speed=(1, 0))).speed == pytest.approx(24 / 64, rel=0.05)
    small, large = VectorMotion(64, 64), VectorMotion(3840, 2160)
    held = [sum(v.nbytes for v in vars(one).values() if isinstance(v, np.ndarray)) for one in (small, large)]
    assert held[0] == held[1] < 8192


def test_seams_of_coding_blocks_are_seen_at_any_phase() -> None:
    picture = texture(np.random.default_rng(5), 128, 128)[..., 0]
    blocks = picture.reshape(16, 8, 16, 8).mean(axis=(1, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    assert seams(picture) < 0.3
    assert seams(blocks) > 2
    assert seams(blocks[3:, 5:]) > 2
