"""The work of one stage process: from a key that is ours to make to its manifest.

`make` gives the component its `Context`, calls its ``run``, and commits what it wrote with what it used and was made from.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from components.context import ConfigT, Context, Result, check_yield
from components.derivation import PACKAGES, closure, code_id, in_ground_floor
from components.part_range import PartRange, RangeDone
from components.usage import Usage, add_usage, no_usage
from wfm.crash_points import crash_point
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
    context = _context(task, attempt.path, lease=lease)
    started, usage = time.time(), Usage()
    try:
        crash_point("before_run")
        result = task.run(context)
        crash_point("after_run")
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
            resources=_resources(usage, context),
            fence=lease.number,
            versions=_versions(),
            extra=_extra(task, context, result),
        )
    except BaseException:
        attempt.discard()
        raise
    crash_point("after_commit")
    context.checkpoints().clear()  # of a finished key they are of no more use


def follow(task: Task[ConfigT]) -> None:
    """The same as a rank that only works along: rank 0 commits, what this one wrote goes."""
    with tempfile.TemporaryDirectory(prefix="wfm-rank-") as folder:
        task.run(_context(task, Path(folder)))


def make_range(task: Task[ConfigT], part_range: PartRange) -> dict[str, Any]:
    """Make one range of the parts under leases of theirs, and no artifact. Returns how many were made of how many it has, and
    in ``left`` what is left to the plain call besides the artifact."""
    with task.store.attempt(task.key) as attempt:
        context = _context(task, attempt.path, part_range)
        try:
            task.run(context)
        except RangeDone as done:
            crash_point("after_range")
            return {"parts_made": context.parts_made, "left": str(done)}
    raise RuntimeError(f"{task.component} is said to work in parts, and made none")


def _context(
    task: Task[ConfigT], out: Path, part_range: PartRange | None = None, *, lease: "Lease | None" = None
) -> Context[ConfigT]:
    scheduler = os.environ.get(SCHEDULER, "")
    return Context(
        stage=task.spec["stage"],
        component=task.component,
        node=task.spec["node"],
        run_id=task.spec["run_id"],
        key=task.key,
        code_id=code_id(task.component, uses(task.config)),
        config=task.config,
        store=task.store,
        inputs={name: _guarded(task.store.artifact(of), task.spec) for name, of in task.inputs.items()},
        out=out,
        scratch=task.store.scratch(task.key),
        lease=lease,
        scheduler=scheduler,
        remote_usage=task.remote_usage if scheduler else no_usage(),  # parts made here are counted with this process
        external_inputs=task.external,
        redo=task.spec.get("redo", ""),
        stop_requested=task.stopping,
        part_range=part_range,
    )


def _extra(task: Task[ConfigT], context: Context[ConfigT], result: Result) -> dict[str, Any]:
    return {
        **result.extra,
        "parts_made": context.parts_made,
        "parts_before": context.parts_before,
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


def _resources(usage: Usage, context: Context[ConfigT]) -> dict[str, float]:
    """What the artifact took: this process, its parts in other processes, and those that were made for this key before."""
    total = usage.read()
    if context.scheduler:  # else its parts were made in this process
        add_usage(total, context.remote_usage)
    add_usage(total, context.parts_before)
    return total


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
