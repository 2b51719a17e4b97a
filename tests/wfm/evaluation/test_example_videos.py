import io

import av
import numpy as np
import pytest

from wfm.evaluation.example_videos import GAP, encode_mp4, panel_grid, spread
from wfm.evaluation.metrics.psnr import psnr_per_frame


def decoded(data: bytes) -> np.ndarray:
    with av.open(io.BytesIO(data)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_panels_stand_where_they_should():
    panels = [np.full((2, 8, 8, 3), value, np.uint8) for value in (10, 60, 200)]
    grid = panel_grid(panels, columns=2, scale=2)
    assert grid.shape == (2, 32 + GAP, 32 + GAP, 3)
    assert (grid[:, :16, :16] == 10).all()
    assert (grid[:, :16, 16 + GAP :] == 60).all()
    assert (grid[:, 16 + GAP :, :16] == 200).all()
    assert (grid[:, 16 + GAP :, 16 + GAP :] == 128).all()


def test_panels_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="panel 1"):
        panel_grid([np.zeros((2, 8, 8, 3), np.uint8), np.zeros((3, 8, 8, 3), np.uint8)], columns=2)


def test_mp4_comes_back_and_is_the_same_each_time(make):
    video = panel_grid([make(1).truth[0]], columns=1)
    data = encode_mp4(video, 24.0)
    back = decoded(data)
    assert back.shape == video.shape
    assert psnr_per_frame(back[None], video[None]).min() > 28
    assert encode_mp4(video, 24.0) == data
    assert len(encode_mp4(video, 24.0, quality=40)) < len(data)
    with pytest.raises(ValueError, match="even"):
        encode_mp4(video[:, :-1], 24.0)


def test_spread_shows_the_worst_the_best_and_what_lies_between():
    gains = np.array([5.0, -1.0, 3.0, 9.0, 2.0])
    assert spread(gains, 3) == [1, 2, 3]
    assert spread(gains, 9) == [1, 4, 2, 0, 3]
