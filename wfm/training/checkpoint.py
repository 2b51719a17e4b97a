"""Checkpoints: everything a killed run needs to go on as if nothing had happened.

    <scratch>/checkpoint-00000300/   model.safetensors  average.safetensors  optimizer.safetensors  state.json
                                     with a second player: rival.safetensors  rival_optimizer.safetensors

A checkpoint is written beside its name and renamed into place, so a folder of that name is whole; the two newest are
kept. A checkpoint of another run (`fingerprint`) is never resumed, and is removed: it would take the place of this run's.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from wfm.artifacts import schema
from wfm.artifacts.atomic import create_folder
from wfm.crash_points import crash_point
from wfm.errors import DataError, TryAgain
from wfm.log import get_logger
from wfm.models.folder import load_exactly, load_tensors, save_tensors
from wfm.training.ema import PowerEMA
from wfm.training.optim import Optimizers

SCHEMA_VERSION = 1
KEPT = 2
_PREFIX = "checkpoint-"


@dataclass(frozen=True)
class Player:
    """A module that learns, and what makes it learn."""

    module: nn.Module
    optimizers: Optimizers


@dataclass
class Checkpoint:
    """A whole checkpoint on disk."""

    path: Path
    step: int
    state: dict[str, Any]

    def tensors(self, name: str) -> dict[str, Tensor]:
        return load_tensors(self.path / f"{name}.safetensors")


def save_checkpoint(
    scratch: Path,
    step: int,
    module: nn.Module,
    optimizers: Optimizers,
    average: PowerEMA | None,
    *,
    data: dict[str, Any],
    fingerprint: str,
    rival: Player | None = None,
) -> None:
    """Write the state after `step` steps, then drop all but the newest."""
    final = scratch / f"{_PREFIX}{step:08d}"
    if final.exists():
        return
    temporary = scratch / f".{final.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_tensors(module.state_dict(), temporary / "model.safetensors")
    crash_point("half_checkpoint")
    save_tensors(optimizers.tensors(), temporary / "optimizer.safetensors")
    if average is not None:
        save_tensors(average.state_dict(), temporary / "average.safetensors")
    if rival is not None:
        save_tensors(rival.module.state_dict(), temporary / "rival.safetensors")
        save_tensors(rival.optimizers.tensors(), temporary / "rival_optimizer.safetensors")
    state = {"schema_version": SCHEMA_VERSION, "step": step, "data": data, "fingerprint": fingerprint}
    (temporary / "state.json").write_text(json.dumps(state, sort_keys=True))
    for file in temporary.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    crash_point("checkpoint_unnamed")
    create_folder(temporary, final)
    crash_point("checkpoint_named")
    for old in _folders(scratch)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def newest_checkpoint(scratch: Path, fingerprint: str) -> Checkpoint | None:
    """The newest checkpoint of this very run, or None. Leftovers of writes that were cut short, and checkpoints of other
    runs, are removed."""
    for leftover in scratch.glob(f".{_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    newest: Checkpoint | None = None
    for path in _folders(scratch):
        try:
            state = schema.decode((path / "state.json").read_bytes(), str(path / "state.json"), SCHEMA_VERSION)
        except DataError as error:  # the one before it goes on; this one would stand in the way of the next of its step
            get_logger(__name__).warning("%s: this checkpoint is removed", error)
            shutil.rmtree(path)
            continue
        if state.get("fingerprint") == fingerprint and isinstance(state.get("step"), int):
            newest = Checkpoint(path, state["step"], state)
        else:
            get_logger(__name__).warning("%s is a checkpoint of another run: removed", path)
            shutil.rmtree(path)
    return newest


def checkpoint_at(scratch: Path, step: int, fingerprint: str) -> Checkpoint:
    """The checkpoint of this step, which rank 0 found and goes on from. Raises TryAgain where this process cannot read it."""
    path = scratch / f"{_PREFIX}{step:08d}"
    try:
        state = schema.decode((path / "state.json").read_bytes(), str(path / "state.json"), SCHEMA_VERSION)
        if (state.get("fingerprint"), state.get("step")) != (fingerprint, step):
            raise DataError(f"{path} is a checkpoint of another run")
    except (OSError, DataError) as error:
        raise TryAgain(f"rank 0 goes on from step {step}, and this rank cannot: {error}") from error
    return Checkpoint(path, step, state)


def restore(
    checkpoint: Checkpoint,
    module: nn.Module,
    optimizers: Optimizers,
    average: PowerEMA | None,
    rival: Player | None = None,
) -> None:
    """Put a checkpoint's tensors back in place, all of them."""
    load_exactly(module, checkpoint.tensors("model"), str(checkpoint.path))
    optimizers.restore(checkpoint.tensors("optimizer"))
    if average is not None:
        average.load_state_dict(checkpoint.tensors("average"))
    if rival is not None:
        load_exactly(rival.module, checkpoint.tensors("rival"), str(checkpoint.path))
        rival.optimizers.restore(checkpoint.tensors("rival_optimizer"))


def _folders(scratch: Path) -> list[Path]:
    return sorted(path for path in scratch.glob(f"{_PREFIX}*") if (path / "state.json").exists())
