"""A look at a few steps: where the time goes (torch.profiler), and what lies in memory at the end of them.

    with profiled(config.profile, folder, learning, rank) as profile:
        ... step ...
        profile.step()          after each

`trace-<rank>.json` is in Chrome's format (Perfetto shows it). `memory-<rank>.json` has the bytes of parameters, gradients,
optimiser state and average, and of all other tensors by shape; on a GPU also what the allocator holds (`allocator`, as
torch.cuda.memory gives it; as JSON, and not torch's pickle). Unrun on a GPU.
"""

import gc
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from wfm.log import get_logger
from wfm.training.checkpoint import Learning
from wfm.training.profile_config import ProfileConfig

FOLDER = "profile"
_MOST_KINDS = 40
"""Kinds of tensors that are told apart, the largest first."""


class Profile:
    """Counts steps, and writes when there have been enough."""

    def __init__(self, config: ProfileConfig, folder: Path, learning: Learning, rank: int) -> None:
        self._config, self._folder, self._learning, self._rank = config, folder / FOLDER, learning, rank
        self._done = 0
        self._running: profile | None = None

    def step(self) -> None:
        """A step is over."""
        self._done += 1
        first = self._config.after
        if not self._config.steps or not first <= self._done <= first + self._config.steps:
            return
        if self._running is None:
            self._begin()
        elif self._done == first + self._config.steps:
            self.end()
        else:
            self._running.step()

    def end(self) -> None:
        """Write what there is; nothing where nothing was begun."""
        if self._running is None:
            return
        self._running.stop()
        self._running.export_chrome_trace(str(self._folder / f"trace-{self._rank}.json"))
        self._running = None
        found = json.dumps(memory_of(self._learning), indent=1)
        (self._folder / f"memory-{self._rank}.json").write_text(found)
        get_logger(__name__).info("profiled: see %s", self._folder)

    def _begin(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        devices = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
        self._running = profile(activities=devices, record_shapes=True, profile_memory=True)
        self._running.start()


@contextmanager
def profiled(config: ProfileConfig, folder: Path, learning: Learning, rank: int) -> Iterator[Profile]:
    """Profile what `config` says of the steps inside; what was begun is written whatever ends them."""
    made = Profile(config, folder, learning, rank)
    try:
        yield made
    finally:
        made.end()


def memory_of(learning: Learning) -> dict[str, Any]:
    """Bytes of what a training holds, by what it is, and of all other tensors by kind, the largest first."""
    players = [learning.model, *([learning.rival] if learning.rival is not None else [])]
    held: dict[str, list[Tensor]] = {
        "parameters": [p.detach() for one in players for p in one.module.parameters()],
        "buffers": [buffer for one in players for buffer in one.module.buffers()],
        "gradients": [p.grad for one in players for p in one.module.parameters() if p.grad is not None],
        "optimizer": [tensor for one in players for tensor in one.optimizers.tensors().values()],
        "average": [] if learning.average is None else list(learning.average.state_dict().values()),
    }
    held = {name: [_here(tensor) for tensor in tensors] for name, tensors in held.items()}
    known = {tensor.data_ptr() for tensors in held.values() for tensor in tensors}
    found: dict[str, Any] = {name: sum(tensor.nbytes for tensor in tensors) for name, tensors in held.items()}
    found["others"] = _kinds(tensor for tensor in _living() if tensor.data_ptr() not in known)
    if torch.cuda.is_available():
        found["allocator"] = torch.cuda.memory._snapshot()
    return found


def _here(tensor: Tensor) -> Tensor:
    """What this rank has of a tensor that is spread over ranks."""
    found: Tensor = getattr(tensor, "_local_tensor", tensor)
    return found


def _living() -> Iterator[Tensor]:
    for one in gc.get_objects():
        # whole tensors alone, by type: what torch.compile leaves of its own has no memory
        if type(one) in (Tensor, nn.Parameter) and one.layout == torch.strided and one.device.type in ("cpu", "cuda"):
            yield one


def _kinds(tensors: Iterable[Tensor]) -> list[dict[str, Any]]:
    bytes_of: Counter[tuple[str, ...]] = Counter()
    count: Counter[tuple[str, ...]] = Counter()
    seen = set()
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen:
            continue  # a view of what was counted
        seen.add(storage.data_ptr())
        kind = (str(tensor.dtype), str(list(tensor.shape)), str(tensor.device))
        bytes_of[kind] += storage.nbytes()
        count[kind] += 1
    return [
        {"dtype": kind[0], "shape": kind[1], "device": kind[2], "tensors": count[kind], "bytes": size}
        for kind, size in bytes_of.most_common(_MOST_KINDS)
    ]
