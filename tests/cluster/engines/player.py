"""Runs what a compiled template says as processes of this machine: the plan step itself, `stage` for every stage.

A launcher is played by its stage as well, which waits while its run is suspended: what a launcher does beside that is shown
elsewhere (`tests/cluster/scenarios`).
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.derivation import ROOT
from wfm.cluster.settings import ClusterSettings
from wfm.stopping import CANCELLED

Json = dict[str, Any]
STAGE = "tests.cluster.engines.stage"
SECONDS = 120.0


@dataclass
class Workbench:
    """Where processes of one engine run: a folder for what pods have in ``/tmp``, and the script of the stages."""

    folder: Path
    settings: ClusterSettings
    engine: str
    script: dict[str, Json] = field(default_factory=dict)
    log: str = ""
    "What the processes printed."
    alive: list["subprocess.Popen[str]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "cluster.json").write_text(json.dumps(self.settings.resolved()))
        self.write()

    def write(self, **nodes: Json) -> None:
        """Change the script of some nodes."""
        self.script |= nodes
        (self.folder / "script.json").write_text(json.dumps(self.script))

    def run(self, words: Sequence[str], stop: Callable[[], bool], **environment: str) -> int:
        """One process to its end, which comes by SIGTERM once ``stop()``; its exit code (143 where that ended it)."""
        here = [STAGE if word.startswith("components.") else word for word in words]
        here = [sys.executable if word == "python" else word for word in here]
        more = {
            "PYTHONPATH": str(ROOT), "WFM_CLUSTER": str(self.folder / "cluster.json"), "WFM_ENGINE": self.engine,
            "WFM_TEST_SCRIPT": str(self.folder / "script.json"), CANCELLED: "78", **environment,
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, *here], env={**os.environ, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.alive.append(process)
        told = False
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()
        while process.poll() is None:
            if stop() and not told:
                process.terminate()
                told = True
            threading.Event().wait(0.05)
        reader.join(SECONDS)
        self.alive.remove(process)
        return process.returncode if process.returncode >= 0 else 128 - process.returncode

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.log += line

    def close(self) -> None:
        """No process is left behind."""
        for process in list(self.alive):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it has started, too
            process.wait()
