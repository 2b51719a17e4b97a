"""Ranks: the same answers on all, means over unequal shares, and words for every way of not being together."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.wfm.parallel.lost_ranks import HOW, SECONDS
from tests.wfm.parallel.threads import in_threads
from wfm.errors import Cancelled, ConfigError, TryAgain, WfmError
from wfm.parallel import ranks as module
from wfm.parallel.ranks import ALONE, RankLost, RanksDiffer, join

ROOT = Path(__file__).parents[3]


def test_the_twin_of_one_process_answers_for_itself():
    assert (ALONE.rank, ALONE.size, ALONE.leads, ALONE.share) == (0, 1, True, 1.0)
    assert [ALONE.any(True), ALONE.any(False), ALONE.all(True), ALONE.all(False)] == [True, False, True, False]
    assert ALONE.any_of(True, False) == (True, False)
    value = object()  # not even JSON: nothing travels
    assert ALONE.broadcast(value) is value
    assert ALONE.gather(value) == [value]
    model = nn.Linear(2, 1)
    loss = model(torch.ones(1, 2)).sum()
    loss.backward()
    before = model.weight.grad.clone()
    ALONE.add_up(model, loss.detach())
    assert ALONE.total({"tokens": 3.0}) == {"tokens": 3.0}
    assert torch.equal(model.weight.grad, before)
    ALONE.begin_alike(nn.BatchNorm1d(3))  # its statistics are those of the batch
    ALONE.require_alike(model, label="x")
    ALONE.barrier("x")
    with pytest.raises(KeyError), ALONE.telling():
        raise KeyError("own")


def test_torch_is_loaded_by_those_who_bring_tensors_alone():
    told = "import sys, wfm.parallel.ranks as r; r.join(environment={}).any(True); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_all_hear_the_same():
    def work(ranks):
        ranks.share = ranks.rank / 6
        return [
            ranks.mean(float(ranks.rank)), ranks.any(ranks.rank == 2), ranks.any(False), ranks.all(ranks.rank < 9),
            ranks.all(ranks.rank == 2), ranks.any_of(ranks.rank == 0, False, ranks.rank == 3),
            ranks.broadcast({"step": ranks.rank}), ranks.gather([ranks.rank, "ä"]), ranks.broadcast(None),
        ]  # fmt: skip

    wanted = [True, False, True, False, (True, False, True), {"step": 0}, [[i, "ä"] for i in range(4)], None]
    for mean, *found in in_threads(4, work):
        assert found == wanted
        assert mean == pytest.approx(14 / 6)


def test_counts_add_up_by_name_and_other_names_are_heard():
    def work(ranks):
        counts = {f"term{place}": float(place * 10**ranks.rank) for place in range(5)}  # more than a row holds
        return ranks.total(counts)

    assert in_threads(3, work) == [{f"term{place}": 111.0 * place for place in range(5)}] * 3
    for error in in_threads(2, lambda ranks: ranks.total({f"of{ranks.rank}": 1.0}, "how many")):
        assert isinstance(error, RanksDiffer)
        assert "rank 0 at 'how many: of0', rank 1 at 'how many: of1'" in str(error)


def test_a_value_that_is_data_is_refused():
    for found in in_threads(2, lambda ranks: ranks.gather("x" * 2**21, "names")):
        assert isinstance(found, ConfigError)
        assert "names: 2097154 bytes" in str(found)


def test_a_text_of_any_length_reaches_all():
    """As a checkpoint's record may be with the open packs of an order: it was refused above the bound of a decision."""
    text = "ä{" * 2**18
    assert len(json.dumps(text)) > module.MOST_BYTES
    assert [
        found == text for found in in_threads(3, lambda ranks: ranks.broadcast_text(text if ranks.leads else ""))
    ] == [True] * 3
    assert ALONE.broadcast_text(text) == text
    assert in_threads(2, lambda ranks: ranks.broadcast_text("")) == ["", ""]
    before = in_threads(2, lambda ranks: ranks.broadcast(text), seconds=1.0)[0]  # the other waits for it
    assert isinstance(before, ConfigError)


class Three(nn.Module):
    """Two layers that learn and one that does not, in two types."""

    def __init__(self):
        super().__init__()
        self.first, self.fixed, self.single = nn.Linear(3, 2).double(), nn.Linear(2, 2), nn.Linear(3, 2).float()
        self.fixed.requires_grad_(False)


@pytest.mark.parametrize("bucket", [1, 40, 2**20])
def test_gradients_add_up_and_missing_ones_count_as_0(monkeypatch, bucket):
    monkeypatch.setattr(module, "BUCKET_BYTES", bucket)

    def work(ranks):
        model = Three()
        for number, parameter in enumerate(model.first.parameters(), 1):
            parameter.grad = torch.full_like(parameter, number * 10.0**ranks.rank)
        if ranks.rank == 1:
            model.single.weight.grad = torch.ones_like(model.single.weight)
        model.fixed.weight.grad = torch.full_like(model.fixed.weight, float(ranks.rank))
        loss = torch.tensor(float(ranks.rank), dtype=torch.float64)
        ranks.add_up(model, loss)
        return model, float(loss)

    ends = in_threads(3, work)
    for rank, (model, loss) in enumerate(ends):
        assert loss == 3
        assert torch.allclose(model.first.weight.grad, torch.tensor(111.0, dtype=torch.float64))
        assert torch.allclose(model.first.bias.grad, torch.tensor(222.0, dtype=torch.float64))
        assert torch.allclose(model.single.weight.grad, torch.tensor(1.0))
        assert model.single.bias.grad is None  # nobody has one
        assert torch.equal(model.fixed.weight.grad, torch.full((2, 2), float(rank)))  # frozen: left alone
        assert torch.equal(model.first.weight.grad, ends[0][0].first.weight.grad)


def test_a_norm_over_the_whole_batch():
    whole = torch.arange(1.0, 8)

    def work(ranks):
        mine = whole[ranks.rank :: 3]
        ranks.share = len(mine) / 7
        return ranks.norm(mine * 7 / len(mine) / 7)  # the gradient of a mean over the share

    for found in in_threads(3, work):
        assert float(found) == pytest.approx(float((whole / 7).norm()))


def test_what_is_not_finite_stays_so_on_all():
    """A loss of infinity on one rank and minus infinity on another, a norm whose square is beyond fp64."""

    def work(ranks):
        ranks.share = 0.5
        infinite = torch.tensor((math.inf, -math.inf)[ranks.rank])
        ranks.add_up(nn.Linear(1, 1), infinite)
        return float(infinite), float(ranks.norm(torch.tensor([1e200], dtype=torch.float64)))

    for loss, norm in in_threads(2, work):
        assert math.isnan(loss)
        assert norm == math.inf


def test_all_begin_with_the_weights_of_rank_0():
    def work(ranks):
        model = nn.Sequential(nn.Linear(2, 2), nn.GroupNorm(1, 2))
        model.register_buffer("steps", torch.tensor([ranks.rank]))
        nn.init.constant_(model[0].weight, float(ranks.rank))
        ranks.begin_alike(model)
        ranks.require_alike(model, label="begin")
        model.steps += ranks.rank == 1
        try:
            ranks.require_alike(model, label="later")
        except RanksDiffer as error:
            return model[0].weight.detach().clone(), str(error)

    for weight, words in in_threads(3, work):
        assert torch.equal(weight, torch.zeros(2, 2))
        assert words.startswith("later: rank 1 of 3 holds other weights than rank 0")


@pytest.mark.parametrize("layer", [nn.BatchNorm3d(4), nn.InstanceNorm2d(4, track_running_stats=True)])
def test_statistics_of_a_share_are_refused(layer):
    for found in in_threads(2, lambda ranks: ranks.begin_alike(nn.Sequential(nn.Linear(2, 2), layer))):
        assert isinstance(found, ConfigError)
        assert "layer '1' is a" in str(found)


def test_models_of_different_sizes_are_refused():
    for found in in_threads(2, lambda ranks: ranks.begin_alike(nn.Linear(2, 2 + ranks.rank))):
        assert isinstance(found, RanksDiffer)
        assert str(found) == "the model's size is 6 on rank 0 and 9 on rank 1 of 2"


def test_ranks_at_different_places_say_so_and_take_no_answer_for_another():
    found = in_threads(3, lambda ranks: ranks.any(True, "stop") if ranks.rank == 1 else ranks.all(True, "save"))
    for error in found:
        assert isinstance(error, RanksDiffer)
        assert "rank 0 at 'save', rank 1 at 'stop', rank 2 at 'save'" in str(error)


def test_a_rank_that_is_a_call_ahead_says_so():
    def work(ranks):
        for _ in range(1 + ranks.rank):
            ranks.any(True, "stop")
        ranks.any(True, "save" if ranks.rank == 0 else "stop")
        ranks.barrier("end")

    assert all(isinstance(error, WfmError) for error in in_threads(2, work))


@pytest.mark.parametrize("call", ["any", "gather", "add_up", "total", "barrier", "require_alike"])
def test_what_failed_on_one_rank_is_heard_wherever_the_others_are(call):
    model = nn.Linear(2, 1)
    calls = {
        "any": lambda ranks: ranks.any(False), "gather": lambda ranks: ranks.gather(1),
        "add_up": lambda ranks: ranks.add_up(model), "total": lambda ranks: ranks.total({"tokens": 1.0}),
        "barrier": lambda ranks: ranks.barrier("end"),
        "require_alike": lambda ranks: ranks.require_alike(model, label="weights"),
    }  # fmt: skip

    def work(ranks):
        with ranks.telling(), ranks.telling():  # within each other, as a stage's and the loop's
            if ranks.rank == 1:
                raise TryAgain("the network is down\nfor now")
            calls[call](ranks)

    ends = in_threads(3, work)
    assert str(ends[1]) == "the network is down\nfor now"
    for error in (ends[0], ends[2]):
        assert type(error) is TryAgain
        assert str(error) == "rank 1 of 3: TryAgain: the network is down\nfor now"


def test_two_that_fail_at_once_keep_their_own_words():
    def work(ranks):
        with ranks.telling():
            if ranks.rank:
                raise Cancelled("asked to stop") if ranks.rank == 1 else ValueError("no")
            ranks.barrier("end")

    ends = in_threads(3, work)
    assert [type(end) for end in ends] == [Cancelled, Cancelled, ValueError]
    assert str(ends[0]) == "rank 1 of 3: Cancelled: asked to stop"


def test_ranks_that_have_parted_are_asked_nothing_more():
    def work(ranks):
        with pytest.raises(WfmError):
            ranks.any(True, f"place {ranks.rank}")
        ranks.any(True, "again")

    assert all(isinstance(end, RankLost) for end in in_threads(2, work))


WHOLE = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    "change",
    [{"RANK": "2"}, {"RANK": "-1"}, {"RANK": ""}, {"WORLD_SIZE": "x"}, {"WORLD_SIZE": "1"}, {"MASTER_ADDR": ""},
     {"MASTER_PORT": "http"}],
    ids=str,
)  # fmt: skip
def test_an_environment_that_names_no_rank_is_refused(change):
    with pytest.raises(ConfigError, match=f"{next(iter(change))}='{next(iter(change.values()))}'"):
        join(environment={**WHOLE, **change})


def test_one_process_is_alone():
    assert join(environment={}) is ALONE
    assert join(environment={"RANK": "0", "WORLD_SIZE": "1"}) is ALONE


@pytest.fixture(scope="module")
def lost(tmp_path_factory):
    out = tmp_path_factory.mktemp("lost")
    done = subprocess.run(
        [sys.executable, "-m", "tests.wfm.parallel.lost_ranks", str(out)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return out


@pytest.mark.parametrize("how", HOW)
def test_a_rank_that_is_gone_ends_the_others_as_try_again(lost, how):
    told = json.loads((lost / f"{how}.json").read_text())
    assert told["seconds"] < 3 * SECONDS + 10
    assert (how == "SIGSTOP") == (told["seconds"] > SECONDS * 0.9), told  # the others are seen at once
    assert told["words"].startswith("rank 0 of 2, at 'step 5': another rank died, or has been silent for 4 s")
    assert RankLost.outcome == "try_again"


def test_ranks_that_do_not_come_are_lost(unused_port):
    with pytest.raises(RankLost, match=r"rank 1 of 2 did not meet the others at 127\.0\.0\.1"):
        join(2.0, {**WHOLE, "MASTER_PORT": str(unused_port)})


@pytest.fixture
def unused_port(monkeypatch):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    return port
