"""Samples that cannot be read: replaced by the order's rule, the same for all, counted, told, and too many of them refused."""

import json
import re

import pytest
import torch

from tests.wfm.data.loader.samples import ORDERS, Group, Row, clips, handed, images, packed, planned, rows_of
from tests.wfm.parallel.threads import in_threads
from wfm.data.loader import Loader, LoaderConfig
from wfm.data.loader.replaced import ROWS_AT_ONCE, Replaced
from wfm.errors import ConfigError, DataError


def replaced(order, damaged: set[int], steps: int) -> list[list[Row]]:
    """What the order says, and its stand-ins for `damaged` rows of clips."""
    found, state = [], order.start()
    for _ in range(steps):
        step, state = order.next(state)
        rows: list[Row] = []
        for pack in step.packs:
            for place, row in enumerate(rows_of(order, step.lane, pack)):
                attempt = 0
                while row[0] == "clips" and row[1] in damaged:
                    row = rows_of(order, step.lane, order.replace(step.lane, pack, place, attempt))[place]
                    attempt += 1
                rows.append(row)
        found.append(sorted(rows))
    return found


@pytest.mark.parametrize("mode", ORDERS)
def test_a_damaged_sample_in_any_place_has_the_same_stand_in_everywhere(mode):
    source = clips(size=200_000)
    order = ORDERS[mode]([source])
    for row in {row for _, row, _, _ in planned(order, 1)[0]}:
        source.damaged = {row}
        wanted = replaced(order, source.damaged, 2)
        assert wanted != planned(order, 2)
        for ranks, workers in ((1, 0), (1, 2), (2, 2)):
            group = Group([source], order, ranks, workers, skipped_count=9)
            assert [group.step() for _ in range(2)] == wanted, (row, ranks, workers)
            group.close()


def test_stand_ins_that_are_damaged_too_have_others_and_all_are_counted_and_told(caplog):
    source, other = clips(), images()
    order = packed([source, other])
    source.damaged = set(range(0, 40, 2))
    wanted = replaced(order, source.damaged, 3)
    group = Group([source, other], order, 1, 3, skipped_count=500)
    assert [group.step() for _ in range(3)] == wanted
    (loader,) = group.loaders
    tries = sum(source.begun.count(row) for row in source.damaged)
    assert 8 < loader.counters()["skipped"] <= len(source.damaged) < tries, "each once, when it is handed out"
    assert set(loader.skipped) == {("clips", "DataError")}
    told = [record.message for record in caplog.records]
    assert len(told) == 8, "one by one at first, then every hundredth"
    assert told[0].startswith("step 0: sample clips-")
    assert told[7].endswith("another takes its place (8 so far)")
    group.close()


def test_reasons_are_told_apart():
    source = clips()

    class Truncated(DataError):
        code = "truncated"

    def before(row: int) -> None:
        if row % 5 == 0:
            raise Truncated("half of it")

    source.before, source.damaged = before, {1, 2}
    with Loader(source, packed([source]), LoaderConfig(skipped_count=500)) as loader:
        for _ in range(4):
            loader.next()
        assert set(loader.skipped) == {("clips", "truncated"), ("clips", "DataError")}


@pytest.mark.parametrize("workers", [0, 3])
def test_too_many_end_the_run_at_the_same_step_and_name_the_first(workers):
    source = clips(count=400)
    order = packed([source])
    steps = planned(order, 3)
    met = [{row for _, row, _, _ in step} for step in steps]
    source.damaged = {*sorted(met[0])[:2], *sorted(met[2] - met[1] - met[0])[:1]}
    assert len(source.damaged) == 3
    with Loader(source, order, LoaderConfig(workers=workers, skipped_count=2, skipped_share=0)) as loader:
        alone = Loader(source, order, LoaderConfig(workers=0, skipped_count=10**6))
        while alone.next() and alone.skipped.total() <= 2:
            assert loader.next()
        with pytest.raises(DataError, match=r"3 of \d+ samples could not be read, at most 2 may be replaced") as caught:
            loader.next()
        words = str(caught.value)
        assert words.count("the bytes are others") == 3, "each sample once, however often it was drawn"
        assert sum(map(int, re.findall(r"\((\d+) times\)", words))) >= 3
        assert "and others" not in words
    with Loader(source, order, LoaderConfig(workers=workers, skipped_count=0, skipped_share=1)) as loader:
        assert [loader.next() for _ in range(3)]


@pytest.mark.parametrize("mode", ORDERS)
@pytest.mark.parametrize("most", [3, 10**6])
def test_where_all_are_damaged_nothing_is_handed_out(mode, most):
    source = clips()
    source.damaged = set(range(40))
    wanted = pytest.raises(DataError, match="nor could any of 16 samples that were to take its place be read")
    with Loader(source, ORDERS[mode]([source]), LoaderConfig(workers=2, skipped_count=most)) as loader, wanted:
        loader.next()


def test_a_rank_that_only_stands_in_counts_nothing():
    source = clips()
    order = ORDERS["bucketed"]([source])
    source.damaged = {row for step in planned(order, 8) for _, row, _, _ in step}
    source.damaged -= {row for row in source.damaged if row % 3}
    group = Group([source], order, 8, 0, skipped_count=10**6)
    for _ in range(8):
        group.step()
    counts = [loader.counters() for loader in group.loaders]
    alone = Group([source], order, 1, 0, skipped_count=10**6)
    for _ in range(8):
        alone.step()
    whole = alone.loaders[0].counters()
    for name in ("samples", "bytes"):
        assert sum(each[name] for each in counts) == whole[name] > 0
    assert set().union(*(each.replaced for each in group.loaders)) == set(alone.loaders[0].replaced)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_of_another_shape_than_its_length_says_is_damaged(workers):
    source, lying = clips(), clips()
    order = packed([source])
    row = planned(order, 1)[0][0][1]
    lying.read = lambda at: {"latents": torch.zeros(2, 9, 2, 2)} if at == row else source.read(at)  # type: ignore[method-assign]
    with Loader(lying, order, LoaderConfig(workers=workers)) as loader:
        assert sorted(handed(loader.next())) == replaced(order, {row}, 1)[0]
        assert loader.skipped.total()


class AtOnce:
    """Samples that read several at once."""

    def __init__(self) -> None:
        self.held = clips()
        self.ids, self.shapes, self.sizes, self.identity = (
            self.held.ids, self.held.shapes, self.held.sizes, self.held.identity,
        )  # fmt: skip
        self.read, self.calls = self.held.read, 0

    def read_many(self, rows):
        self.calls += 1
        return [self.held.read(row) for row in rows]


def test_samples_that_are_read_many_at_once_are_the_same():
    source = AtOnce()
    order = packed([source.held])
    for damaged in (set(), {row for _, row, _, _ in planned(order, 1)[0][:2]}):
        source.held.damaged = damaged
        with Loader({"clips": source}, order, LoaderConfig(workers=2)) as loader:
            assert [sorted(handed(loader.next())) for _ in range(3)] == replaced(order, damaged, 3)
        assert source.calls >= 3


@pytest.mark.parametrize("mode", ORDERS)
def test_what_was_replaced_is_part_of_the_state_and_of_all_ranks(mode):
    source = clips(count=400)
    order = ORDERS[mode]([source])
    source.damaged = set(range(0, 400, 4))
    alone, group = (Group([source], order, ranks, 0, skipped_count=999) for ranks in (1, 2))
    for _ in range(3):
        assert alone.step() == group.step()
    known = [set(each.replaced) for each in group.loaders]
    assert known[0] != known[1], "each met its own"
    state = json.loads(json.dumps(group.state()))
    assert state == json.loads(json.dumps(alone.state()))
    assert state["replaced"]["drawn"] > 0
    for ranks in (1, 2, 4 if mode == "packed" else 3):  # goes on with any number, with the counts of before
        other = Group([source], order, ranks, 0, skipped_count=len(known[0] | known[1]), skipped_share=0)
        for each in other.loaders:
            each.restore(state)
            assert set(each.replaced) == known[0] | known[1]
            assert json.loads(json.dumps(each.state())) == state
        source.damaged = {row for _, row, _ in known[0] | known[1]}
        for _ in range(12):
            other.step()  # the same ones again, in later epochs: no further sample
        source.damaged = set(range(400))
        with pytest.raises(DataError, match=r"at most|nor could any"):
            other.step()
        source.damaged = set(range(0, 400, 4))


def test_a_resume_has_no_cap_of_its_own():
    source = clips(count=400)
    order = packed([source])
    source.damaged = {row for step in planned(order, 1) for _, row, _, _ in step[:4]}
    config = LoaderConfig(workers=0, skipped_count=6, skipped_share=0)
    with Loader(source, order, config) as first, Loader(source, order, config) as second:
        first.next()
        state, met = first.state(), set(first.replaced)
        assert 4 <= len(met) <= 6
        second.restore(state)
        source.damaged = {row for _, row, _, _ in planned(order, 2)[1]} - {row for _, row, _ in met}
        source.damaged = set(sorted(source.damaged)[: 7 - len(met)])
        with pytest.raises(DataError, match=r"7 of \d+ samples could not be read, at most 6 may be replaced"):
            second.next()
        assert second.state() != state or len(second.replaced) > len(met)


def test_the_share_is_of_samples_and_not_of_draws():
    source = clips(count=40)
    order = packed([source])
    with Loader(source, order, LoaderConfig(workers=0, skipped_count=0, skipped_share=0.05)) as loader:
        while loader.replaced.drawn < 200:
            loader.next()
        source.damaged = {1, 2, 3}  # 3 of 40; of 200 draws it would be less than the twentieth
        while len(loader.replaced) < 2:
            loader.next()
        with pytest.raises(DataError, match=r"3 of 40 samples could not be read, at most 2 may be replaced"):
            all(iter(loader.next, None))


def test_a_state_from_before_these_were_kept_is_read_and_a_damaged_one_refused():
    source = clips()
    order = packed([source])
    with Loader(source, order, LoaderConfig(workers=0)) as loader:
        loader.next()
        state = loader.state()
        before = {name: value for name, value in state.items() if name != "replaced"}
        loader.restore(before)
        assert loader.state() == {**before, "replaced": {"drawn": 0, "rows": {}}}
        for wrong in (7, {"drawn": -1, "rows": {}}, {"drawn": 1, "rows": {"clips": {"x": [40]}}},
                      {"drawn": 1, "rows": {"others": {"x": [1]}}}, {"drawn": 1, "rows": {"clips": {"x": ["1"]}}}):  # fmt: skip
            with pytest.raises(DataError, match="state of the loader is damaged"):
                loader.restore({**state, "replaced": wrong})


def test_many_are_told_in_pieces(monkeypatch):
    monkeypatch.setattr("wfm.data.loader.replaced.ROWS_AT_ONCE", 7)
    one, other = Replaced(), Replaced()
    for row in range(20):
        assert one.add("clips", row, "torn")
        assert not one.add("clips", row, "worn")
    pieces = one.news()
    assert [len(piece) for piece in pieces] == [7, 7, 6]
    for piece in pieces:
        other.learn(json.loads(json.dumps(piece)))
    assert other.save() == one.save()
    assert other.by_reason() == {("clips", "torn"): 20}


def test_a_whole_piece_is_small_enough_to_be_told():
    """Of rows beyond 32 bits, with a reason of the longest kind; ten times as many are refused by the ranks."""
    found = Replaced()
    for row in range(ROWS_AT_ONCE):
        found.add("latents_of_something", 10**10 + row, "NotAFrameThatCanBeReadError")
    piece, *more = found.news()
    assert not more
    assert in_threads(2, lambda ranks: len(ranks.gather(piece)[1])) == [ROWS_AT_ONCE] * 2
    assert all(isinstance(error, ConfigError) for error in in_threads(2, lambda ranks: ranks.gather(piece * 10)))


def test_of_two_reasons_the_same_stays_on_every_rank():
    """Each rank met the row for a reason of its own."""
    one, other = Replaced(), Replaced()
    assert one.add("clips", 3, "truncated")
    assert other.add("clips", 3, "checksum")
    for mine, theirs in ((one.news(), other), (other.news(), one)):
        for piece in mine:
            theirs.learn(piece)
    assert one.save() == other.save() == {"drawn": 0, "rows": {"clips": {"checksum": [3]}}}
    assert not one.add("clips", 3, "bad header"), "no further sample"
    assert one.news() == [[("clips", 3, "bad header")]], "and the others are told"
    assert not one.add("clips", 3, "truncated")
    assert one.news() == []
