"""A point ends the process only when asked to, at the pass and on the rank that were asked for."""

import os
import signal
import subprocess
import sys

import pytest

from wfm.crash_points import VARIABLE, crash_point
from wfm.process import safe_environment

SCRIPT = """
import signal
from wfm.crash_points import crash_point
signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
for step in range(3):
    print(step, flush=True)
    crash_point("after_step")
    crash_point("after_save")
"""


def passed(wish: str, rank: str = "") -> tuple[int, str]:
    """(exit code, what it said) of a process that passes two points three times."""
    environment = {**safe_environment(os.environ), VARIABLE: wish, **({"RANK": rank} if rank else {})}
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT], capture_output=True, text=True, env=environment, check=False
    )
    return done.returncode, done.stdout.replace("\n", " ").strip()


@pytest.mark.parametrize(
    ("wish", "rank", "ends"),
    [
        ("", "", (0, "0 1 2")),
        ("after_other", "", (0, "0 1 2")),
        ("after_step", "", (-signal.SIGKILL, "0")),
        ("after_save:2", "", (-signal.SIGKILL, "0 1")),
        ("after_step:2/1", "1", (-signal.SIGKILL, "0 1")),
        ("after_step/1", "0", (0, "0 1 2")),
        ("after_step/0", "", (-signal.SIGKILL, "0")),
        ("after_step:2=SIGTERM", "", (0, "0 1 asked 2")),
    ],
)
def test_a_process_dies_where_it_is_told_to(wish: str, rank: str, ends: tuple[int, str]) -> None:
    assert passed(wish, rank) == ends


def test_a_wish_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "after step")
    with pytest.raises(ValueError, match="of the form NAME"):
        crash_point("after_step")
