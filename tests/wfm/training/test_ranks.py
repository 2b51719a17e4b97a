"""Training over ranks: the weights of one process, the same batches, and one end for all.

Weights are compared in fp64 after 20 steps. Worst difference measured: 3e-12 (tokenizers), 6e-14 (the others); ranks that
weigh unequal shares alike differ by 1e-3 and more.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.wfm.parallel.threads import in_threads
from tests.wfm.training.rank_runs import (
    BATCH,
    Done,
    Watched,
    adversarial,
    counted,
    hash_of_batches,
    run,
    whole_batches,
    worst,
)
from tests.wfm.training.ranks_of_training import BEGUN_BY_ONE, EXACT, STOPPED_AT, Spoilt
from tests.wfm.training.whole_fit import fit, make_latents
from wfm.artifacts import Store
from wfm.artifacts.checkpoint_record import read_folder
from wfm.errors import Cancelled, DataError, InputError, Outcome, TryAgain, WfmError
from wfm.models.folder import load_tensors
from wfm.parallel import ranks as ranks_module
from wfm.parallel.ranks import ALONE, Ranks, RanksDiffer
from wfm.training.divergence import TrainingDiverged
from wfm.training.metrics import read_curve

ROOT = Path(__file__).parents[3]
BOUND = 1e-8


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process makes of a run, made once."""
    made: dict[str, tuple[Done, Path]] = {}

    def of(name: str) -> tuple[Done, Path]:
        if name not in made:
            scratch = tmp_path_factory.mktemp(name)
            made[name] = run(name, scratch), scratch
        return made[name]

    return of


def stopped_after(steps: int, scratch: Path) -> None:
    asked = iter(range(100))
    with pytest.raises(Cancelled):
        run("diffusion", scratch, stopping=lambda: next(asked) == steps)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What two and four processes made of them: folders, and what each rank told."""
    out = tmp_path_factory.mktemp("processes")
    stopped_after(BEGUN_BY_ONE, out / "2" / "begun_by_one")
    make_latents(Store.open(out / "store"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.wfm.training.ranks_of_training", str(out)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    told = {size: [json.loads((out / f"{size}/rank{rank}.json").read_text()) for rank in range(size)] for size in EXACT}
    return out, told


@pytest.mark.parametrize(("size", "name"), [(size, name) for size, names in EXACT.items() for name in names])
def test_processes_end_with_the_weights_of_one(processes, alone, size, name):
    out, told = processes
    one, scratch = alone(name)
    assert worst(load_tensors(out / f"{size}/{name}.safetensors"), one.weights()) < BOUND
    batches = whole_batches([rank[name]["seen"] for rank in told[size]])
    assert hash_of_batches(batches) == hash_of_batches(whole_batches([one.seen]))
    assert all(rank[name]["final"] == {"rank": 0.0} for rank in told[size])  # what rank 0 found, everywhere
    same_curves(out / f"{size}/{name}/metrics.jsonl", scratch / "metrics.jsonl")


def test_a_world_model_fitted_by_two_processes_is_that_of_one_and_rank_0_alone_writes(processes, tmp_path):
    out, told = processes
    one = fit(Store.open(out / "store"), tmp_path / "out", tmp_path / "scratch")
    theirs, mine = out / "2/fit0/out", tmp_path / "out"
    assert not [path for path in (out / "2/fit1").rglob("*") if path.is_file()], (
        "it would have, with a whole run of its own"
    )
    weights = [load_tensors(folder / "model/model.safetensors") for folder in (theirs, mine)]
    assert worst(*weights) < BOUND
    cards = [json.loads((folder / "model/config.json").read_text()) for folder in (theirs, mine)]
    found = [card["extra"].pop("validation") for card in cards]
    assert cards[0] == cards[1]
    for done in (*found, *(rank["fit"]["validation"] for rank in told[2])):
        assert done == pytest.approx(one["validation"], rel=1e-9)
    same_curves(theirs / "metrics.jsonl", mine / "metrics.jsonl", steps=12)


def same_curves(one: Path, two: Path, steps: int = 20) -> None:
    points = [
        [{name: value for name, value in point.items() if "validation" not in name} for point in read_curve(path)]
        for path in (one, two)
    ]
    points = [[point for point in curve if len(point) > 1] for curve in points]
    assert len(points[0]) == len(points[1]) == steps
    for mine, theirs in zip(*points, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-9)  # written with seven digits


THREADS = {"diffusion": 8, "autoregressive": 8, "tokenizer": 8, "frozen": 4, "decoder": 4, "counted": 8, "sparse": 8}


@pytest.mark.parametrize("name", [*THREADS, pytest.param("adversarial", marks=pytest.mark.long)])
def test_ranks_in_one_process_too_some_of_them_without_a_sample(alone, tmp_path, name):
    one, _ = alone(name)
    ends = in_threads(THREADS.get(name, 8), lambda ranks: run(name, tmp_path, ranks))
    assert all(worst(end.weights(), one.weights()) < BOUND for end in ends)
    assert hash_of_batches(whole_batches([end.seen for end in ends])) == hash_of_batches(whole_batches([one.seen]))
    assert (ends[-1].seen == [[]] * 20) == (len(ends) > BATCH)


class Alike(Watched):
    """What it is not: every rank counts the same, however many samples it has."""

    def loss(self, model, batch, step):
        loss, values = self.objective.loss(model, batch, step)
        return loss * (BATCH / (self.ranks.size * len(batch["seeds"]))), values


def test_a_mean_of_means_would_end_elsewhere(alone, tmp_path):
    """The broken twins of the tests above: unequal shares that count alike, and counts of a share alone."""
    one, _ = alone("sparse")
    ends = in_threads(4, lambda ranks: run("sparse", tmp_path, ranks, change=lambda loss: Alike(loss, ranks)))
    assert worst(ends[0].weights(), one.weights()) > 1e5 * BOUND
    one, _ = alone("counted")
    ends = in_threads(2, lambda ranks: run("counted", tmp_path, ranks, made=counted(ranks, broken=True)))
    assert worst(ends[0].weights(), one.weights()) > 1e5 * BOUND


@pytest.mark.long
def test_a_balance_of_a_share_alone_would_end_elsewhere(alone, tmp_path):
    """The broken twin of the rival's run: each rank weighs the verdict by the pulls at its own reconstructions."""
    one, _ = alone("adversarial")
    ends = in_threads(2, lambda ranks: run("adversarial", tmp_path, ranks, made=adversarial(ALONE)))
    assert worst(ends[0].weights(), one.weights()) > 1e3 * BOUND


def test_a_stop_that_reached_one_rank_stops_all_and_one_process_goes_on(processes, alone, tmp_path):
    out, told = processes
    assert {rank["stopped"]["error"] for rank in told[2]} == {
        f"Cancelled: training: asked to stop; step {STOPPED_AT} of 20 is kept"
    }
    stopped_after(STOPPED_AT, tmp_path)
    mine, theirs = (folder / f"checkpoint-{STOPPED_AT:08d}" for folder in (tmp_path, out / "2/stopped"))
    assert {path.name for path in mine.iterdir()} == {path.name for path in theirs.iterdir()}
    assert read_folder(mine).state == read_folder(theirs).state
    assert read_folder(mine).fingerprint == read_folder(theirs).fingerprint
    for path in mine.glob("*.safetensors"):
        assert worst(load_tensors(path), load_tensors(theirs / path.name)) < BOUND, path.name
    resumed = run("diffusion", out / "2/stopped")
    assert resumed.result.resumed_from == STOPPED_AT
    assert worst(resumed.weights(), alone("diffusion")[0].weights()) < BOUND


def test_two_ranks_go_on_with_what_one_process_began(processes, alone):
    out, told = processes
    assert {rank["begun_by_one"]["resumed_from"] for rank in told[2]} == {BEGUN_BY_ONE}
    assert worst(load_tensors(out / "2/begun_by_one.safetensors"), alone("diffusion")[0].weights()) < BOUND


def test_a_loss_that_is_no_number_on_one_rank_ends_all_alike(processes, tmp_path):
    _, told = processes
    (words,) = {rank["nan"]["error"] for rank in told[2]}
    assert words.startswith("TrainingDiverged: training: step 3 gave loss nan")
    one = Ranks(1, 1)  # the rank of `Spoilt` that fails, by itself
    with pytest.raises(TrainingDiverged, match="step 3 gave loss nan"):
        run("tokenizer", tmp_path, change=lambda objective: Spoilt(objective, one))


def test_what_is_planted_on_one_process_is_left_out_by_both_without_a_trace(processes):
    out, told = processes
    spoilt, without = (load_tensors(out / f"2/{name}.safetensors") for name in ("spoilt", "without"))
    assert worst(spoilt, without) == 0
    curves = [(out / f"2/{name}/metrics.jsonl").read_text().splitlines() for name in ("spoilt", "without")]
    assert [line for line in curves[0] if "left_out" not in line] == curves[1]
    for rank in told[2]:
        left = [(one["batch"], one["reason"], one["count"]) for one in rank["spoilt"]["left_out"]]
        assert left == [(9, "spike", BATCH), (13, "not_finite", BATCH)]
        assert rank["without"]["left_out"] == []


def on_rank(rank: int, act):
    """An objective that does something first, at step 4 on one rank."""

    def changed(ranks: Ranks):
        class Acting(Watched):
            def loss(self, model, batch, step):
                if step == 4 and ranks.rank == rank:
                    act(model)
                return self.objective.loss(model, batch, step)

        return lambda objective: Acting(objective, ranks)

    return changed


def raising(error):
    def act(model):
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DataError("a bad row"), InputError), (MemoryError("no more"), TryAgain), (TryAgain("busy"), TryAgain),
        (OSError(errno.ENOSPC, "no space"), TryAgain), (OSError(errno.EMFILE, "files"), TryAgain),
        (OSError(errno.EACCES, "not yours"), WfmError), (OSError("no number"), WfmError),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
@pytest.mark.parametrize("failing", [0, 2])
def test_what_fails_on_one_rank_ends_all_with_its_words_and_outcome(tmp_path, error, kind, failing):
    change = on_rank(failing, raising(error))
    ends = in_threads(3, lambda ranks: run("counted", tmp_path, ranks, change=change(ranks)))
    assert ends[failing] is error
    others = [end for rank, end in enumerate(ends) if rank != failing]
    assert all(type(end) is kind for end in others)
    assert {str(end) for end in others} == {f"rank {failing} of 3: {type(error).__name__}: {error}"}


def test_a_judge_that_knows_no_passing_errors_calls_a_full_disk_a_bug_on_the_others(tmp_path, monkeypatch):
    """The twin of the test above, as it was: a bug is tried once more, and no longer."""

    def knows_memory_alone(error: BaseException) -> Outcome:
        return getattr(error, "outcome", "try_again" if isinstance(error, MemoryError) else "bug")

    monkeypatch.setattr(ranks_module, "outcome_of", knows_memory_alone)
    change = on_rank(1, raising(OSError(errno.ENOSPC, "no space")))
    ends = in_threads(2, lambda ranks: run("counted", tmp_path, ranks, change=change(ranks)))
    assert type(ends[0]) is WfmError


def test_a_rank_that_cannot_validate_ends_all(tmp_path):
    def validate(ranks):
        def of(model):
            if ranks.rank == 1:
                raise DataError("no such frame")
            return {"x": 1.0}

        return of

    ends = in_threads(2, lambda ranks: run("counted", tmp_path, ranks, validate=validate(ranks)))
    assert [type(end) for end in ends] == [InputError, DataError]


def test_a_folder_that_is_gone_for_rank_0_ends_all(tmp_path):
    change = on_rank(0, lambda model: shutil.rmtree(tmp_path / "0"))
    ends = in_threads(2, lambda ranks: run("counted", tmp_path / str(ranks.rank), ranks, change=change(ranks)))
    assert isinstance(ends[0], FileNotFoundError)
    assert str(ends[1]).startswith("rank 0 of 2: FileNotFoundError")


def test_weights_that_drift_apart_are_found_before_they_are_kept(tmp_path):
    def drift(model):
        model[0].weight.data[0, 0] += 1e-12

    change = on_rank(2, drift)
    ends = in_threads(3, lambda ranks: run("counted", tmp_path, ranks, checkpoint_every=3, change=change(ranks)))
    assert all(isinstance(end, RanksDiffer) for end in ends)
    assert "step 6: rank 2 of 3 holds other weights than rank 0" in str(ends[0])
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000003"]


def test_a_rank_that_cannot_read_the_checkpoint_fails_all_as_try_again(tmp_path):
    run("counted", tmp_path / "0", steps=20, checkpoint_every=5)
    ends = in_threads(2, lambda ranks: run("counted", tmp_path / str(ranks.rank), ranks))
    assert all(isinstance(end, TryAgain) for end in ends)
    assert "rank 0 goes on from step 20, and another rank cannot read" in str(ends[1])


def test_a_rank_of_another_run_is_refused(tmp_path):
    ends = in_threads(2, lambda ranks: run("counted", tmp_path, ranks, learning_rate=0.01 + ranks.rank))
    assert all(isinstance(end, RanksDiffer) for end in ends)
    assert "the fingerprint of data, model and config" in str(ends[0])


def test_a_clock_that_runs_ahead_on_one_rank_saves_on_all_at_once(tmp_path):
    def work(ranks):
        return run("counted", tmp_path, ranks, steps=5, checkpoint_seconds=0.0 if ranks.rank == 1 else 1e9)

    assert not [end for end in in_threads(2, work) if isinstance(end, Exception)]
    assert [path.name for path in sorted(tmp_path.glob("checkpoint-*"))] == [
        "checkpoint-00000004",
        "checkpoint-00000005",
    ]


def test_a_finished_run_ends_at_once_for_all_and_is_watched_once_more(tmp_path):
    one = run("counted", tmp_path)
    ends = in_threads(2, lambda ranks: run("counted", tmp_path, ranks, validate=lambda model: {"x": float(ranks.rank)}))
    assert [end.result.resumed_from for end in ends] == [20, 20]
    assert [end.result.final for end in ends] == [{"x": 0.0}] * 2
    assert worst(ends[1].weights(), one.weights()) == 0
