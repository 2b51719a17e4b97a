"""The page of thresholds: counts by hand, a histogram a column, examples, and what an unmeasured limit says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wfm.curation.measure.measurements import Measures
from wfm.curation.measure.score import ScoreClip, ScoreConfig
from wfm.curation.rows import Score
from wfm.curation.select.measurement_limits import MeasuredLimits
from wfm.curation.select.select import Scored, SelectConfig
from wfm.curation.select.threshold_report import BARS, Drop, drops, page
from wfm.errors import ConfigError, DataError
from wfm.records import Clip

Row = Callable[..., Clip]


def test_drops_alone_and_together(make_row: Row, make_score: Callable[..., Score]) -> None:
    def clip(name: str, **scores: float) -> Scored:
        row = make_row(name)
        return Scored(row, make_score(row, **scores))

    scored = [
        clip("a"),
        clip("b", static_share=1.0),
        clip("c", static_share=1.0, sharpness=0.1),
        Scored(make_row("d"), None),
    ]
    found, together = drops(scored, SelectConfig())
    by_name = {drop.name: drop for drop in found}
    assert by_name["static"] == Drop("static", 2, 1)
    assert by_name["blurred"] == Drop("blurred", 1, 0)
    assert by_name["unscored"] == Drop("unscored", 1, 1)
    assert together == 3
    with pytest.raises(DataError, match=r"score_clips\.measures=true"):
        drops(scored, SelectConfig(measured=MeasuredLimits(maximum_shake=0.1)))


def test_the_page_of_real_clips(make_clip: Callable[..., Path], make_row: Row) -> None:
    paths = {"a": make_clip(1), "b": make_clip(2, speed=(0, 0))}
    scored = []
    for name in paths:
        measured: list[Measures] = []
        row = make_row(name, path=name)
        (score,) = ScoreClip(ScoreConfig(measures=True), paths.__getitem__, measured)(row)
        scored.append(Scored(row, score, measured[0]))
    config = SelectConfig().override(["measured.minimum_flow=0.05"])
    text = page(scored, config, lambda clip: paths[clip.clip_id], "two <clips>")
    assert "two &lt;clips&gt;" in text
    assert '<th scope="row">low_flow</th><td>1</td><td>50.0%</td><td>0</td>' in text, "the still clip is static too"
    assert text.count("data:image/jpeg") > 20
    assert "<h2>camera_pan</h2>" in text
    assert "<h2>nsfw</h2>" not in text, "nobody measured it"
    assert "threshold 0.05; <code>select_clips.measured.minimum_flow</code> drops what is below it" in text
    assert "http" not in text.replace("http-equiv", "")
    with pytest.raises(ConfigError, match=r"score_clips\.nsfw=true"):
        drops(scored, config.override(["measured.maximum_nsfw=0.5"]))
    with pytest.raises(ConfigError, match="slideshow"):
        drops(scored, config.override(['measured.drop_video_types=["nonsense"]']))
    with pytest.raises(ConfigError, match=r"score_clips\.measures=true"):
        ScoreClip(ScoreConfig(nsfw=True), paths.__getitem__)


def test_scores_that_differ_in_their_last_bit_have_no_bars(
    make_row: Row, make_score: Callable[..., Score], make_clip: Callable[..., Path]
) -> None:
    """numpy has no room for forty bars between two neighbouring floats; the page ended with its error."""
    shown = make_clip(1)
    scored = [
        Scored(row, make_score(row, moving_share=share, motion=motion))
        for row, share, motion in (
            (make_row("a"), 0.4, 1.0),
            (make_row("b"), float(np.nextafter(0.4, 1)), 1.0 + 1e-12),
        )
    ]
    text = page(scored, SelectConfig(), lambda clip: shown, "two clips")
    shapes = {part.partition("</h2>")[0]: part.count("<rect") for part in text.split("<h2>")[1:]}
    assert shapes["moving_share"] == 0
    assert shapes["motion"] == BARS
