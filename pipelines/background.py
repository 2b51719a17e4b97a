"""A run that goes on by itself: a process of its own on this machine, which nobody waits for.

It is the command ``wfm work RUN`` (`commands/runs.py`), which takes up a run that is written down (its spec, and
`engine.json` with the engine and the budget) and sees it to its end, under the same guards as `wfm run`: killed, it takes its
stages along. What it prints lies in ``~/.wfm/runs/<id>.log``; all else is in the store.
"""

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.runs.state import process_started
from pipelines.runs.submission import Submission, write_submission
from pipelines.wfm_home import home
from wfm.process import python, safe_environment

if TYPE_CHECKING:
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

MODULE = "pipelines.commands.cli"
"""Whose ``work`` it is."""


def log_of(run_id: str) -> Path:
    """Where its process prints to: what its stages print is in the store, too."""
    return home().parent / "runs" / f"{run_id}.log"


def begin(run: "Run", store: "Store", submission: Submission) -> Submission:
    """Start the process; returns what is written of it. It outlives this process, and its terminal."""
    log = log_of(run.id)
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    noted = submission.model_copy(
        update={"background": True, "host": socket.gethostname(), "pid": 0, "begun_at": time.time()}
    )
    write_submission(run, noted)  # before it begins: one that is killed at once is no run that was never asked for
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600), "ab") as into:
        process = subprocess.Popen(
            python("-m", MODULE, "work", run.id, "--store", store.url),
            stdin=subprocess.DEVNULL,
            stdout=into,
            stderr=into,
            env=safe_environment(environment),
            start_new_session=True,
        )
    noted = noted.model_copy(update={"pid": process.pid, "process_started": process_started(process.pid)})
    write_submission(run, noted)
    return noted
