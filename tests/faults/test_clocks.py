"""Machines whose clocks are minutes apart work on one store: nothing is lost, nothing done twice.

What goes by a machine's own clock: a lease (silence on the watcher's monotonic clock), retries, limits of time. What compares
clocks of two machines and bears minutes: ages in collecting garbage (days, and never what a lease holds), the order of ids in
listings. What must not: purging, and S3's signatures, which S3 itself refuses beyond 15 minutes (`test_expired_credentials`).
"""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.components.test_entrypoint import Stage
from wfm.artifacts import Store
from wfm.artifacts.address import id_time

ROOT = Path(__file__).parents[2]
APART = 300.0
KEY = "a" * 64
SHIFTED = """
import os, time
_shift, _time, _time_ns = float(os.environ["CLOCK_SHIFT"]), time.time, time.time_ns
time.time = lambda: _time() + _shift
time.time_ns = lambda: _time_ns() + int(_shift * 1e9)
"""
HOLD = """
import sys, time
from wfm.artifacts import Store, lease
lease._machine = lambda: "pod-" + sys.argv[2]  # each in a namespace of its own: only silence tells of a death
with Store.open(sys.argv[1]).lease("a" * 64, ttl_seconds=0.8) as held:
    print(time.monotonic(), held.adopted, flush=True)
    time.sleep(float(sys.argv[3]))
    held.check()
    print(time.monotonic(), flush=True)
"""
BEGIN = """
import sys, time
from wfm.artifacts import Store
store = Store.open(sys.argv[1])
with store.lease("a" * 64):
    attempt = store.attempt("a" * 64)
    (attempt.path / "x").write_text("x")
    print(attempt.id, flush=True)
    sys.stdin.read()
    attempt.commit(stage="s", kind="k")
"""


@pytest.fixture
def shifted(tmp_path: Path) -> dict[float, dict[str, str]]:
    """Environments of processes whose clocks are minutes ahead or behind."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SHIFTED)
    path = f"{tmp_path / 'site'}{os.pathsep}{ROOT}"
    return {shift: {**os.environ, "PYTHONPATH": path, "CLOCK_SHIFT": str(shift)} for shift in (-APART, 0.0, APART)}


def start(program: str, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_lease_changes_hands_by_silence_and_by_no_clock(shifted: dict[float, dict[str, str]], tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    holders = [start(HOLD, shifted[shift], store, str(shift), "2.5") for shift in (APART, -APART)]
    spans = sorted(
        [float(word) for word in one.communicate(timeout=60)[0].split() if word[0].isdigit()] for one in holders
    )
    assert [one.returncode for one in holders] == [0, 0], "neither lost its lease"
    assert spans[0][1] <= spans[1][0], "never both at once"


def test_two_starters_with_clocks_apart_do_the_work_once(
    shifted: dict[float, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path)
    started = []
    for shift in (APART, -APART):
        for name in ("PYTHONPATH", "CLOCK_SHIFT"):
            monkeypatch.setenv(name, shifted[shift][name])
        started.append(stage.start(parts=[f"p{number}" for number in range(12)]))
    for process, _ in started:
        process.communicate(timeout=60)
    outcomes = [run.read_outcomes("toy")[0].outcome for _, run in started]
    assert sorted(outcome["outcome"] for outcome in outcomes if outcome) in (["cached", "done"], ["cached", "cached"])
    assert set(Counter(stage.trace.read_text().split()).values()) == {1}
    assert len(stage.store.artifact(stage.key).parts) == 12
    ids = sorted((id_time(run.id) for _, run in started))
    assert ids[1] - ids[0] < 60, "the runs were made by this process"


@pytest.mark.parametrize("shift", [-APART, APART])
def test_what_is_at_work_elsewhere_is_no_garbage(
    shifted: dict[float, dict[str, str]], tmp_path: Path, shift: float
) -> None:
    """Its id is of five minutes ago, or of five minutes hence: the lease protects it, whatever age is asked for."""
    store = Store.open(tmp_path / "store")
    process = start(BEGIN, shifted[shift], store.url)
    assert process.stdout is not None
    made = id_time(process.stdout.readline().strip())
    assert abs(made - time.time() - shift) < 60
    store.gc(min_age_seconds=0.0, wait_seconds=0.0)
    process.communicate("", timeout=60)
    assert process.returncode == 0
    assert store.artifact(KEY).open("x").read() == b"x"
