"""A gate lets pass what is better, or as good; refuses what is worse, and what was not measured; and says by how much."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from components.promotion import promote
from tests.wfm.evaluation.published import around, commit, judged, publish
from wfm.artifacts import Store
from wfm.artifacts.names import Names, Promotion, Seen
from wfm.evaluation.gate import Gate, judge

GATE = {"floors": [{"figure": "gain", "at_least": 0.0}], "not_worse": [{"metric": "psnr_db", "slack": 0.5}]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


def latest(store: Store) -> str:
    """The key that bears the name."""
    found = store.names.latest("model", "d")
    assert found is not None
    return found.key


def seen(store: Store, key: str) -> Seen:
    return judge(Gate.parse(GATE), store, key, store.names.latest("model", "d"))


def test_a_better_model_becomes_latest_and_a_worse_one_a_candidate(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    old, better, worse = (publish(store, around(mean)) for mean in (23.0, 24.0, 22.0))
    for key in (old, better, worse, worse):
        promote(store, "model/d", key, GATE, "first")
    assert latest(store) == better
    assert [one.number for one in store.names.history("model", "d", "candidate")] == [1], "asked twice, it is one"
    (candidate,) = store.names.history("model", "d", "candidate")
    assert (candidate.key, candidate.by) == (worse, "run first")
    assert candidate.gate is not None
    assert not candidate.gate.passed
    assert candidate.gate.against == better
    assert "-2.000 dB" in str(candidate.gate) or "-2.00 dB" in str(candidate.gate)
    assert "worse beyond chance" in str(candidate.gate)
    assert f"wfm artifacts promote {worse[:12]} model/d" in caplog.text, "what to do stands beside it"
    store.promote("model", "d", worse, by="ann@desk")
    assert latest(store) == worse, "by hand it may"
    promote(store, "model/d", worse, GATE, "first")
    assert store.names.latest("model", "d").number == 3, "what bears the name is not judged again"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("mean", "passed", "words"),
    [
        (20.1, True, "nobody bears the name yet"),
        (19.9, False, "gain over repeat-last above 0 dB (mean, all windows): −0.10 dB"),
    ],
)
def test_a_floor(store: Store, mean: float, passed: bool, words: str) -> None:
    found = seen(store, publish(store, np.full((3, 4), mean)))
    assert (found.passed, found.against) == (passed, "")
    assert words in str(found)


def test_chance_is_told_from_worse_and_slack_bounds_it(store: Store) -> None:
    """The same loss of 0.2 dB: in every session it is one, in sessions that disagree it may be chance; 0.8 dB is too much
    whatever chance says."""
    base = around(24.0)
    promote(store, "model/d", publish(store, base), GATE)
    sure, unsure = np.full((6, 1), -0.2), np.array([[-1.6], [1.2], [-1.2], [1.0], [-1.1], [0.5]])
    assert not seen(store, publish(store, base + sure)).passed
    assert seen(store, publish(store, base + unsure)).passed
    assert "worse by more than 0.5 dB" in str(seen(store, publish(store, base + unsure - 0.6)))


def test_windows_that_are_hard_hide_nothing(store: Store) -> None:
    """The windows differ by 5 dB, the models by 0.3 in each: of unpaired intervals, which overlap, it would be seen by none."""
    base = around(26.0, 5.0)
    promote(store, "model/d", publish(store, base), {"not_worse": [{"slack": 0.5}]})
    worse = publish(store, base - 0.3 + around(0.0, 0.05, seed=1))
    assert "on the same 24 windows: worse beyond chance" in str(seen(store, worse))
    elsewhere = publish(store, base - 0.3, clip="another")
    found = seen(store, elsewhere)
    assert found.passed
    assert "on other windows" in str(found)
    assert "worse" in str(seen(store, publish(store, base - 9.0, clip="another")))


def test_one_session_has_no_interval_and_counts_by_its_mean(store: Store) -> None:
    base = around(24.0, sessions=1)
    promote(store, "model/d", publish(store, base), GATE)
    assert seen(store, publish(store, base - 0.4)).passed
    found = seen(store, publish(store, base - 0.6))
    assert not found.passed
    assert "one session: no interval" in str(found)


def test_what_was_not_measured_or_cannot_be_read_passes_no_gate(store: Store) -> None:
    metrics, rows = judged(around(24.0))
    text = metrics.model_dump(mode="json")
    nothing = commit(store, json.dumps({**text, "subsets": {}}), rows)
    newer = commit(store, json.dumps({**text, "schema_version": 99}), rows)
    older = commit(store, json.dumps({**text, "schema_version": 1}), rows)
    with store.attempt("a" * 64) as attempt:
        (attempt.path / "card.json").write_text("{}")
        attempt.commit(stage="publish_model", kind="model")
    for key, words in ((nothing, "not measured"), (newer, "newer than"), ("a" * 64, "not made from an evaluation")):
        found = seen(store, key)
        assert not found.passed
        assert words in str(found)
    assert seen(store, older).passed, "what an older wfm measured is read"
    store.promote("model", "d", newer)
    assert "cannot be compared" in str(seen(store, older))
    store.invalidate(newer, "the lamp was wrong")
    assert seen(store, older).passed, "what does not count any more stands in nobody's way"


@pytest.mark.parametrize("column", ["video", "subsets", "session_id"])
def test_a_table_of_windows_of_another_time_is_held_against_by_its_means(store: Store, column: str) -> None:
    metrics, rows = judged(around(24.0))
    text = json.dumps(metrics.model_dump(mode="json"))
    other = commit(store, text, [{name: value for name, value in row.items() if name != column} for row in rows])
    store.promote("model", "d", other)
    found = seen(store, publish(store, around(24.1)))
    assert found.passed
    assert "on other windows" in str(found)


def test_a_name_that_cannot_be_read_lets_nobody_pass(store: Store, tmp_path: Path) -> None:
    old, better = (publish(store, around(mean)) for mean in (23.0, 24.0))
    promote(store, "model/d", old, GATE)
    (tmp_path / "store/refs/model/d/latest/00000002.json").write_text("{")
    promote(store, "model/d", better, GATE)
    assert store.resolve("model/d@candidate") == better
    store.promote("model", "d", better)
    assert latest(store) == better, "the way out"


class Interrupted(Names):
    """Another promotes between the judgement and the number."""

    def __init__(self, store: Store, other: str) -> None:
        super().__init__(store.objects)
        self._store, self._other = store, other

    def _take(self, promotion: Promotion) -> Promotion | None:
        if self._other:
            other, self._other = self._other, ""
            promote(self._store, "model/d", other, GATE)
        return super()._take(promotion)


class Hasty(Interrupted):
    """The same, and what was judged once counts for whatever number is free."""

    def promote_through(self, kind, name, key, judge, *, by=""):  # type: ignore[no-untyped-def]
        found = judge(self.latest(kind, name))
        if not found.passed:
            return self.promote(kind, name, "candidate", key, seen=found)
        return self.promote(kind, name, "latest", key, seen=found)


@pytest.mark.parametrize("first", ["better", "worse"])
@pytest.mark.parametrize("names", [Interrupted, Hasty])
def test_of_two_at_once_the_better_stays_whoever_comes_first(
    store: Store, names: type[Interrupted], first: str
) -> None:
    """B was judged against what was there before A; A slips in. It is judged again; the twin that does not do so is seen."""
    old, best, good = (publish(store, around(mean)) for mean in (22.0, 24.0, 23.0))
    promote(store, "model/d", old, GATE)
    slow, quick = (good, best) if first == "worse" else (best, good)
    store.names = names(store, quick)
    promote(store, "model/d", slow, GATE)
    store.names = Names(store.objects)
    assert (latest(store) == best) == (names is Interrupted or first == "better")
    if names is Interrupted:
        everyone = {one.key for alias in ("latest", "candidate") for one in store.names.history("model", "d", alias)}
        assert everyone == {old, best, good}, "none is lost"


def test_many_at_once_lose_none_and_end_with_the_best(store: Store) -> None:
    means = np.random.default_rng(3).permutation(np.arange(21.0, 33.0))
    keys = {publish(store, around(mean)): mean for mean in means}
    begin = threading.Barrier(len(keys))

    def one(key: str) -> None:
        begin.wait()
        promote(store, "model/d", key, GATE)

    threads = [threading.Thread(target=one, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = list(store.names.history("model", "d"))
    assert [one.number for one in history] == list(range(len(history), 0, -1))
    quality = [keys[one.key] for one in reversed(history)]
    assert quality == sorted(quality)
    assert quality[-1] == 32.0
    candidates = list(store.names.history("model", "d", "candidate"))
    assert {one.key for one in (*history, *candidates)} == set(keys)
