import numpy as np

from wfm.simulation.overlay import burn_in


def test_text_is_burned_into_the_lower_part_only() -> None:
    picture = np.full((96, 96, 3), 128, dtype=np.uint8)
    written = burn_in(picture, "DO NOT COPY")
    assert np.array_equal(written[:60], picture[:60])
    band = written[65:84]
    assert (band == 255).any()
    assert np.median(band) < 60
    assert picture.min() == 128  # the given picture is left alone


def test_another_text_gives_another_picture() -> None:
    picture = np.zeros((64, 64, 3), dtype=np.uint8)
    assert not np.array_equal(burn_in(picture, "CHAPTER TWO"), burn_in(picture, "SAMPLE ONLY"))


def test_long_text_is_shrunk_to_fit() -> None:
    picture = np.zeros((128, 128, 3), dtype=np.uint8)
    lit = np.nonzero((burn_in(picture, "THANKS FOR WATCHING") > 100).any(axis=(0, 2)))[0]
    assert lit.min() > 0
    assert lit.max() < 127
