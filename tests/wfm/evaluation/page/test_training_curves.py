"""The charts of a training: what is in its curves and its manifest, and nothing where there is nothing."""

import io
import json
from types import SimpleNamespace

import pytest

from wfm.evaluation.page.charts import line_chart
from wfm.evaluation.page.training_curves import curves_of
from wfm.models.binned import labels


class Trained:
    """An artifact with curves, and a manifest with rates."""

    def __init__(self, lines, rates=None):
        self._text = "".join(json.dumps(line) + "\n" for line in lines)
        self.manifest = SimpleNamespace(extra={} if rates is None else {"rates": rates})

    def has_file(self, name):
        return name == "metrics.jsonl"

    def open(self, name):
        return io.BytesIO(self._text.encode())


LEVELS = labels("loss")


def charts(lines, rates=None):
    return {chart.title.removeprefix("A model: "): chart for chart in curves_of("A model", Trained(lines, rates))}


def test_losses_by_level_and_kind_with_what_was_left_out():
    lines = [
        {
            "step": step,
            "loss": 1.0,
            "loss_image": 0.5,
            "loss_video": 1.5,
            **{name: 1.0 + k for k, name in enumerate(LEVELS)},
        }
        for step in (10, 20)
    ]
    lines.insert(1, {"step": 12, "left_out": {"step": 13, "reason": "spike"}})
    found = charts(lines)
    assert list(found) == ["loss", "loss by noise level", "loss of videos and of images"]
    assert found["loss"].note == "1 batches were left out (spike 1), at the steps 13"
    by_level = found["loss by noise level"].series
    assert [(one.name, one.y) for one in by_level] == [
        ("below 0.25", [1.0, 1.0]), ("0.25 to 1", [2.0, 2.0]), ("1 to 4", [3.0, 3.0]), ("above 4", [4.0, 4.0]),
    ]  # fmt: skip
    assert [one.name for one in found["loss of videos and of images"].series] == ["videos", "single images"]
    for chart in found.values():
        assert chart.title in line_chart(chart)


def test_rates_and_what_stands_out():
    rates = [
        {
            "step": step,
            "tokens_per_second": 1000.0 + step,
            "mfu": 0.25,
            "padding": 0.0,
            "balance": 1.2,
            "memory_bytes": 2**30,
        }
        for step in (10, 20)
    ]
    found = charts([{"step": 10, "loss": 1.0}], rates)
    assert list(found) == ["loss", "speed", "shares of time and of places", "memory"]
    assert found["speed"].series[0].y == [1010.0, 1020.0]
    (shares,) = found["shares of time and of places"].series  # nothing but zeros is not drawn
    assert (shares.name, shares.y) == ("share of the peak arithmetic used", [25.0, 25.0])
    assert found["shares of time and of places"].note == "The slowest rank computed up to 1.20 times the mean."
    assert found["memory"].series[0].y == [1024.0, 1024.0]


@pytest.mark.parametrize("rates", [None, [], "fast", [3], [{"step": 1, "mfu": "no"}]])
def test_a_training_of_before_shows_what_it_has(rates):
    assert list(charts([{"step": 1, "loss": 1.0, "loss_video": 1.0}], rates)) == ["loss"]
