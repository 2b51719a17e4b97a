"""The work of one stage process: from a key that is ours to make to its manifest.

`make` gives the component its `Context`, calls its ``run``, and commits what it wrote with what it used and was made from.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic

from components.context import ConfigT, Context, Result, check_yield
from components.derivation import PACKAGES, closure, code_id, in_ground_floor
from components.usage import Usage
from wfm.registry import uses

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store
    from wfm.artifacts.lease import Lease

SCHEDULER = "DASK_SCHEDULER_ADDRESS"
"""Dask's own variable, which its operator sets for the runner of a DaskJob."""
_VERSIONS = ("numpy", "pyarrow", "torch", "av", "dask", "mujoco", "scenedetect", "safetensors")


@dataclasses.dataclass(frozen=True)
class Task(Generic[ConfigT]):
    """What a stage process was told to make, and where."""

    component: str
    spec: Mapping[str, Any]
    config: ConfigT
    store: "Store"
    inputs: dict[str, str]
    "Keys of the inputs, by name."
    key: str
    external: Any
    "What the component saw outside the store while its key was derived."
    run: Callable[[Context[ConfigT]], Result]
    stopping: Callable[[], bool]
    remote_usage: dict[str, float]
    "What parts use on Dask workers is added here."


def make(task: Task[ConfigT], lease: "Lease") -> None:
    """Run the component and commit its artifact; what was half made goes when it fails. Raises what the component raises."""
    attempt = task.store.attempt(task.key)
    scheduler = os.environ.get(SCHEDULER, "")
    context = Context(
        stage=task.spec["stage"],
        component=task.component,
        node=task.spec["node"],
        run_id=task.spec["run_id"],
        key=task.key,
        code_id=code_id(task.component, uses(task.config)),
        config=task.config,
        store=task.store,
        inputs={name: _guarded(task.store.artifact(of), task.spec) for name, of in task.inputs.items()},
        out=attempt.path,
        scratch=task.store.scratch(task.key),
        scheduler=scheduler,
        external_inputs=task.external,
        redo=task.spec.get("redo", ""),
        stop_requested=task.stopping,
        # parts made here are counted with this process
        remote_usage=task.remote_usage if scheduler else {"cpu_seconds": 0.0, "peak_bytes": 0.0},
    )
    started, usage = time.time(), Usage()
    try:
        result = task.run(context)
        check_yield(result, task.spec["stage"])
        (attempt.path / "config.json").write_text(json.dumps(task.config.resolved(), indent=2, sort_keys=True))
        attempt.commit(
            stage=task.spec["stage"],
            kind=task.spec["kind"],
            counts=result.counts,
            skipped=result.skipped,
            config=task.config.resolved(),
            code_id=context.code_id,
            inputs=task.inputs,
            parts=result.parts,
            timings={"started": started, "finished": time.time()},
            resources=_resources(usage, context, time.time() - started),
            fence=lease.number,
            versions=_versions(),
            extra=_extra(task, context, result),
        )
    except BaseException:
        attempt.discard()
        raise
    task.store.clear_scratch(task.key)  # checkpoints of a finished key are of no more use


def _extra(task: Task[ConfigT], context: Context[ConfigT], result: Result) -> dict[str, Any]:
    return {
        **result.extra,
        "parts_made": context.parts_made,
        "node": task.spec["node"],
        "run_id": task.spec["run_id"],
        "outside_closure": sorted(loaded_modules() - set(closure(task.component, uses(task.config)))),
    }


def _guarded(artifact: "Artifact", spec: Mapping[str, Any]) -> "Artifact":
    """Curation and training cannot open what only tests and evaluation may know."""
    return artifact if spec.get("reads_truth") else artifact.without("truth/")


def loaded_modules() -> set[str]:
    """Modules of this repository that this process has loaded, the ground floor left out: all must lie in the closure, or
    an edit of one would not move the key (a test looks at what the manifests say)."""
    ours = {name for name in sys.modules if name.split(".")[0] in PACKAGES}
    return {name for name in ours if not in_ground_floor(name)}


def _resources(usage: Usage, context: Context[ConfigT], seconds: float) -> dict[str, float]:
    """What the stage used, its parts in other processes included."""
    own, remote = usage.read(), context.remote_usage if context.scheduler else {"cpu_seconds": 0.0, "peak_bytes": 0.0}
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "cpu_seconds": own["cpu_seconds"] + remote["cpu_seconds"],
        "gpu_seconds": seconds if on_gpu else 0.0,
        "peak_bytes": max(own["peak_bytes"], remote["peak_bytes"]),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
