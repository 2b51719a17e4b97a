"""Bins: every clip has one, whatever its size and length. (cosmos-curate drops what is shorter than 5 s with a warning.)"""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfm.curation.dataset.bins import BINS, OVERFLOW, image_bin, shard_bin


@given(st.integers(-(2**20), 2**20), st.integers(-(2**20), 2**20), st.floats())
def test_every_clip_has_a_bin(width: int, height: int, seconds: float) -> None:
    assert shard_bin(width, height, seconds) in BINS


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_an_image_has_the_bin_of_its_shape_and_shares_none_with_clips(width: int, height: int) -> None:
    name = image_bin(width, height)
    assert name not in BINS
    assert shard_bin(width, height, 1.0).startswith(name.removeprefix("image_"))


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.floats(0, 1e6, exclude_min=True))
def test_only_extreme_shapes_overflow(width: int, height: int, seconds: float) -> None:
    assert (shard_bin(width, height, seconds) == OVERFLOW) == (not 0.4 <= width / height <= 2.5)


@given(st.integers(288, 8000), st.integers(1, 300), st.integers(1, 300))
def test_longer_clips_never_go_to_a_shorter_bin(side: int, tenths: int, more: int) -> None:
    order = ["0_5", "5_10", "10_30", "30_inf"]
    found = [order.index(shard_bin(side, side, t / 10).partition("duration_")[2]) for t in (tenths, tenths + more)]
    assert found[0] <= found[1]


@pytest.mark.parametrize(
    ("width", "height", "seconds", "name"),
    [
        (1920, 1080, 4.999, "resolution_1080_aspect_ratio_16_9_duration_0_5"),
        (1280, 720, 5.0, "resolution_720_aspect_ratio_16_9_duration_5_10"),
        (719, 720, 10.0, "resolution_lt_720_aspect_ratio_1_1_duration_10_30"),
        (1080, 1920, 30.0, "resolution_1080_aspect_ratio_9_16_duration_30_inf"),
        (640, 480, 0.04, "resolution_lt_720_aspect_ratio_4_3_duration_0_5"),
        (480, 640, 2.0, "resolution_lt_720_aspect_ratio_3_4_duration_0_5"),
        (4096, 720, 2.0, OVERFLOW),
        (0, 720, 2.0, OVERFLOW),
        (720, 720, math.nan, OVERFLOW),
    ],
)
def test_the_edges(width: int, height: int, seconds: float, name: str) -> None:
    assert shard_bin(width, height, seconds) == name


def test_names_are_folders_and_differ() -> None:
    assert len(set(BINS)) == len(BINS) == 61
    assert all("/" not in name and "." not in name for name in BINS)
