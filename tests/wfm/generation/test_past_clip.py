from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from wfm.errors import DataError, InputError
from wfm.generation.past_clip import centre_crop, read_past
from wfm.generation.write_video import from_uint8, to_uint8, write_mp4
from wfm.simulation.ground_truth import write_film


def film(path: Path, count: int, size: tuple[int, int] = (16, 16), fps: float = 24.0) -> np.ndarray:
    """A video whose frame k has the brightness 5 + 6 k everywhere."""
    frames = np.broadcast_to((5 + 6 * np.arange(count, dtype=np.uint8))[:, None, None, None], (count, *size, 3)).copy()
    write_mp4(path, frames, fps)
    return frames


def brightness(frames: np.ndarray) -> list[float]:
    return ((frames.reshape(len(frames), -1).mean(axis=1) - 5) / 6).round().tolist()


def test_the_last_frames_at_the_same_rate(tmp_path, world_of) -> None:
    film(tmp_path / "a.mp4", 20)
    past = read_past(tmp_path / "a.mp4", world_of("diffusion").card)
    assert past.frames.shape == (5, 16, 16, 3)
    assert past.frames.dtype == np.uint8
    assert brightness(past.frames) == [15, 16, 17, 18, 19]
    assert past.choices["resampled"] is False
    assert past.choices["seconds_used"] == pytest.approx([k / 24 for k in range(15, 20)], abs=1e-3)


def test_other_rates_are_resampled_and_said_so(tmp_path, world_of) -> None:
    card = world_of("diffusion").card
    film(tmp_path / "fast.mp4", 30, fps=48.0)
    fast = read_past(tmp_path / "fast.mp4", card)
    assert brightness(fast.frames) == [21, 23, 25, 27, 29]
    assert fast.choices["resampled"] is True
    film(tmp_path / "slow.mp4", 8, fps=12.0)
    assert brightness(read_past(tmp_path / "slow.mp4", card).frames) == [5, 5, 6, 6, 7]


def rewritten(path: Path, count: int, fps: Fraction, *, first_seconds: float = 0.0) -> Path:
    """A lossless-enough video of any container, whose frame k is shown at k / fps (by the container's own clock) and has the
    brightness 5 + 6 k everywhere."""
    frames = np.broadcast_to((5 + 6 * np.arange(count, dtype=np.uint8))[:, None, None, None], (count, 16, 16, 3))
    with av.open(str(path), "w") as container:
        codec = {".gif": "gif", ".webm": "libvpx", ".wmv": "mpeg4"}.get(path.suffix, "libx264")
        stream = container.add_stream(codec, rate=fps, options={"crf": "4"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = 16, 16, {"gif": "gray"}.get(codec, "yuv420p")
        stream.bit_rate = 4_000_000
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.time_base = 1 / fps
            picture.pts = number + round(first_seconds * fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


RATES = [Fraction(10), Fraction(15), Fraction(24), Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(30),
         Fraction(48), Fraction(50), Fraction(60000, 1001), Fraction(60)]  # fmt: skip


@pytest.mark.parametrize("ending", ["mkv", "webm", "flv", "wmv", "mp4", "ts", "avi"])
@pytest.mark.parametrize("model_fps", [8.0, 24.0, 30000 / 1001])
def test_each_moment_gets_the_frame_shown_then(tmp_path, world_of, ending, model_fps) -> None:
    # Before: of 59.94/s in ms, just as long as the past, the frames 8, 2, 3, 5, 8 for 0, 2, 4, 6, 8.
    card = world_of("diffusion").card.model_copy(update={"fps": model_fps})
    wrong = {}
    for fps in RATES:
        same = abs(float(fps) - model_fps) < 0.01 * model_fps
        count = 5 if same else int(np.ceil(float(fps) * 4 / model_fps - 1e-6)) + 1  # just as long as it must be
        past = read_past(rewritten(tmp_path / f"{float(fps):.2f}.{ending}", count, fps), card)
        moments = (count - 1) / float(fps) - np.arange(5)[::-1] / model_fps
        # A frame that is due within a tick of 1 ms may be there already.
        least, most = (np.floor((moments + early) * float(fps) + 1e-6) for early in (0, 1.1e-3))
        found = np.array(brightness(past.frames))
        if (found != np.arange(5)).any() if same else ((found < least) | (found > most)).any():
            wrong[f"{float(fps):.2f}"] = (found.tolist(), least.tolist(), most.tolist())
    assert wrong == {}


@pytest.mark.parametrize("ending", ["mkv", "flv", "mp4", "ts"])
def test_a_clock_that_does_not_begin_at_zero(tmp_path, world_of, ending) -> None:
    path = rewritten(tmp_path / f"late.{ending}", 13, Fraction(30), first_seconds=7.7)
    card = world_of("diffusion").card
    assert brightness(read_past(path, card).frames) == [7, 8, 9, 10, 12]


def test_a_film_of_nearly_the_models_rate_needs_as_many_frames_and_no_more(tmp_path, world_of) -> None:
    # Before: "1.033 s of video, 1.042 s are needed (26 frames at 24/s)" of the faster film; the slower one was read.
    card = world_of("diffusion").card
    film(tmp_path / "fast.mp4", 26, fps=24.2)
    assert brightness(read_past(tmp_path / "fast.mp4", card.model_copy(update={"past_frames": 26})).frames) == list(
        range(26)
    )
    film(tmp_path / "slow.mp4", 40, fps=23.77)
    slow = card.model_copy(update={"past_frames": 40})
    assert brightness(read_past(tmp_path / "slow.mp4", slow).frames) == list(range(40))
    with pytest.raises(InputError, match="40 frames over"):
        read_past(tmp_path / "slow.mp4", card.model_copy(update={"past_frames": 41}))


def test_an_uneven_clock_in_ms(tmp_path, world_of) -> None:
    times = [0, 40, 85, 120, 166, 208]
    frames = np.broadcast_to((5 + 6 * np.arange(6, dtype=np.uint8))[:, None, None, None], (6, 16, 16, 3)).copy()
    path = write_film(tmp_path / "uneven.mkv", frames, times=times, options={"crf": "4"})
    assert brightness(read_past(path, world_of("diffusion").card).frames) == [1, 1, 3, 4, 5]
    too_short = write_film(tmp_path / "short.mkv", frames[:4], times=[0, 40, 85, 160], options={"crf": "4"})
    with pytest.raises(InputError, match=r"4 frames over 0\.160 s"):
        read_past(too_short, world_of("diffusion").card)


def test_other_shapes_are_cropped_about_the_centre_and_scaled(tmp_path, world_of) -> None:
    frames = np.zeros((6, 32, 64, 3), np.uint8)
    frames[:, :, 16:48] = 200  # what a centre crop keeps
    write_mp4(tmp_path / "wide.mp4", frames, 24.0)
    past = read_past(tmp_path / "wide.mp4", world_of("diffusion").card)
    assert past.frames.shape == (5, 16, 16, 3)
    assert np.abs(past.frames[:, :, 1:-1].astype(int) - 200).max() < 12
    assert past.choices["crop_top_left_height_width"] == [0, 16, 32, 32]


def test_centre_crop() -> None:
    assert centre_crop(100, 50, (64, 64)) == (25, 0, 50, 50)
    assert centre_crop(90, 160, (45, 80)) == (0, 0, 90, 160)


def test_what_cannot_be_a_past_is_refused(tmp_path, world_of) -> None:
    card = world_of("diffusion").card
    film(tmp_path / "short.mp4", 4)
    with pytest.raises(InputError, match="5 frames at 24/s"):
        read_past(tmp_path / "short.mp4", card)
    with pytest.raises(InputError, match="no such file"):
        read_past(tmp_path / "none.mp4", card)
    (tmp_path / "text.mp4").write_text("not a video at all")
    with pytest.raises(DataError):
        read_past(tmp_path / "text.mp4", card)


def test_pixels_there_and_back() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 3), dtype=np.uint8)
    video = from_uint8(pixels)
    assert video.shape == (2, 3, 3, 4, 5)
    assert np.abs(video).max() <= 1
    assert np.array_equal(to_uint8(video), pixels)
    assert np.array_equal(to_uint8(video[0]), pixels[0])
