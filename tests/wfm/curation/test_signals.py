"""What a decode keeps: sizes, times, and stills that no repeating pattern can fall in step with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wfm.curation.signals import SignalConfig, read_signals, still_indices

Make = Callable[..., Path]


def test_signals_have_the_sizes_that_were_asked_for(make_clip: Make) -> None:
    config = SignalConfig(thumbnail_side=32, still_side=64, stills=5)
    found = read_signals(make_clip(1, size=128), config, expected_frames=48)
    assert found.thumbnails.shape == (48, 32, 32)
    assert found.stills.shape == (5, 64, 64)
    assert found.colours.shape == (5, 32, 32, 3)
    assert found.seconds == pytest.approx(np.arange(48) / 24)


def test_stills_are_spread_over_the_clip_in_uneven_steps() -> None:
    places = sorted(still_indices(16, 480))
    steps = np.diff([*places, 480])
    assert places[0] == 0
    assert len(places) == 16
    assert steps.max() < 60
    assert len(set(steps)) > 1


def test_a_wrong_frame_count_in_the_table_still_gives_stills(make_clip: Make) -> None:
    found = read_signals(make_clip(1, frames=10), SignalConfig(), expected_frames=1000)
    assert len(found.stills) >= 1
