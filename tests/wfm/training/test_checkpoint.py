"""Checkpoints that are found: the newest whole one of this run, here or in the store."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.wfm.parallel.threads import in_threads
from tests.wfm.training.dying_training import POINTS
from tests.wfm.training.rank_runs import run as rank_run
from tests.wfm.training.test_loop import Network, configuration, loader, run, same
from wfm import pulse
from wfm.artifacts import Store
from wfm.artifacts.checkpoint_record import RECORD, CheckpointRecord, list_files, read_folder
from wfm.artifacts.checkpoints import Checkpoints
from wfm.artifacts.objects import going_on
from wfm.errors import Cancelled
from wfm.models.folder import load_tensors, save_tensors
from wfm.parallel.ranks import ALONE, Ranks
from wfm.training import checkpoint as room
from wfm.training.ema import PowerEMA
from wfm.training.optim import Optimizers

KEY = "c" * 64
FILES = ("model", "optimizer", "average")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody stops: the network, and its curve."""
    folder = tmp_path_factory.mktemp("whole")
    return run(folder)[0], (folder / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    """The folder of a run that was stopped after 16 steps; copy it."""
    folder = tmp_path_factory.mktemp("halfway")
    stopped(folder, 16)
    return folder


def stopped(scratch, step: int, **more):
    with pytest.raises(Cancelled, match="is kept") as caught:
        run(scratch, stop_at=step, **more)
    return str(caught.value)


def remake(folder: Path) -> None:
    """A record that fits the files: what somebody wrote on purpose, not damage."""
    record = replace(read_folder(folder), files=list_files(folder))
    (folder / RECORD).write_bytes(record.to_bytes())


def flip(path: Path, place: float) -> None:
    """One bit: in a file of floats, of the exponent of one."""
    data = bytearray(path.read_bytes())
    data[-1 - int(len(data) * (1 - place)) // 4 * 4] ^= 1
    path.unlink()  # not in place: in a local store the file has a second name
    path.write_bytes(data)


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: len(data) // 2])


DAMAGE = {
    **{f"{stem} truncated": (lambda f, s=stem: cut(f / f"{s}.safetensors")) for stem in FILES},
    **{f"{stem} flipped": (lambda f, s=stem: flip(f / f"{s}.safetensors", 0.99)) for stem in FILES},
    **{f"{stem} missing": (lambda f, s=stem: (f / f"{s}.safetensors").unlink()) for stem in FILES},
    "curve flipped": lambda f: flip(f / "metrics.jsonl", 0.5),
    "a link": lambda f: (shutil.move(f / "model.safetensors", f / "m"), (f / "model.safetensors").symlink_to(f / "m")),
    "record flipped": lambda f: flip(f / RECORD, 0.5),
    "record truncated": lambda f: cut(f / RECORD),
    "record empty": lambda f: (f / RECORD).write_bytes(b""),
    "record nested": lambda f: (f / RECORD).write_bytes(b"[" * 100_000),
    "record missing": lambda f: (f / RECORD).unlink(),
    "record of a newer wfm": lambda f: (f / RECORD).write_bytes(b'{"schema_version": 99}'),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_one_falls_back_to_the_one_before(tmp_path, halfway, whole, caplog, kind):
    """Before: a bug of ours at every start, or other weights without a word."""
    shutil.copytree(halfway, tmp_path, dirs_exist_ok=True)
    DAMAGE[kind](tmp_path / "checkpoint-00000016")
    network, result = run(tmp_path)
    assert result.resumed_from == 14
    assert same(network, whole[0])
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole[1]
    assert "step 16 is passed over" in caplog.text
    assert "2 steps are made again" in caplog.text


def test_a_twin_that_believes_its_files_ends_elsewhere(tmp_path, halfway, whole, monkeypatch):
    shutil.copytree(halfway, tmp_path, dirs_exist_ok=True)
    flip(tmp_path / "checkpoint-00000016/optimizer.safetensors", 0.99)
    monkeypatch.setattr(room, "verify", lambda folder, record: None)
    network, result = run(tmp_path)
    assert result.resumed_from == 16
    assert not same(network, whole[0])


def forget(folder: Path, stem: str, name: str) -> None:
    tensors = load_tensors(folder / f"{stem}.safetensors")
    del tensors[name]
    save_tensors(tensors, folder / f"{stem}.safetensors")


def reshape(folder: Path, stem: str, name: str) -> None:
    tensors = load_tensors(folder / f"{stem}.safetensors")
    tensors[name] = torch.zeros(3, 5)
    save_tensors(tensors, folder / f"{stem}.safetensors")


WRONG = {
    "no optimiser": lambda f: (f / "optimizer.safetensors").unlink(),
    "no average": lambda f: (f / "average.safetensors").unlink(),
    "a moment is missing": lambda f: forget(f, "optimizer", "out.weight/exp_avg_sq"),
    "a parameter has no state": lambda f: [
        forget(f, "optimizer", f"out.weight/{state}") for state in ("exp_avg", "exp_avg_sq", "step")
    ],
    "a weight is missing": lambda f: forget(f, "model", "out.weight"),
    "an average is missing": lambda f: forget(f, "average", "out.weight"),
    "a moment of another shape": lambda f: reshape(f, "optimizer", "out.weight/exp_avg"),
    "a weight of another shape": lambda f: reshape(f, "model", "out.weight"),
    "an average of another shape": lambda f: reshape(f, "average", "out.weight"),
    "state of nobody": lambda f: save_tensors(
        {**load_tensors(f / "optimizer.safetensors"), "nobody/step": torch.zeros(())}, f / "optimizer.safetensors"
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_one_that_lacks_something_does_not_count(tmp_path, halfway, whole, caplog, kind):
    """Each with a record that fits: its bytes are what was written, and still it is refused, never filled with fresh state."""
    shutil.copytree(halfway, tmp_path, dirs_exist_ok=True)
    WRONG[kind](tmp_path / "checkpoint-00000016")
    remake(tmp_path / "checkpoint-00000016")
    network, result = run(tmp_path)
    assert result.resumed_from == 14
    assert same(network, whole[0])
    assert "step 16 is passed over" in caplog.text


def test_when_none_is_whole_the_run_begins_anew_and_says_what_is_lost(tmp_path, halfway, whole, caplog):
    shutil.copytree(halfway, tmp_path, dirs_exist_ok=True)
    for folder in tmp_path.glob("checkpoint-*"):
        cut(folder / "model.safetensors")
    network, result = run(tmp_path)
    assert result.resumed_from == 0
    assert same(network, whole[0]), "a half-loaded one would show"
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole[1]
    assert "begins anew, and up to 16 steps are made again" in caplog.text


def test_a_parameter_that_never_learned_needs_no_state(tmp_path):
    class Lazy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.out, self.unused = torch.nn.Linear(4, 1), torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.out(x)

    stopped(tmp_path, 9, network=Lazy())
    assert read_folder(tmp_path / "checkpoint-00000009").state["stateless"] == {
        "optimizer": ["unused.bias", "unused.weight"]
    }
    assert run(tmp_path, network=Lazy())[1].resumed_from == 9


def empty(store: Store, tmp_path: Path) -> None:
    """The machine is gone: its scratch, and its cache."""
    shutil.rmtree(store.scratch(KEY))
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


def test_a_run_goes_on_without_its_machine(store, tmp_path, whole):
    said = stopped(store.checkpoints(KEY, fence=1), 16)
    assert "step 16 of 24 is kept; the newest checkpoint in the store is that of step 16" in said
    empty(store, tmp_path)
    network, result = run(store.checkpoints(KEY, fence=2))
    assert result.resumed_from == 16
    assert same(network, whole[0])
    assert result.curve.read_bytes() == whole[1]
    store.checkpoints(KEY, fence=2).clear()
    assert not list(store.objects.walk("checkpoints"))
    assert not (tmp_path / "store/scratch" / KEY).exists()


IN_THE_STORE = {
    "flipped": lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
    "truncated": lambda data: data[: len(data) // 2],
    "missing": lambda data: None,
}


@pytest.mark.parametrize("how", IN_THE_STORE)
@pytest.mark.parametrize("file", ["record", "optimizer.safetensors"])
def test_damage_in_the_store_falls_back_too(store, tmp_path, whole, caplog, how, file):
    stopped(store.checkpoints(KEY, fence=1), 16)
    name = store.checkpoints(KEY, fence=1).committed()[0]
    assert name.step == 16
    path = f"checkpoints/{KEY}/{name}" + (".json" if file == "record" else f"/{file}")
    data = IN_THE_STORE[how](store.objects.read(path))
    empty(store, tmp_path)
    store.objects.delete(path)
    if data is not None:
        store.objects.replace(path, data)
    network, result = run(store.checkpoints(KEY, fence=2))
    assert result.resumed_from == 14, "or there would have been no step 15"
    assert same(network, whole[0])
    unseen = how == "missing" and file == "record"  # it was never committed
    assert unseen or "step 16 is passed over" in caplog.text
    left = [name.step for name in store.checkpoints(KEY, fence=2).committed()]
    assert left[0] == 24
    assert 16 not in left, "what is damaged goes when there is something better"


def test_a_damaged_one_here_comes_from_the_store(store, tmp_path, whole):
    stopped(store.checkpoints(KEY, fence=1), 16)
    flip(store.scratch(KEY) / "checkpoint-00000016/model.safetensors", 0.9)
    network, result = run(store.checkpoints(KEY, fence=2))
    assert result.resumed_from == 16
    assert same(network, whole[0])


def test_what_is_only_here_is_resumed_and_sent(store, tmp_path):
    stopped(store.scratch(KEY), 16)  # never sent
    assert "in the store is that of step 16" in stopped(store.checkpoints(KEY, fence=1), 0)
    assert [name.step for name in store.checkpoints(KEY, fence=1).committed()] == [16]


def test_a_later_holder_counts_more_than_a_later_step_here(store, tmp_path, whole):
    stopped(store.checkpoints(KEY, fence=1), 16)
    shutil.move(store.scratch(KEY), tmp_path / "first machine")
    store.objects.delete_tree(f"checkpoints/{KEY}")
    stopped(store.checkpoints(KEY, fence=2), 8)
    shutil.rmtree(store.scratch(KEY))
    shutil.move(tmp_path / "first machine", store.scratch(KEY))
    network, result = run(store.checkpoints(KEY, fence=3))
    assert result.resumed_from == 8
    assert same(network, whole[0])


def test_a_checkpoint_of_another_run_in_the_store_is_left_alone(store, tmp_path, caplog):
    other = configuration(learning_rate=0.01)
    stopped(store.checkpoints(KEY, fence=1), 16, config=other)
    shutil.rmtree(store.scratch(KEY))
    _, result = run(store.checkpoints(KEY, fence=2))
    assert result.resumed_from == 0
    assert "is of another run: it is left alone" in caplog.text
    shutil.rmtree(store.scratch(KEY))
    assert run(store.checkpoints(KEY, fence=3), config=other)[1].resumed_from == 16


def test_seconds_between_those_that_go_to_the_store(store):
    stopped(store.checkpoints(KEY, fence=1), 22, config=configuration(checkpoint_store_seconds=3600))
    steps = [name.step for name in store.checkpoints(KEY, fence=1).committed()]
    assert steps in ([22, 7], [22])  # the first, if the stop's did not cut it short; none of 12 and 17


class Seen(Checkpoints):
    """Notes what the training's thread is at when the last of its checkpoints comes through."""

    at: pulse.Sign | None = None

    def send(self, folder, record, name, sent, go_on=going_on):
        until = time.monotonic() + 25
        while (pulse.sign().what, pulse.sign().waits) != ("drain", False) and time.monotonic() < until:
            time.sleep(0.01)
        self.at = pulse.sign()
        super().send(folder, record, name, sent, go_on)


@pytest.mark.parametrize("stop_at", [3, None])
def test_waiting_for_the_store_is_not_hanging_however_little_a_step_may_take(tmp_path, stop_at):
    """Before: a watch that allows 5 s of silence would have ended the run while it waited for the store."""
    store = Store.open(tmp_path / "store")
    place = Seen(store.objects, KEY, 1, store.scratch(KEY))
    config = configuration(stall_seconds=5, checkpoint_drain_seconds=30, checkpoint_every=100)
    with pytest.raises(Cancelled) if stop_at else nullcontext():
        run(place, config=config, stop_at=stop_at)
    assert place.at is not None
    assert (place.at.what, place.at.limit) == ("drain", 35.0)


def test_a_save_shows_after_each_file_that_it_gets_on(tmp_path):
    network = Network()
    optimizers = Optimizers(network, configuration())
    before = pulse.sign().count
    room.Learning(room.Player(network, optimizers), PowerEMA(network, 0.1)).save(tmp_path)
    assert pulse.sign().count - before == len(list(tmp_path.iterdir())) == 3


def test_no_pickle_on_the_way_there_and_back(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a pickle is read or written")

    for module, name in ((torch, "load"), (torch, "save"), (pickle, "loads"), (pickle, "load"), (pickle, "dumps"),
                         (pickle, "dump"), (pickle, "Unpickler"), (pickle, "Pickler")):  # fmt: skip
        monkeypatch.setattr(module, name, refuse)
    store = Store.open(tmp_path / "store")
    stopped(store.checkpoints(KEY, fence=1), 16)
    shutil.rmtree(store.scratch(KEY))
    assert run(store.checkpoints(KEY, fence=2))[1].resumed_from == 16
    files = [Path(stat.path) for stat in store.objects.walk("checkpoints")]
    assert {path.suffix for path in files} == {".safetensors", ".json", ".jsonl"}
    for path in files:
        data = store.objects.read(path.as_posix())
        if path.suffix == ".json":
            CheckpointRecord.from_bytes(data, path.name)
        elif path.suffix == ".jsonl":
            assert [json.loads(line) for line in data.splitlines()]


def test_the_data_goes_on_where_it_stood(tmp_path):
    stopped(tmp_path, 9)
    data = loader()
    data.restore(read_folder(tmp_path / "checkpoint-00000009").state["data"])
    other = loader()
    for _ in range(9):
        other.next()
    assert torch.equal(data.next()["seeds"], other.next()["seeds"])


def test_killed_at_every_point_and_its_machine_gone(place, tmp_path):
    """On a disk and on S3: the same bytes as of a run that nobody killed, and at most one interval is lost."""
    url, options = place
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "WFM_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.wfm.training.dying_training", url, str(tmp_path / "told")]
    done = subprocess.run(
        command,
        env={**environment, "WFM_STORE_OPTIONS": json.dumps(options)},
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    told = json.loads((tmp_path / "told").read_text())
    assert {point: each["deaths"] for point, each in told.items()} == {point: int(bool(point)) for point in POINTS}
    assert {point: each["resumed_from"] for point, each in told.items()} == POINTS
    assert len({(each["weights"], each["curve"]) for each in told.values()}) == 1
    for point, each in told.items():
        records = [name.removesuffix(".json") for name in each["left"] if name.endswith(".json")]
        assert len(records) == 2, point
        assert sorted(records) == sorted(name for name in each["left"] if not name.endswith(".json")), point


def of_rank(store: Store, folder: Path, ranks: Ranks) -> Checkpoints:
    """A rank on a machine of its own."""
    return Checkpoints(store.objects, KEY, 1 if ranks.leads else 0, folder / f"machine {ranks.rank}")


def stop_at(step: int):
    calls = iter(range(10**6))
    return lambda: next(calls) == step


def test_ranks_with_folders_of_their_own_go_on_from_the_store(store, tmp_path):
    def work(stop: int):
        return in_threads(
            2,
            lambda ranks: rank_run(
                "counted", of_rank(store, tmp_path, ranks), ranks, steps=12, checkpoint_every=5, stopping=stop_at(stop)
            ),
        )

    assert all(isinstance(end, Cancelled) for end in work(9))
    assert not list((tmp_path / "machine 1").glob("checkpoint-*")), "rank 0 alone keeps"
    assert [end.result.resumed_from for end in work(-1)] == [9, 9]
    assert list((tmp_path / "machine 1").glob("checkpoint-00000009"))


def test_what_only_rank_0_has_gives_way_to_what_all_can_read(store, tmp_path, caplog):
    for stop in (9, 2):
        with pytest.raises(Cancelled):
            rank_run("counted", of_rank(store, tmp_path, ALONE), steps=12, checkpoint_every=50, stopping=stop_at(stop))
    newest = store.checkpoints(KEY).committed()[0]
    assert newest.step == 11
    store.objects.delete(f"checkpoints/{KEY}/{newest}.json")
    ends = in_threads(2, lambda ranks: rank_run("counted", of_rank(store, tmp_path, ranks), ranks, steps=12))
    assert [end.result.resumed_from for end in ends] == [9, 9]
    assert "step 11 is passed over: it is not in the store, and another rank cannot read it here" in caplog.text


@pytest.mark.parametrize(
    "state", [{}, {"data": {}}, {"data": [], "stateless": {}}, {"data": {}, "stateless": {"optimizer": 3}}]
)
def test_a_state_of_another_form_does_not_count(tmp_path, halfway, state):
    shutil.copytree(halfway, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "checkpoint-00000016"
    (folder / RECORD).write_bytes(replace(read_folder(folder), state=state).to_bytes())
    assert run(tmp_path)[1].resumed_from == 14
