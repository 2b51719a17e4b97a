from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wfm.curation.measure.measurements import Measures
from wfm.curation.measure.measurements.colourfulness import colourfulness
from wfm.curation.measure.score import ScoreClip, ScoreConfig
from wfm.curation.rows import Score
from wfm.curation.select.select import Scored, SelectConfig, filters
from wfm.records import Clip


def grey(frames: np.ndarray) -> np.ndarray:
    return np.repeat(frames.mean(-1, keepdims=True), 3, axis=-1).astype(np.uint8)


def test_it_is_the_papers_formula() -> None:
    picture = np.zeros((1, 2, 2, 3), np.uint8)
    picture[0, 0], picture[0, 1] = (200, 0, 0), (0, 0, 200)
    # red - green: 200 and 0, so mean 100 and deviation 100; (red + green) / 2 - blue: 100 and -200, so -50 and 150
    assert colourfulness(picture) == pytest.approx(np.hypot(100, 150) + 0.3 * np.hypot(100, 50))
    assert colourfulness(grey(picture)) == 0


def test_black_and_white_is_refused_once_somebody_asks(
    make_clip: Callable[..., Path], make_row: Callable[..., Clip]
) -> None:
    paths = {"colour": make_clip(1), "grey": make_clip(1, change=grey)}
    items, found = [], {}
    for name, path in paths.items():
        measured: list[Measures] = []
        score: Score
        (score,) = ScoreClip(ScoreConfig(measures=True), lambda _, path=path: path, measured)(make_row(name))  # type: ignore[misc]
        items.append(Scored(make_row(name), score, measured[0]))
        found[name] = measured[0].colourfulness  # type: ignore[attr-defined]
    assert found["grey"] < 2 < 20 < found["colour"]

    def reasons(config: SelectConfig) -> list[str]:
        return [next((why for rule in filters(config) if (why := rule.reason(item))), "") for item in items]

    assert reasons(SelectConfig()) == ["", ""], "off by default"
    assert reasons(SelectConfig().override(["measured.minimum_colourfulness=5"])) == ["", "colourless"]
    assert SelectConfig().override(["measured.minimum_colourfulness=null"]).what() == SelectConfig().what()
