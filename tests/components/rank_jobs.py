"""A small training as a job of ranks, started as torchrun or our own guard starts it, and what a test does to it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from components.derivation import ROOT
from components.entrypoint import node_key
from components.stage_log import PROCESS_NAME
from pipelines.engines.subprocess_stage import Ended, run_process
from wfm.artifacts import Store
from wfm.artifacts.runs import Run
from wfm.process import safe_environment

MODEL = {
    "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 3, "channels": [8, 8], "mid_blocks": 0,
    "encoder_blocks": 1, "decoder_blocks": 1, "mid_attention": False, "linear_code": True,
}  # fmt: skip
DATA = {"size": [16, 16], "num_frames": 9, "crop_frames": 5, "images_per_window": 2}
FOR_EVER = 1_000_000
STALL_SECONDS = 4.0


@dataclass
class Job:
    """One start of a training on a store. `launcher`: torchrun, guard, operator (which only sets the variables, as those of a
    cluster do, and restarts and kills nothing), or alone (one process of the same command)."""

    store: Store
    dataset: str
    launcher: str
    steps: int = FOR_EVER
    training: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable
    options: tuple[str, ...] = ()
    "Of torchrun."
    missing: bool = False
    "An operator's rank 1 never starts."
    size: int = 2
    "How many ranks an operator starts."
    run: Run = field(init=False)
    ended: Ended | None = None
    "How it ended, by the guard."
    code: int = -1
    "Exit code of the launcher; with an operator, which is none, of rank 0."
    others: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    "An operator's other ranks."
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.run = self.store.runs.create({"pipeline": "ranks"})
        self._name = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._launch)
        steps = {"steps": self.steps, "batch_size": 2, "warmup_steps": 1, "ema_share": 0.0, "log_every": 1}
        more = {"checkpoint_every": 20, "validate_every": 0, "stall_seconds": STALL_SECONDS, **self.training}
        self.config = {"model": MODEL, "training": {**steps, **more}, **DATA}
        self.spec = {
            "schema_version": 1, "store": self.store.url, "run_id": self.run.id, "node": "train", "stage": "train_tokenizer",
            "component": "train_tokenizer", "kind": "tokenizer", "config": self.config, "redo": "", "promote": "",
            "reads_truth": False,
        }  # fmt: skip
        self.key = node_key(self.spec, {"dataset": self.dataset}, self.store)

    def start(self) -> "Job":
        self._thread.start()
        return self

    def _launch(self) -> None:
        url = self.run.write("specs/train.json", json.dumps(self.spec))
        stage = ["-m", "components.train_tokenizer", "--spec", url, "--input", f"dataset={self.dataset}"]
        environment = safe_environment(
            {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "WFM_TEST_JOB": self._name,
                **self.environment,
            }
        )
        if self.launcher == "guard":
            self.ended = run_process(
                [self.python, *stage], environment=environment, on_line=self.lines.append, stop=self._stop, ranks=2,
                grace_seconds=15.0,
            )  # fmt: skip
            self.code = self.ended.exit_code if self.ended.exit_code is not None else -1
            return
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
        command = [*torchrun, "--rdzv-endpoint", "127.0.0.1:0", "--shutdown-timeout", "15", *self.options, *stage]
        if self.launcher in ("alone", "operator"):
            command = [self.python, *stage]
        if self.launcher == "operator":
            environment |= {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(_free_port()),
                "WORLD_SIZE": str(self.size),
                "RANK": "0",
            }
            null = subprocess.DEVNULL
            self.others = [
                subprocess.Popen(command, env={**environment, "RANK": str(n)}, stdout=null, stderr=null, cwd=ROOT)
                for n in range(1 + self.missing, self.size)
            ]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.rstrip("\n"))
        self.code = process.wait()

    def processes(self) -> dict[int, psutil.Process]:
        """The living ranks, by number; -1 is the launcher."""
        found = {}
        for process in psutil.process_iter():
            try:
                given = process.environ() if process.status() != psutil.STATUS_ZOMBIE else {}
                if process.name() == PROCESS_NAME:  # it ships a rank's log
                    continue
                ours = given.get("WFM_TEST_JOB") == self._name and process.name() != PROCESS_NAME
                if ours and any("train_tokenizer" in w for w in process.cmdline()):
                    found[-1 if "torch.distributed.run" in process.cmdline() else int(given.get("RANK", "-1"))] = (
                        process
                    )
            except psutil.Error:
                continue
        return found

    def in_training(self, steps: int = 3, seconds: float = 120.0) -> dict[int, psutil.Process]:
        """Wait until some steps are done; the processes."""
        curve, deadline = self.store.scratch(self.key) / "metrics.jsonl", time.monotonic() + seconds
        begin = len(curve.read_text().splitlines()) if curve.exists() else 0
        while not curve.exists() or len(curve.read_text().splitlines()) < begin + steps:
            assert time.monotonic() < deadline, self.log
            assert self._thread.is_alive(), self.log
            time.sleep(0.05)
        return self.processes()

    def wait(self, seconds: float) -> dict[str, Any]:
        """Wait for the end of all processes within a time; the outcome of the last attempt."""
        try:
            deadline = time.monotonic() + seconds
            self._thread.join(timeout=seconds)
            while self._thread.is_alive() or self.processes():
                assert time.monotonic() < deadline, f"still there after {seconds:g} s: {self.processes()}\n{self.log}"
                time.sleep(0.1)
        finally:
            for process in self.processes().values():
                process.send_signal(signal.SIGKILL)
            self._thread.join(timeout=20.0)
        return dict(self.run.read_outcomes("train")[-1].outcome or {})

    @property
    def log(self) -> str:
        return "\n".join(self.lines)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def copy_of(folder: Path, into: Path) -> Store:
    """A store like another one, to be spoilt."""
    shutil.copytree(folder, into)
    return Store.open(into)
