"""A training that dies at each point between its steps and the store, and whose machine is gone then, with scratch and cache.

    python -m tests.wfm.training.dying_training URL ANSWER      WFM_STORE_OPTIONS, WFM_CACHE

Every life is a fork of this process, which has loaded all there is to load and never opens the store itself. ANSWER: JSON by
case.
"""

import faulthandler
import hashlib
import json
import math
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import s3fs  # noqa: F401  not in every life
import torch
import torch._dynamo  # which optimisers load at their first step

from tests.wfm.training.test_loop import Network, Regression, configuration, loader
from wfm.artifacts import Store
from wfm.crash_points import VARIABLE
from wfm.errors import Cancelled
from wfm.training import pace
from wfm.training.loop import train

POINTS = {
    "": 0,
    "half_checkpoint:2": 7,
    "checkpoint_named:2": 7,
    "half_checkpoint_upload:6": 7,
    "before_checkpoint_manifest:2": 7,
    "after_checkpoint_manifest:2": 14,
    "half_checkpoint_prune": 21,
    "half_checkpoint_fetch:2": 16,
}
"""Where the first life ends -> the step that the last one goes on from. Checkpoints are made after 7, 14, 21 and 24 steps."""

PATIENCE = 120.0
LIMIT = 240
"""Seconds after which a life says where it is, and is ended."""


class InStep(Regression):
    """Goes on when the store has the checkpoint before: what is where at each death is known then."""

    def __init__(self, committed: Callable[[], list[Any]]) -> None:
        self.committed = committed

    def loss(self, model, batch, step):
        until = time.monotonic() + PATIENCE
        while step and step % 7 == 0 and time.monotonic() < until:
            if any(name.step >= step for name in self.committed()):
                break
            time.sleep(0.01)
        return super().loss(model, batch, step)


def live(url: str, key: str, crash: str, stop_at: int | None) -> dict[str, Any]:
    """One life."""
    torch.manual_seed(0)
    network, steps = Network(), iter(range(10**6))
    store = Store.open(url, json.loads(os.environ.get("WFM_STORE_OPTIONS", "{}")))
    with store.lease(key) as lease:
        place = store.checkpoints(key, fence=lease.number)
        watching = store.checkpoints(key, fence=lease.number)
        os.environ[VARIABLE] = crash
        try:
            result = train(
                network, InStep(watching.committed), loader(), configuration(), scratch=place,
                stopping=lambda: next(steps) == stop_at,
            )  # fmt: skip
        except Cancelled:
            return {}
    weights = hashlib.sha256(b"".join(t.numpy().tobytes() for t in network.state_dict().values())).hexdigest()
    curve = hashlib.sha256(result.curve.read_bytes()).hexdigest()
    left = sorted({path.path.split("/")[2] for path in store.objects.walk(f"checkpoints/{key}")})
    return {"resumed_from": result.resumed_from, "weights": weights, "curve": curve, "left": left}


def forked(*arguments: Any) -> dict[str, Any] | None:
    """What a life came to; None when it was killed. RuntimeError for any other end: what it said is on standard error."""
    answer = Path(sys.argv[2] + ".one")
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            faulthandler.register(signal.SIGALRM, chain=True)
            signal.alarm(LIMIT)
            answer.write_text(json.dumps(live(*arguments)))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a life ended with {code}, not by the kill that was asked for")
    return json.loads(answer.read_text()) if code == 0 else None


def lose_the_machine(url: str, key: str) -> None:
    shutil.rmtree(os.environ["WFM_CACHE"], ignore_errors=True)
    if url.startswith("file://"):
        shutil.rmtree(Path(url.removeprefix("file://"), "scratch", key))


def main(url: str, answer: str) -> None:
    pace.LONG_SECONDS = math.inf  # on a busy machine the store is slow, and checkpoints would be made at other steps
    told: dict[str, Any] = {}
    for number, point in enumerate(POINTS):
        key, deaths = f"{number:064x}", 0
        if "fetch" in point:
            forked(url, key, "", 16)
            lose_the_machine(url, key)
        if point:
            deaths += forked(url, key, point, None) is None
            lose_the_machine(url, key)
        told[point] = {"deaths": deaths, **(forked(url, key, "", None) or {})}
    Path(answer).write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
