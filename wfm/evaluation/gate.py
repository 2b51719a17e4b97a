"""Whether a model may be called `latest`: what its evaluation must show, and against what `latest` has now.

    Gate.parse({"floors": [{"figure": "gain", "at_least": 0.0}], "not_worse": [{"slack": 0.5}]})

A floor is a figure of `metrics.json` and the least it may be. `not_worse` compares with the model that bears the name: window
by window where both were judged on the same ones, so that what is hard about a window falls out, with an interval over
sessions. Worse is who is worse beyond chance (the whole interval lies below zero), and who is worse by more than `slack`,
chance or not. What was not measured passes no gate. Torch-free, and light until `judge` is called.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from wfm.artifacts.names import Promotion, Seen
from wfm.config import AtLeastZero, Config
from wfm.errors import InputError, MissingPackage

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store
    from wfm.evaluation.schema import Estimate, Metrics

EVALUATION = "evaluation"
"""Input of a published model: what judged it."""


class Floor(Config):
    """A figure, and the least it may be. Fields are those of a target of the page (`wfm.evaluation.page.config`)."""

    family: str = ""
    "Of this family's models alone; empty: of all."
    variant: str = ""
    "Which of its videos; empty: those that stand for the model."
    subset: str = "all"
    "Of windows; see `wfm.evaluation.subsets`."
    figure: Literal["gain", "share_of_windows", "way_closed", "gain_over_flow", "action_gain"] = "gain"
    end: Literal["low", "mean"] = "mean"
    at_least: float


class NotWorse(Config):
    """A metric in which a model must not lose to the one that bears the name."""

    family: str = ""
    variant: str = ""
    "Which of the videos, of either; empty: those that stand for the model."
    subset: str = "all"
    metric: str = "psnr_db"
    "By the name of its row (`wfm.evaluation.metrics`)."
    slack: AtLeastZero = 0.0
    "How much worse its mean may be where that may be chance, in the metric's unit."


class Gate(Config):
    """All of it must hold."""

    floors: tuple[Floor, ...] = ()
    not_worse: tuple[NotWorse, ...] = ()


def judge(gate: Gate, store: "Store", key: str, latest: Promotion | None) -> Seen:
    """What a gate sees of the published model `key`, which is to take the name that means `latest` now. Raises TryAgain alone:
    what cannot be read does not pass, with the reason."""
    against = latest.key if latest is not None else ""
    try:
        mine = _Judged.of(store, key)
    except InputError as error:
        return Seen(False, against, (f"its evaluation cannot be read: {error}",))
    floors = [floor for floor in gate.floors if floor.family in ("", mine.metrics.family)]
    rules = [rule for rule in gate.not_worse if rule.family in ("", mine.metrics.family)]
    told = _held_against(floors, mine.metrics)
    if rules and latest is None:
        told.append((True, "nobody bears the name yet"))
    elif rules and not store.has(against):
        told.append((True, f"{against[:12]}, which bears the name, does not count any more"))
    elif rules:
        told += _compared(rules, mine, store, against)
    return Seen(all(good for good, _ in told), against, tuple(words for _, words in told))


class _Judged:
    """A published model's evaluation."""

    def __init__(self, artifact: "Artifact", metrics: "Metrics") -> None:
        self._artifact, self.metrics = artifact, metrics

    @classmethod
    def of(cls, store: "Store", key: str) -> "_Judged":
        from wfm.evaluation.schema import read_metrics

        inputs = store.artifact(key).manifest.inputs
        if EVALUATION not in inputs:
            raise InputError(f"{key[:12]} was not made from an evaluation: `wfm artifacts lineage {key[:12]}`")
        artifact = store.artifact(inputs[EVALUATION])
        return cls(artifact, read_metrics(artifact.fetch("metrics.json")))

    def variant(self, asked: str) -> str:
        return asked or self.metrics.headline_variant

    def windows(self, variant: str, subset: str, metric: str) -> dict[str, tuple[str, float]]:
        """sample id -> (session, value) of each window of a subset; empty where the table has no such columns."""
        import pyarrow.parquet as pq

        path = self._artifact.fetch("windows.parquet")
        columns = ["sample_id", "session_id", "subsets", "video", metric]
        if not set(columns) <= set(pq.read_schema(path).names):
            return {}
        rows = pq.read_table(path, columns=columns).to_pylist()
        return {
            row["sample_id"]: (row["session_id"], row[metric])
            for row in rows
            if row["video"] == variant and subset in row["subsets"] and row[metric] is not None
        }

    def gain(self, variant: str, subset: str, metric: str) -> "Estimate | None":
        """By how much it is better than repeat-last."""
        from wfm.evaluation.metrics import frame_metric

        report = self.metrics.subsets.get(subset)
        found = report.gains.get(variant, {}).get("repeat_last") if report else None
        return found.estimate(frame_metric(metric).gain_key) if found else None


def _held_against(floors: list[Floor], metrics: "Metrics") -> list[tuple[bool, str]]:
    from wfm.evaluation.page.config import Target
    from wfm.evaluation.page.verdict import judge as judge_targets

    targets = tuple(
        Target(
            family=metrics.family,
            variant=floor.variant or metrics.headline_variant,
            subset=floor.subset,
            figure=floor.figure,
            end=floor.end,
            at_least=floor.at_least,
        )
        for floor in floors
    )
    return [
        (verdict.met is True, f"{verdict.text} ({verdict.basis}): {verdict.measured}")
        for verdict in judge_targets(targets, [metrics])
    ]


def _compared(rules: list[NotWorse], mine: _Judged, store: "Store", against: str) -> list[tuple[bool, str]]:
    try:
        other = _Judged.of(store, against)
        return [_compare(rule, mine, other, against) for rule in rules]
    except MissingPackage:  # of this machine: it says nothing of the model
        raise
    except InputError as error:
        return [(False, f"it cannot be compared with {against[:12]}, which bears the name: {error}")]


def _compare(rule: NotWorse, mine: _Judged, other: _Judged, against: str) -> tuple[bool, str]:
    from wfm.evaluation.metrics import frame_metric

    row = frame_metric(rule.metric)
    here, there = (one.variant(rule.variant) for one in (mine, other))
    what = f"{mine.metrics.family} {here}, {row.title}"
    unit = f" {row.unit}" if row.unit else ""
    estimate = _paired(rule, mine, other, row.better)
    if estimate is not None:
        better, worse = estimate.mean >= -rule.slack, estimate.high is not None and estimate.high < 0
        ends = _ends(estimate.low, estimate.high, row.digits)
        how = f"{estimate.mean:+.{row.digits}f}{unit} {ends} against {against[:12]} on the same {estimate.windows} windows"
        return better and not worse, f"{what}: {how}{_why(better, worse, rule.slack, unit)}"
    one, two = mine.gain(here, rule.subset, rule.metric), other.gain(there, rule.subset, rule.metric)
    if one is None or two is None:
        return False, f"{what}: not measured of {'it' if one is None else against[:12]}, so they cannot be compared"
    means = one.mean - two.mean
    apart = one.high is not None and two.low is not None and one.high < two.low
    better = means >= -rule.slack
    how = (
        f"over repeat-last {one.mean:+.{row.digits}f}{unit} {_ends(one.low, one.high, row.digits)}, {against[:12]} has "
        f"{two.mean:+.{row.digits}f} {_ends(two.low, two.high, row.digits)} on other windows"
    )
    return better and not apart, f"{what}: {how}{_why(better, apart, rule.slack, unit)}"


def _paired(rule: NotWorse, mine: _Judged, other: _Judged, better: str) -> Any:
    """The mean of the differences with its interval, above zero where it is better; None where most windows of either are not
    the other's, or predict something else."""
    import numpy as np

    from wfm.evaluation.bootstrap import Bootstrap

    if find_spec("scipy") is None:
        raise MissingPackage("scipy", extra="plan", purpose="holding a model against the one that bears its name")
    same = ("past_frames", "predicted_frames", "height", "width", "fps", "split")
    if any(getattr(mine.metrics, name) != getattr(other.metrics, name) for name in same):
        return None
    here, there = (one.windows(one.variant(rule.variant), rule.subset, rule.metric) for one in (mine, other))
    shared = sorted(here.keys() & there.keys())
    if 2 * len(shared) <= max(len(here), len(there)):
        return None
    sign = 1.0 if better == "higher" else -1.0
    differences = np.array([sign * (here[name][1] - there[name][1]) for name in shared])
    bootstrap = Bootstrap([here[name][0] for name in shared], resamples=mine.metrics.bootstrap_resamples)
    return bootstrap.mean(differences)


def _ends(low: float | None, high: float | None, digits: int) -> str:
    return "[one session: no interval]" if low is None or high is None else f"[{low:+.{digits}f}, {high:+.{digits}f}]"


def _why(better: bool, worse: bool, slack: float, unit: str) -> str:
    if worse:
        return ": worse beyond chance"
    return "" if better else f": worse by more than {slack:g}{unit}"
