"""The commands on a store in which one small file is damaged: each goes on with the rest, names the file, says what to do."""

import json
import os
from collections.abc import Callable

import pytest
from wfm_fakes.workshop import Workshop

from wfm.artifacts import Store
from wfm.artifacts.runs import Run

Cli = Callable[..., tuple[int, str, str]]
ONE, TWO = "1" * 64, "2" * 64
REQUEST = {"pipeline": "curate", "profile": "smoke", "videos": "/nowhere"}


@pytest.fixture
def cli(cli: Cli) -> Cli:
    """The same, and nothing that is said is a bug."""

    def call(*words: str) -> tuple[int, str, str]:
        code, out, err = cli(*words)
        assert "bug of ours" not in err
        assert "Traceback" not in err
        return code, out, err

    return call


@pytest.fixture
def store(workshop: Workshop) -> Store:
    """Two named datasets."""
    for key, name in ((ONE, "d"), (TWO, "e")):
        with workshop.store.attempt(key) as attempt:
            (attempt.path / "x.json").write_text("{}")
            attempt.commit(stage="s", kind="dataset")
        workshop.store.promote("dataset", name, key)
    return workshop.store


@pytest.fixture
def run(store: Store) -> Run:
    """One that was written down and never began."""
    return store.runs.create({"pipeline": "curate", "profile": "smoke", "request": REQUEST})


def state_of(run: Run, **fields: object) -> bytes:
    about = {"schema_version": 1, "run_id": run.id, "pipeline": "p", "state": "running", "host": os.uname().nodename}
    return json.dumps({**about, **fields}).encode()


@pytest.mark.parametrize(
    "bad",
    [
        b'{"run_id":',  # before: ValidationError, a bug of ours
        b"[" * 100_000,
        {"pid": -1},  # before: ValueError of psutil
        {"pid": 2**40},
        {"started": 1e300},  # before: OverflowError
        {"run_id": "20200101T000000000-00000000"},
        {"schema_version": 99},
    ],
    ids=["cut", "deep", "pid", "large pid", "time", "other run", "newer"],
)
def test_a_state_that_cannot_be_read(cli: Cli, store: Store, run: Run, bad: bytes | dict[str, object]) -> None:
    other = store.runs.create({"pipeline": "curate", "profile": "other"})
    run.write("state.json", bad if isinstance(bad, bytes) else state_of(run, **bad))
    run.write_outcome("split", run.append_attempt("split"), {"outcome": "done"})
    code, out, err = cli("runs")
    assert code == 0
    assert "cannot be read" in out
    assert other.id in out
    assert f"{run.id}/state.json" in err
    assert f"wfm rerun {run.id}" in err or "upgrade wfm" in err
    code, out, err = cli("status", run.id)
    assert (code, "split, try 1: done" in out, f"{run.id}/state.json" in err) == (0, True, True)


def test_a_run_that_was_never_whole_does_not_stand_before_the_others(cli: Cli, store: Store, run: Run) -> None:
    """Before: `wfm runs`, and bare `status` and `rerun`, ended with the first one that has no spec, for ever."""
    store.objects.replace("runs/20990101T000000000-00000000/x", b"")
    store.objects.replace("runs/20990101T000000001-00000000/spec.json", b"[1]")
    store.objects.replace("runs/zz bad name/x", b"")
    code, out, err = cli("runs")
    assert (code, out.count("cannot be read"), run.id in out) == (0, 2, True)
    assert "20990101T000000001-00000000/spec.json" in err
    code, out, err = cli("status")
    assert (code, f"run {run.id} was written down" in out, "passed over" in err) == (0, True, True)
    code, _, err = cli("rerun", "--dry-run")
    assert (code, "videos '/nowhere': there is no such" in err) == (78, True)  # what this run had asked for


@pytest.mark.parametrize(
    "asked", [{"pipeline": 7}, {"pipeline": "curate", "overrides": 5}, {"redo": {}}, {"pipeline": []}]
)
def test_a_request_that_is_none_is_wrong_input(cli: Cli, store: Store, asked: dict[str, object]) -> None:
    run = store.runs.create({"pipeline": "p", "request": asked})
    code, _, err = cli("rerun", run.id)
    assert code == 78
    assert f"{run.id}/spec.json" in err


MANIFEST, REFERENCE = f"artifacts/{TWO}/manifest.json", "refs/dataset/d/latest/00000002.json"


@pytest.mark.parametrize(
    ("path", "data", "command", "code", "expected"),
    [
        (MANIFEST, b'{"schema', "artifacts list", 0, "dataset/d@latest"),
        (MANIFEST, b'{"schema', "artifacts list --all", 0, "dataset/d@latest"),
        (MANIFEST, b'{"schema', "artifacts gc --dry-run", 0, "1 artifact stays"),
        (MANIFEST, b'{"schema', "artifacts verify --all", 78, "111111111111 dataset: whole"),
        (MANIFEST, b'{"schema', f"artifacts show {TWO}", 78, "wfm artifacts invalidate"),
        (MANIFEST, b'{"schema_version": 99}', "artifacts list", 0, "dataset/d@latest"),
        (MANIFEST, b'{"schema_version": 99}', "artifacts gc --dry-run", 0, "upgrade wfm"),
        (MANIFEST, b"[" * 100_000, "artifacts list", 0, "dataset/d@latest"),
        (MANIFEST, b"[" * 100_000, f"artifacts files {TWO}", 78, "nested too deep"),
        (REFERENCE, b'{"schema_version": 1}', "artifacts list", 0, "dataset/e@latest"),
        (REFERENCE, b'{"schema_version": 1}', "artifacts gc --dry-run", 0, "wfm artifacts promote"),
        (REFERENCE, b'{"schema_version": 1}', "artifacts show dataset/d", 78, "wfm artifacts promote"),
        (f"artifacts/{TWO}/tombstone-1.json", b"{", "artifacts gc --dry-run", 0, "cannot be read"),
        (f"artifacts/{TWO}/tombstone-1.json", b"{", "artifacts list", 0, "does not count"),
        (f"leases/{ONE}/00000001.json", b'{"schema_version": 1}', "artifacts gc --dry-run", 0, "delete this lease"),
        ("leases/notes.txt", b"x", "artifacts gc --dry-run", 0, "2 artifacts stay"),
        ("artifacts/lost+found/x", b"", "artifacts list --all", 0, "dataset/d@latest"),
        ("refs/dataset/a b@c/latest/00000001.json", b"{", "artifacts list", 0, "dataset/d@latest"),
    ],
)
def test_one_damaged_file(
    cli: Cli,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    path: str,
    data: bytes,
    command: str,
    code: int,
    expected: str,
) -> None:
    """Before: fourteen of the eighteen ended with an error or without advice, five of them with "a bug of ours"."""
    store.objects.replace(path, data)
    got, out, err = cli(*command.split())
    assert got == code, err
    told = out + err + caplog.text  # a warning of the store goes to standard error
    assert expected in told
    harmless = "notes.txt" in path or "lost+found" in path or "a b@c" in path
    assert harmless or path.rpartition("/")[0].split("/")[-2] in told


def test_a_damaged_manifest_is_invalidated_and_made_anew(cli: Cli, store: Store) -> None:
    """Before: exit code of wrong input, "is not valid JSON", and the next commit failed with the same words."""
    store.objects.replace(MANIFEST, b'{"schema')
    code, out, _ = cli("artifacts", "invalidate", TWO, "--reason", "cut off")
    assert (code, "does not count any more" in out) == (0, True)
    fresh = Store.open(store.url)
    with fresh.attempt(TWO) as attempt:
        assert attempt.commit(stage="s", kind="dataset").manifest.generation == 2
    assert "cannot be read" not in cli("artifacts", "list")[1]
