"""Ranks under the guard: started with their places, stopped together, and none stays when one ends, however it does."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from pipelines.engines import guard
from pipelines.engines.subprocess_stage import Ended, run_process

BEGIN = """
import os
open('{FOLDER}/pid-' + os.environ['RANK'], 'w').write(str(os.getpid()))
def say(*words):  # at once: several write to one pipe
    os.write(1, (' '.join(words) + '\\n').encode())
"""


def ranks(code: str, folder: Path, count: int = 3, **more: object) -> tuple[Ended, list[str]]:
    """Run a script as so many ranks; FOLDER is a place for what they leave."""
    lines: list[str] = []
    script = textwrap.dedent(code).replace("{FOLDER}", str(folder))
    options: dict[str, object] = {
        "environment": os.environ, "on_line": lines.append, "stop": threading.Event(), "grace_seconds": 5.0,
    }  # fmt: skip
    command = [sys.executable, "-S", "-c", BEGIN.replace("{FOLDER}", str(folder)) + script]
    ended = run_process(command, ranks=count, **{**options, **more})  # type: ignore[arg-type]
    for pid in folder.glob("pid-*"):
        assert not psutil.pid_exists(int(pid.read_text())), f"{pid.name} is still there"
    return ended, lines


def test_each_rank_is_told_its_place_and_a_folder_that_only_this_user_opens(tmp_path: Path) -> None:
    code = """
        import os, stat
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GLOO_SOCKET_IFNAME")
        folder = os.environ["WFM_RANKS_FOLDER"]
        say(*(os.environ[name] for name in names), oct(stat.S_IMODE(os.stat(folder).st_mode)), folder)
    """
    ended, lines = ranks(code, tmp_path, count=2)
    assert (ended.exit_code, ended.rank) == (0, 0)
    words = [line.split() for line in sorted(lines)]
    assert [word[:6] for word in words] == [[str(rank), str(rank), "2", "2", "lo", "0o700"] for rank in range(2)]
    assert words[0][6] == words[1][6]
    assert not Path(words[0][6]).exists(), "the folder goes with them"


def test_a_stage_of_one_process_is_told_nothing(tmp_path: Path) -> None:
    ended, lines = ranks("say(str('WORLD_SIZE' in os.environ))", tmp_path, count=1, environment={"RANK": "0"})
    assert (ended.exit_code, lines) == (0, ["False"])


def test_a_wish_to_stop_reaches_every_rank(tmp_path: Path) -> None:
    code = """
        import os, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (say("saved", os.environ["RANK"]), sys.exit(143)))
        say("ready")
        time.sleep(60)
    """
    stop, seen = threading.Event(), []

    def hear(line: str) -> None:
        seen.append(line)
        if seen.count("ready") == 3:
            stop.set()

    ended, _ = ranks(code, tmp_path, stop=stop, on_line=hear)
    assert (ended.stopped_by, ended.exit_code) == ("cancel", 143)
    assert sorted(seen)[3:] == ["saved 0", "saved 1", "saved 2"]


@pytest.mark.parametrize(
    ("end", "number", "code"),
    [("sys.exit(3)", None, 3), ("os.kill(os.getpid(), 9)", signal.SIGKILL, None)],
)
def test_the_others_learn_how_a_rank_ended_and_are_killed_when_they_do_not_follow(
    end: str, number: int | None, code: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried = tmp_path / "guard.py"
    text = Path(guard.__file__).read_text()
    assert "_AFTER_A_FAILURE_SECONDS = 12.0" in text
    hurried.write_text(text.replace("_AFTER_A_FAILURE_SECONDS = 12.0", "_AFTER_A_FAILURE_SECONDS = 2.0"))
    monkeypatch.setattr("pipelines.engines.subprocess_stage._GUARD", str(hurried))
    script = f"""
        import os, signal, sys, time
        from pathlib import Path
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.environ["RANK"] == "1":
            {end}
        note = Path(os.environ["WFM_RANKS_FOLDER"], "ended-1")
        while not note.exists():
            time.sleep(0.02)
        say("rank 1 ended with", note.read_text())
        time.sleep(60)
    """
    began = time.monotonic()
    ended, lines = ranks(script, tmp_path)
    assert lines == [f"rank 1 ended with {-9 if number else 3}"] * 2
    assert (ended.rank, ended.signal, ended.exit_code) == (1, number, code), "it tells whose end it was"
    assert time.monotonic() - began < 20


def test_when_rank_0_is_through_the_others_have_a_moment(tmp_path: Path) -> None:
    code = """
        import os, time
        if os.environ["RANK"] == "2":
            time.sleep(60)
        if os.environ["RANK"] == "1":
            time.sleep(1)
            say("after rank 0")
    """
    began = time.monotonic()
    ended, lines = ranks(code, tmp_path)
    assert (ended.exit_code, ended.rank, lines) == (0, 0, ["after rank 0"])
    assert time.monotonic() - began < 30


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != "zombie"
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("victim", ["run", "guard"])
def test_no_rank_outlives_the_run_or_the_guard(victim: str, tmp_path: Path) -> None:
    stage = BEGIN.replace("{FOLDER}", str(tmp_path)) + "import time; time.sleep(60)"
    code = f"""
        import os, sys, threading
        from pipelines.engines.subprocess_stage import run_process
        command, stop = [sys.executable, "-S", "-c", {stage!r}], threading.Event()
        ended = run_process(command, environment=os.environ, on_line=print, stop=stop, grace_seconds=1.0, ranks=2)
        print(ended.signal, flush=True)
    """
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", textwrap.dedent(code)]
    runner = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 20
        while len([path for path in tmp_path.glob("pid-*") if path.read_text()]) < 2:
            assert time.monotonic() < deadline, "the ranks did not start"
            time.sleep(0.02)
        pids = [int(path.read_text()) for path in tmp_path.glob("pid-*")]
        os.kill(runner.pid if victim == "run" else psutil.Process(pids[0]).ppid(), signal.SIGKILL)
        runner.communicate(timeout=15)
        deadline = time.monotonic() + 10
        while any(_lives(pid) for pid in pids):
            assert time.monotonic() < deadline, "a rank outlived it"
            time.sleep(0.02)
    finally:
        runner.kill()
        runner.wait()
