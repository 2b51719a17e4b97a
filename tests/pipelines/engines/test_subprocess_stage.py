"""Stages as processes: nothing is left running, whoever dies first."""

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

from pipelines.engines.subprocess_stage import Ended, run_process


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", textwrap.dedent(code)]


def run(code: str, **more: object) -> tuple[Ended, list[str]]:
    lines: list[str] = []
    options: dict[str, object] = {
        "environment": os.environ,
        "on_line": lines.append,
        "stop": threading.Event(),
        "grace_seconds": 1.0,
    }
    return run_process(python(code), **{**options, **more}), lines  # type: ignore[arg-type]


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process is gone (or a zombie) within a time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_exit_code_lines_and_usage() -> None:
    ended, lines = run(
        "import sys; print('one'); print('two\\rthree', file=sys.stderr, flush=True); x = b'x' * 50_000_000; sys.exit(3)"
    )
    assert (ended.exit_code, ended.signal, ended.stopped_by) == (3, None, "itself")
    assert sorted(lines) == ["one", "three", "two"]
    assert ended.peak_bytes > 50_000_000
    assert 0 < ended.cpu_seconds < 10


def test_a_missing_program_is_said() -> None:
    lines: list[str] = []
    ended = run_process(["/no/such/program"], environment=os.environ, on_line=lines.append, stop=threading.Event())
    assert ended.exit_code == 78
    assert "/no/such/program" in lines[0]


def test_killed_by_a_signal_is_told_from_an_exit_code() -> None:
    ended, _ = run("import os; os.kill(os.getpid(), 9)")
    assert (ended.exit_code, ended.signal) == (None, signal.SIGKILL)


def test_timeout_gives_sigterm_first() -> None:
    code = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(143)))
        print("ready", flush=True)
        time.sleep(60)
    """
    ended, lines = run(code, timeout_seconds=0.7)
    assert (ended.stopped_by, ended.exit_code) == ("timeout", 143)
    assert lines == ["ready", "saved"]
    assert ended.seconds < 5


def test_a_deaf_stage_and_all_it_started_are_killed(tmp_path: Path) -> None:
    code = f"""
        import os, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
        child = subprocess.Popen([sys.executable, "-S", "-c", deaf], start_new_session=True)
        open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
        time.sleep(60)
    """
    ended, _ = run(code, timeout_seconds=1.0, grace_seconds=0.3)
    assert ended.signal == signal.SIGKILL
    for pid in (tmp_path / "pids").read_text().split():
        assert gone(int(pid), 1.0), f"process {pid} is still there"


def test_what_a_finished_stage_left_behind_is_killed(tmp_path: Path) -> None:
    code = f"""
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], start_new_session=True)
        open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
    """
    ended, _ = run(code)
    assert ended.exit_code == 0
    assert gone(int((tmp_path / "pid").read_text()), 1.0)


def test_stop_is_obeyed_at_once() -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    ended, _ = run("import time; time.sleep(60)", stop=stop)
    assert (ended.stopped_by, ended.signal) == ("cancel", signal.SIGTERM)
    assert ended.seconds < 3


@pytest.mark.parametrize("victim", ["run", "guard"])
def test_an_orphan_dies_with_its_parent(victim: str, tmp_path: Path) -> None:
    stage = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}} {{os.getppid()}}'); time.sleep(60)"
    code = f"""
        import os, sys, threading
        from pipelines.engines.subprocess_stage import run_process
        command, stop = [sys.executable, "-S", "-c", {stage!r}], threading.Event()
        ended = run_process(command, environment=os.environ, on_line=print, stop=stop, grace_seconds=1.0)
        print(ended.signal, ended.exit_code, flush=True)
    """
    root = Path(__file__).parents[3]
    runner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline, "the stage did not start"
            time.sleep(0.02)
        stage_pid, guard_pid = map(int, (tmp_path / "pid").read_text().split())
        os.kill(runner.pid if victim == "run" else guard_pid, signal.SIGKILL)
        assert gone(stage_pid), "the stage outlived it"
        assert gone(guard_pid)
        output, _ = runner.communicate(timeout=10)
        assert victim == "run" or output.split() == ["9", "None"], "the run must learn that its stage was killed"
    finally:
        runner.kill()
        runner.wait()
