"""Scores against generated video of known kinds: precision and recall of each, in one table.

The same rows for more seeds: ``python -m tests.benchmarks.ground_truth --only clips --only ocr``.
"""

import pytest

from tests.benchmarks.ground_truth_clips import OCR_TABLE, TABLE, Seen, clip_rows, measured
from wfm.curation.measure.score import ScoreConfig
from wfm.curation.measure.text_tracks import TextConfig

SEEDS = (101, 102)  # no threshold was set on these


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[Seen]:
    return measured(tmp_path_factory.mktemp("kinds"), SEEDS)


FLOORS: dict[str, tuple[float, float]] = {}
"""(precision, recall) where they are not both 1 over two clips of each of 25 kinds."""


@pytest.mark.parametrize("name", TABLE)
def test_precision_and_recall_on_generated_video(name: str, seen: list[Seen]) -> None:
    (row,) = clip_rows(seen, {name: TABLE[name]})
    assert row.score.true >= len(SEEDS)
    precision, recall = FLOORS.get(name, (1.0, 1.0))
    assert row.score.precision >= precision, row.wrong
    assert row.score.recall >= recall, row.wrong


def test_the_neural_detector_of_text_on_generated_video(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All 1, marks of two letters in a corner too."""
    config = ScoreConfig(measures=True, text_detector="ppocr", text=TextConfig(side=320))
    seen = measured(tmp_path_factory.mktemp("ocr"), SEEDS, ("text", "corner", "moving", "shaky"), config)
    for row in clip_rows(seen, OCR_TABLE):
        assert (row.score.precision, row.score.recall) == (1.0, 1.0), (row.name, row.wrong)


def test_borders_are_measured_to_a_line(seen: list[Seen]) -> None:
    bar = 12 / 132  # copies() adds 12 lines above and below 108
    for one in seen:
        if one.kind == "letterbox":
            edges = one.measures
            assert (edges.border_top, edges.border_bottom) == pytest.approx((bar, bar), abs=1.01 / 132)
            assert (edges.border_left, edges.border_right) == (0, 0)
            assert edges.under_share < 0.1, "what lies in the borders is not under-exposed"
