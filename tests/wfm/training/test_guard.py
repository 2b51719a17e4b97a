"""The guard: what it calls a spike, and that a batch it leaves out leaves no trace, on any number of ranks."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.wfm.parallel.threads import in_threads
from tests.wfm.training.rank_runs import BATCH, Run, drawn, planted, run
from tests.wfm.training.rank_runs import PLANTED as AT
from tests.wfm.training.rank_runs import STRICT as GUARD
from wfm.data.order import Phase, Phases, one_shape
from wfm.errors import Cancelled, ConfigError, DataError, exit_code_of, outcome_of
from wfm.models.folder import load_tensors
from wfm.parallel.ranks import ALONE, Ranks
from wfm.training.config import TrainingConfig
from wfm.training.divergence import TrainingDiverged
from wfm.training.guard import Buffers, Guard, kind_of
from wfm.training.guard_config import GuardConfig
from wfm.training.metrics import read_curve


def notes(scratch: Path) -> list[dict]:
    return [point["left_out"] for point in read_curve(scratch / "metrics.jsonl") if "left_out" in point]


def lines(scratch: Path) -> list[str]:
    return [line for line in (scratch / "metrics.jsonl").read_text().splitlines() if "left_out" not in line]


def same_files(one: Path, two: Path) -> bool:
    """Whether weights, averages and optimisers of two folders' last checkpoints are the same bits."""
    mine, theirs = (sorted(folder.glob("checkpoint-*"))[-1] for folder in (one, two))
    names = sorted(path.name for path in mine.glob("*.safetensors"))
    assert names == sorted(path.name for path in theirs.glob("*.safetensors"))
    assert mine.name == theirs.name
    return all((mine / name).read_bytes() == (theirs / name).read_bytes() for name in names)


@pytest.mark.parametrize("name", ["diffusion", "adversarial"])
def test_a_spike_and_a_nan_on_one_rank_of_two_leave_no_trace(tmp_path, name):
    spoilt, without = tmp_path / "spoilt", tmp_path / "without"
    ends = in_threads(2, lambda ranks: run(name, spoilt, ranks, change=planted(ranks), guard=GUARD))
    twins = in_threads(2, lambda ranks: run(name, without, ranks, omitted=AT, guard=GUARD))
    assert [type(end).__name__ for end in (*ends, *twins)] == ["Done"] * 4, (ends, twins)
    for end, twin in zip(ends, twins, strict=True):
        assert all(torch.equal(end.weights()[key], value) for key, value in twin.weights().items())
    assert same_files(spoilt, without)
    assert lines(spoilt) == lines(without)
    assert len(lines(spoilt)) == 20
    # step 10 was batch 9; then the order is one ahead, and batch 13 was to be step 13
    for told in (notes(spoilt), ends[0].result.left_out, ends[1].result.left_out):
        assert [(one["step"], one["batch"], one["reason"]) for one in told] == [
            (10, 9, "spike"),
            (13, 13, "not_finite"),
        ]
        assert [one["count"] for one in told] == [6, 6]
        assert told[1]["loss"] == "nan"
    named = notes(spoilt)[0]["samples"]
    assert {sample[0] for sample in named} == {"samples"}
    assert sorted(seed for _, _, seed in named) == sorted(seed for end in ends for seed in end.seen[9])
    assert twins[0].result.left_out == []


def test_without_a_guard_the_spike_is_learned_and_ends_elsewhere(tmp_path):
    """The broken twin of the test above."""
    spoilt, without = tmp_path / "spoilt", tmp_path / "without"
    in_threads(2, lambda ranks: run("diffusion", spoilt, ranks, change=planted(ranks, {9: 1e4})))
    in_threads(2, lambda ranks: run("diffusion", without, ranks, omitted={9}))
    assert not same_files(spoilt, without)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("whole")
    return scratch, run("tokenizer", scratch, change=planted(ALONE, rank=0), guard=GUARD)


@pytest.mark.parametrize("stop", [10, 15])
def test_a_run_that_is_stopped_around_a_batch_left_out_goes_on_as_it_would_have(tmp_path, whole, stop):
    """In the middle of its step, and behind both."""
    asked = iter(range(100))
    change = planted(ALONE, rank=0)
    with pytest.raises(Cancelled):
        run("tokenizer", tmp_path, change=change, guard=GUARD, stopping=lambda: next(asked) == stop)
    # its calls are counted from 0 again
    later = {number - stop: factor for number, factor in AT.items() if number >= stop}
    parts = run("tokenizer", tmp_path, change=planted(ALONE, later, 0), guard=GUARD)
    assert parts.result.resumed_from == stop - (1 if stop == 10 else 2)
    assert same_files(whole[0], tmp_path)
    assert (whole[0] / "metrics.jsonl").read_bytes() == (tmp_path / "metrics.jsonl").read_bytes()
    assert parts.result.left_out == whole[1].result.left_out
    assert len(parts.result.left_out) == 2


def test_too_many_end_the_run_and_another_try_would_not_help(tmp_path):
    at = dict.fromkeys((9, 11, 12, 14), math.inf)
    with pytest.raises(
        TrainingDiverged, match=r"4 batches had to be left out \(not_finite 4; .*most_left_out"
    ) as found:
        run("tokenizer", tmp_path, change=planted(ALONE, at, 0), guard=GUARD)
    assert outcome_of(found.value) == "wrong_input"
    assert exit_code_of(outcome_of(found.value)) == 78
    assert len(notes(tmp_path)) == 3


def test_the_rank_that_was_fine_ends_alike(tmp_path):
    at = dict.fromkeys(range(5, 10), math.nan)
    ends = in_threads(2, lambda ranks: run("tokenizer", tmp_path, ranks, change=planted(ranks, at), guard=GUARD))
    assert [type(end) for end in ends] == [TrainingDiverged] * 2
    assert str(ends[0]) == str(ends[1])


class Counting(nn.Module):
    """Its running mean is that of every batch it has seen in training."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 1)
        self.register_buffer("seen", torch.zeros(4))
        self.register_buffer("number", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.seen.data.lerp_(x.mean(0), 0.1)
            self.number = self.number + 1  # another tensor
        return self.inner(x - self.seen)


class Fit:
    def loss(self, model, batch, step):
        return (model(batch["x"])[:, 0] - batch["x"].sum(-1)).square().mean(), {}


def counting(scratch, **values):
    torch.manual_seed(0)
    made = Run(Counting().double(), Fit(), {"x": drawn(11, 4)})
    return run("", scratch, made=made, guard=GUARD, **values).model


def test_what_a_forward_pass_changed_is_taken_back(tmp_path, monkeypatch):
    spoilt = counting(tmp_path / "spoilt", change=planted(ALONE, rank=0))
    without = counting(tmp_path / "without", omitted=AT)
    assert all(torch.equal(one, spoilt.state_dict()[name]) for name, one in without.state_dict().items())
    assert float(spoilt.number) == 20
    monkeypatch.setattr(Buffers, "put_back", lambda self: None)  # the broken twin
    left = counting(tmp_path / "left", change=planted(ALONE, rank=0))
    assert float(left.number) == 22
    assert not torch.equal(left.seen, without.seen)


def test_phases_have_a_batch_in_the_place_of_each_that_is_left_out(tmp_path):
    """Of a recipe whose phases are as long as the run; the order used to be over one step before its end."""
    ids = [f"s{number}" for number in range(11)]
    orders = [Phases([Phase(one_shape(ids, BATCH, 3), 12), Phase(one_shape(ids, BATCH, 4), steps)]) for steps in (8, 0)]
    at = {4: math.nan, 19: math.nan}  # a batch of the first phase, and the last of all
    spoilt = counting(tmp_path / "spoilt", change=planted(ALONE, at, 0), order=orders[0])
    without = counting(tmp_path / "without", omitted=set(at), order=orders[1])
    assert all(torch.equal(one, spoilt.state_dict()[name]) for name, one in without.state_dict().items())
    assert [(one["step"], one["batch"]) for one in notes(tmp_path / "spoilt")] == [(5, 4), (19, 19)]


def judged(norms, guard=None, kind="video"):
    """Which of some steps are left out."""
    guard = guard or Guard(GuardConfig(most_left_out=9, least_steps=3, window=5, spike_ratio=4.0))
    return [place for place, norm in enumerate(norms) if guard.judge(kind, {"": (0.0, norm)}) is not None]


def test_a_spike_is_so_many_times_the_median_of_steps_that_were_taken():
    assert judged([1, 1, 1, 4.0, 4.1]) == [4]
    assert judged([1, 1, 100, 1]) == []  # too few were known
    assert judged([9, 9, 9, 1, 1, 1, 1, 5]) == [7]  # the first three have left the window of five
    # neither do spikes enter, nor is the median drawn up by the large ones that did: a mean would take the last
    assert judged([1, 1, 1, 3.9, 3.9, 50, 4.5]) == [5, 6]
    assert sum([1, 1, 1, 3.9, 3.9]) / 5 * 4 > 4.5
    assert judged([1, 1, 1, math.nan, math.inf, -math.inf, 1]) == [3, 4, 5]


def test_images_are_compared_with_images_and_the_second_player_with_itself():
    guard = Guard(GuardConfig(most_left_out=9, least_steps=3, spike_ratio=4.0))
    for _ in range(4):
        assert guard.judge("image", {"": (0.0, 10.0)}) is None
        assert guard.judge("video", {"": (0.0, 1.0), "second player": (0.0, 0.1)}) is None
    assert guard.judge("image", {"": (0.0, 12.0)}) is None
    verdict = guard.judge("video", {"": (0.0, 1.0), "second player": (0.0, 0.5)})
    assert (verdict.reason, verdict.player, verdict.median) == ("spike", "second player", 0.1)
    again = Guard(guard.config)
    again.restore(json.loads(json.dumps(guard.state())))
    assert again.state() == guard.state()
    assert str(again.judge("video", {"": (2.0, 12.0)})) == "loss 2 and gradient norm 12, 12 times the median"


def test_a_ratio_of_0_calls_nothing_a_spike_and_a_damaged_state_is_refused():
    guard = Guard(GuardConfig(most_left_out=1, spike_ratio=0.0, least_steps=1))
    assert judged([1, 1e9, math.nan], guard) == [2]
    with pytest.raises(DataError, match="guard"):
        guard.restore({"left": [{"step": 1}]})


def test_kinds():
    video, image = torch.zeros(2, 3, 4, 5, 5), torch.zeros(2, 3, 1, 5, 5)
    assert kind_of(None, {"latents": video}, 0) == "video"
    assert kind_of(None, {"latents": image}, 0) == kind_of(None, {"tokens": torch.zeros(2, 1, 5, 5)}, 0) == "image"
    assert kind_of(None, {"x": image}, 0) == ""


def test_a_guard_that_is_off_changes_no_key():
    assert "guard" not in TrainingConfig().what()
    assert TrainingConfig.parse({"guard": {"most_left_out": 2}}).what()["guard"]["most_left_out"] == 2


def test_ranks_alone_name_their_own(tmp_path):
    done = run("tokenizer", tmp_path, change=planted(Ranks(0, 1), {5: math.nan}, 0), guard=GUARD)
    (left,) = done.result.left_out
    assert sorted(sample[1] for sample in left["samples"]) == sorted({sample[1] for sample in left["samples"]})
    assert {sample[2] for sample in left["samples"]} == set(done.seen[5])
    assert load_tensors(tmp_path / "checkpoint-00000020/model.safetensors")


def test_a_window_in_which_no_spike_could_be_seen_is_refused():
    with pytest.raises(ConfigError, match="window is 8 and least_steps 16"):
        GuardConfig.parse({"window": 8})
    assert GuardConfig.parse({"window": 8, "spike_ratio": 0}).window == 8
