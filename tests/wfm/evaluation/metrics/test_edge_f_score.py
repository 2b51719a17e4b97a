import numpy as np
import pytest

from wfm.evaluation.metrics.edge_f_score import edge_f_score_per_frame
from wfm.evaluation.metrics.psnr import psnr_per_frame


def square(x: int, size: int = 20, *, level: int = 255) -> np.ndarray:
    """uint8 [1, 1, 48, 64, 3]: a bright square on a dark ground."""
    picture = np.zeros((1, 1, 48, 64, 3), np.uint8)
    picture[0, 0, 14 : 14 + size, x : x + size] = level
    return picture


def score(video: np.ndarray, truth: np.ndarray) -> float:
    return float(edge_f_score_per_frame(video, truth)[0, 0])


def test_one_pixel_is_forgiven_and_five_are_not() -> None:
    assert score(square(10), square(10)) == 1.0
    assert score(square(11), square(10)) == 1.0
    assert score(square(15), square(10)) < 0.6
    assert score(square(35), square(10)) < 0.1


def test_it_is_the_mean_of_what_is_found_and_what_is_true() -> None:
    both = np.maximum(square(5), square(35))
    # Half of the edges drawn are true and every true one is drawn: 2 * 0.5 * 1 / 1.5, whichever is the truth.
    assert score(both, square(5)) == score(square(5), both) == pytest.approx(2 / 3, abs=0.01)


def test_a_picture_without_outlines_loses_though_its_psnr_is_the_better_one() -> None:
    lines = np.zeros((1, 1, 48, 64, 3), np.uint8)
    lines[..., 4::8, :] = 255  # a line a pixel wide, every eight
    moved, flat = np.roll(lines, 1, axis=3), np.full_like(lines, int(lines.mean()))
    assert psnr_per_frame(flat, lines)[0, 0] > psnr_per_frame(moved, lines)[0, 0] + 2
    assert score(moved, lines) > 0.9
    assert score(flat, lines) == 0.0


def test_without_edges() -> None:
    plain = np.full((1, 1, 48, 64, 3), 90, np.uint8)
    assert score(plain, plain) == 1.0
    assert score(plain, square(10)) == score(square(10), plain) == 0.0


@pytest.mark.parametrize("wrong", [np.zeros((1, 1, 48, 64, 3)), np.zeros((1, 1, 48, 32, 3), np.uint8)])
def test_other_pictures_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must"):
        edge_f_score_per_frame(wrong, square(10))
