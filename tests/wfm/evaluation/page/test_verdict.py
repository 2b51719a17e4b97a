import pytest

from wfm.evaluation.config import EvaluationConfig
from wfm.evaluation.generated import CEILING
from wfm.evaluation.page.config import PageConfig, Target
from wfm.evaluation.page.data import PageData
from wfm.evaluation.page.intervals import GainAxis, rows
from wfm.evaluation.page.losses import losses
from wfm.evaluation.page.verdict import headline, judge
from wfm.evaluation.page.words import signed
from wfm.evaluation.page.write import estimate, percent, render
from wfm.evaluation.report import evaluate
from wfm.evaluation.schema import Metrics
from wfm.recipes.demo import TARGETS

CONFIG = EvaluationConfig(split="val", resamples=100)


@pytest.fixture(scope="module")
def good(make):
    return evaluate(make(12), None, CONFIG)[0]


@pytest.fixture(scope="module")
def bad(make):
    made = make(12)
    noisy = {**made.videos, "sampled": 255 - made.videos["truth"]}
    return evaluate(make(12, videos=noisy), None, CONFIG)[0]


def target(figure: str, at_least: float, **changes) -> Target:
    return Target.parse(
        {"family": "diffusion", "variant": "sampled", "figure": figure, "at_least": at_least, **changes}
    )


def test_words_follow_the_figures(good, bad):
    told, lines = headline([good])
    assert "nearer to the truth than the last frame held" in told
    assert "nearer than carrying on the optical flow" in told
    assert lines[0].startswith("Diffusion, sampled: +")
    lost, lines = headline([bad])
    assert "further from the truth" in lost
    assert ": −" in lines[0]
    assert headline([]) == ("Nothing was evaluated.", [])


def test_a_model_like_its_baseline_is_not_called_better(make):
    made = make(12)
    same = {**made.videos, "sampled": made.videos["truth"].copy()}
    same["sampled"][:, made.past_frames :] = made.truth[:, made.past_frames - 1 : made.past_frames]
    metrics = evaluate(make(12, videos=same), None, CONFIG)[0]
    assert "no nearer" in headline([metrics])[0]


def without_intervals(metrics: Metrics) -> Metrics:
    """The same figures, as if all windows were of one session."""

    def blank(part):
        if isinstance(part, dict):
            ends = {"low": None, "high": None, "sessions": 1} if {"mean", "sessions"} <= set(part) else {}
            return {name: blank(value) for name, value in part.items()} | ends
        return part

    return Metrics.model_validate(blank(metrics.model_dump(mode="json")))


def test_without_an_interval_nothing_is_proved(good):
    alone = without_intervals(good)
    told, lines = headline([alone])
    assert "one session: no interval" in told
    assert "[one session: no interval]" in lines[0]
    low, mean = judge((target("gain", 0.1), target("gain", 0.1, end="mean")), [alone])
    assert (low.met, low.measured) == (None, "not measured: one session: no interval")
    assert mean.met is True
    assert "[one session: no interval]" in mean.measured
    found = rows([alone], "fixed_rate")
    assert "whisker" in GainAxis(rows([good], "fixed_rate")).bar(rows([good], "fixed_rate")[0])
    assert "whisker" not in GainAxis(found).bar(found[0])
    assert '<small class="words">[one session: no interval]</small>' in estimate(found[0].gain)
    assert "[one session: no interval]" in percent(found[0].share)


def test_targets_are_met_missed_or_open(good, bad):
    gain = good.subsets["fixed_rate"].gains["sampled"]["repeat_last"].psnr_gain_db
    below, between = gain.low - 0.1, (gain.low + gain.mean) / 2
    verdicts = judge((target("gain", below), target("gain", between), target("gain", between, end="mean")), [good])
    assert [verdict.met for verdict in verdicts] == [True, False, True]
    assert [v.met for v in judge((target("share_of_windows", 0.9), target("action_gain", 0.0)), [bad])] == [
        False,
        False,
    ]
    missing = judge(
        (target("gain", 1.0, family="autoregressive", variant="greedy"), target("gain", 1.0, variant="no")), [good]
    )
    assert [verdict.met for verdict in missing] == [None, None]
    assert "no autoregressive model" in missing[0].measured


def test_a_target_of_zero_must_be_passed_and_not_touched(make):
    made = make(12)
    like = {**made.videos, "shuffled_action": made.videos["sampled"]}
    metrics = evaluate(make(12, videos=like), None, CONFIG)[0]
    assert judge((target("action_gain", 0.0),), [metrics])[0].met is False


def test_the_way_to_a_ceiling_that_is_below_the_floor_is_open(make):
    made = make(12)
    worse = {**made.videos, CEILING: 255 - made.videos["truth"]}
    metrics = evaluate(make(12, videos=worse), None, CONFIG)[0]
    verdict = judge((target("way_closed", 0.3),), [metrics])[0]
    assert verdict.met is None
    assert "ceiling" in verdict.measured


def test_the_demos_targets_are_those_of_its_promise():
    wanted = {(t.family, t.variant, t.figure): t.at_least for t in PageConfig.parse({"targets": TARGETS}).targets}
    assert wanted["diffusion", "sampled", "gain"] == 3.0
    assert wanted["diffusion", "mean", "gain"] == 4.0
    assert wanted["diffusion", "sampled", "share_of_windows"] == 0.9
    assert wanted["autoregressive", "greedy", "gain"] == 0.5


def test_a_true_minus():
    assert (signed(-1.25), signed(2.0)) == ("−1.2", "+2.0")


def test_what_is_lost_stands_beside_what_is_won(good, bad):
    """Also in the lines that are read first, and in the card of the subset that is shown first."""
    assert losses(good, "fixed_rate") == []
    assert "loses: where the camera rests, " in headline([good])[1][1], "a still cannot be beaten by what is blurred"
    assert "fixed rate" not in headline([good])[1][1]
    found = losses(bad, "fixed_rate")
    assert [loss.baseline for loss in found] in (["flow", "repeat_last"], ["repeat_last", "flow"])
    assert found[0].gain.mean <= found[1].gain.mean < 0
    assert found[0].text.startswith(f"{-found[0].gain.mean:.1f} dB worse than ")
    line = headline([bad])[1][1]
    assert line.startswith("Diffusion, sampled loses: where the camera turns at a fixed rate, ")
    assert "where the camera rests" in line
    for text in (loss.text for loss in found):
        assert text in line
    shown = render(PageData(title="T", headline="H", metrics=[bad]))
    assert f"<b>Diffusion, sampled</b>: {found[0].text}, {found[1].text}</li>" in shown
    assert "is nearer to the truth here on average" not in shown.split('data-subset="fixed_rate"')[2]
    assert "is nearer to the truth here on average" in render(PageData(title="T", headline="H", metrics=[good]))
    ratio = good.subsets["fixed_rate"].way_closed["sampled"].model_copy(update={"low": None, "high": None})
    assert "[no interval]" in percent(ratio), "a ratio over several sessions that has none"
    assert losses(without_intervals(bad), "static")[0].text.endswith("[one session: no interval]")
