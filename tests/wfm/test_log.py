"""Progress: what was done before is no speed; a bar on a terminal, silence for a command elsewhere."""

import os
import pty
import re
import subprocess
import sys
import textwrap

import pytest

from wfm import log
from wfm.log import progress


class Clock:
    """A clock that is told what time it is."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_a_resumed_run_tells_its_own_speed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """900 of 1,000 steps were there, 10 took 10 s. The old code counted all 910: "91/s, 1 s left"."""
    clock = Clock()
    monkeypatch.setattr(log, "time", clock)
    with caplog.at_level("INFO", "wfm.progress"), progress(1000, "diffusion", "steps", before=900) as shown:
        for _ in range(10):
            clock.now += 1.0
            shown.advance(1)
    assert "diffusion: 910/1000 steps, 1/s, 90 s left" in caplog.messages
    assert caplog.messages[-1] == "diffusion: 910 steps in 10.0 s (900 of them before)"


def on_a_terminal(code: str) -> str:
    """What a program writes to a terminal of 120 columns."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    done = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=follower, env=environment)
    os.close(follower)
    seen = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        seen += piece
    assert done.wait() == 0
    os.close(leader)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())


def test_the_bar_of_a_resumed_run_does_so_too() -> None:
    """With the old code the bar showed 0:00:00 left."""
    shown = on_a_terminal(
        """
        import time
        from wfm.log import progress
        with progress(1000, "diffusion", "steps", before=900) as bar:
            for _ in range(12):
                time.sleep(0.1)
                bar.advance(1)
        """
    )
    left = re.findall(r"9\d\d/1000 steps \d:\d\d:\d\d (\d:\d\d:\d\d)", shown)
    assert left, shown
    assert left[-1] in ("0:00:08", "0:00:09", "0:00:10"), left
