"""Stills that no repeating pattern can fall in step with."""

import numpy as np

from wfm.curation.measure.frame_sampling import still_indices


def test_stills_are_spread_over_the_clip_in_uneven_steps() -> None:
    places = sorted(still_indices(16, 480))
    steps = np.diff([*places, 480])
    assert places[0] == 0
    assert len(places) == 16
    assert steps.max() < 60
    assert len(set(steps)) > 1
