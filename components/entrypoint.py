"""The contract of a stage process, shared by every component and every engine.

    python -m components.<component> --spec URL --input NAME=KEY ... --key-out PATH [--dry-run]

The spec is one JSON object: schema_version, store, run_id, node, stage, component, kind, config, redo, promote, reads_truth.
It is written before anything runs; what only the moment knows comes by the environment: ``DASK_SCHEDULER_ADDRESS`` (where there
are workers), ``WFM_ATTEMPT`` (the number that whoever started it has taken for this try).
The process derives its key, answers "cached" when that key is committed, else takes the key's lease, runs, commits, and
writes ``outcome.json`` into its attempt folder. Whoever retries decides from the outcome; the exit code says the same
(0 done, 64 wrong input, 75 try again, 143 cancelled, 1 bug).
"""

import argparse
import ctypes
import errno
import importlib
import importlib.metadata
import json
import os
import platform
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.context import ConfigT, Context, PartContext, Result, Usage, check_yield, store_options
from components.derivation import PACKAGES, closure, code_id, derive_key, in_ground_floor
from wfm.artifacts.atomic import replace_on_disk
from wfm.config import Config
from wfm.errors import ConfigError, InputError, TryAgain, WfmError
from wfm.log import get_logger, set_up
from wfm.registry import uses

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store
    from wfm.artifacts.lease import Lease
    from wfm.artifacts.runs import Run

__all__ = ["ConfigT", "Context", "PartContext", "Result", "main", "node_key", "promote"]

SPEC_VERSION = 1
SCHEDULER = "DASK_SCHEDULER_ADDRESS"
"""Dask's own variable, which its operator sets for the runner of a DaskJob."""
_PR_SET_PDEATHSIG = 1
_PASSING = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.EAGAIN,
    errno.ENOMEM,
    errno.ETIMEDOUT,
)
"""Errors of the system that may be gone at the next try: a disk that was full, a device that hiccuped."""
_VERSIONS = ("numpy", "pyarrow", "torch", "av", "dask", "mujoco", "scenedetect", "safetensors")


def main(module: str, config_class: type[ConfigT], run: Callable[[Context[ConfigT]], Result]) -> None:
    """Run a component as a process; never returns."""
    component = module.rpartition(".")[2]
    arguments = _parse(component)
    _die_with_parent()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    spec = json.loads(_read(arguments.spec))
    set_up(spec.get("log_level", "INFO"))
    if arguments.dry_run:
        print(json.dumps(config_class.parse(spec["config"]).resolved(), indent=2, sort_keys=True))
        sys.exit(0)
    started = time.time()
    key, outcome, reason, code = "", "bug", "", 1
    attempt = int(os.environ.get("WFM_ATTEMPT") or 0) or _open_attempt(spec)
    log = get_logger("wfm.stage")
    try:
        key, outcome = _execute(component, spec, arguments, config_class, run, stop)
        code = 0
    except WfmError as error:
        outcome, reason, code = error.outcome, f"{type(error).__name__}: {error}", error.exit_code
        log.error("%s: %s", spec["node"], reason)
    except MemoryError as error:
        outcome, reason, code = "try_again", f"out of memory: {error}", 75
        log.error("%s: %s", spec["node"], reason)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, OSError) and error.errno in _PASSING:
            outcome, code = "try_again", TryAgain.exit_code
        log.error("%s: %s: %s\n%s", spec["node"], outcome, reason, traceback.format_exc())
    answer = {"outcome": outcome, "reason": reason, "key": key, "seconds": time.time() - started, "exit_code": code}
    _write_outcome(spec, attempt, answer)
    sys.stderr.flush()
    os._exit(code)  # not sys.exit: threads of libraries must not keep a finished stage alive


def node_key(spec: dict[str, Any], inputs: dict[str, str], store: "Store") -> str:
    """The key of a node from its spec and its inputs' keys: the same answer in the planner and in the stage process."""
    return _key_and_external(spec, inputs, store)[0]


def _key_and_external(spec: dict[str, Any], inputs: dict[str, str], store: "Store") -> tuple[str, Any]:
    """The key, and what the component saw outside the store while deriving it (a listing, looked at once)."""
    component = importlib.import_module(f"components.{spec['component']}")
    config: Config = component.CONFIG.parse(spec["config"])
    external = component.external_inputs(config, inputs, store) if hasattr(component, "external_inputs") else None
    code, redo = code_id(spec["component"], uses(config)), spec.get("redo", "")
    return derive_key(spec["stage"], code, config.what(), inputs, external_inputs=external, redo=redo), external


def _execute(
    component: str,
    spec: dict[str, Any],
    arguments: argparse.Namespace,
    config_class: type[ConfigT],
    run: Callable[[Context[ConfigT]], Result],
    stop: threading.Event,
) -> tuple[str, str]:
    from wfm.artifacts import Store

    if spec.get("schema_version", 0) > SPEC_VERSION:
        raise InputError(
            f"spec version {spec['schema_version']} is newer than {SPEC_VERSION}: upgrade wfm on this machine"
        )
    config = config_class.parse(spec["config"])
    store = Store.open(spec["store"], store_options())
    given = dict(_pair(text) for text in arguments.input)
    key, external = _key_and_external({**spec, "component": component}, given, store)
    log = get_logger("wfm.stage")
    if not store.has(key):
        lease = store.lease(key, inputs=tuple(given.values())).acquire(stopping=stop.is_set)
        with lease:
            if store.has(key):  # another starter finished it while we waited
                log.info("%s: %s was made by another run meanwhile", spec["node"], key[:12])
            else:
                _make(component, spec, config, store, given, key, lease, external, stop, run)
                _announce(spec, arguments.key_out, key, store)
                return key, "done"
    _announce(spec, arguments.key_out, key, store)
    log.info("%s: cached as %s", spec["node"], key[:12])
    return key, "cached"


def _make(
    component: str,
    spec: dict[str, Any],
    config: ConfigT,
    store: "Store",
    given: dict[str, str],
    key: str,
    lease: "Lease",
    external: Any,
    stop: threading.Event,
    run: Callable[[Context[ConfigT]], Result],
) -> None:
    attempt = store.attempt(key)
    code = code_id(component, uses(config))
    context = Context(
        stage=spec["stage"],
        component=component,
        node=spec["node"],
        run_id=spec["run_id"],
        key=key,
        code_id=code,
        config=config,
        store=store,
        inputs={name: _guarded(store.artifact(of), spec) for name, of in given.items()},
        out=attempt.path,
        scratch=store.scratch(key),
        fence=lease.number,
        scheduler=os.environ.get(SCHEDULER, ""),
        external_inputs=external,
        redo=spec.get("redo", ""),
        stop_requested=stop.is_set,
    )
    started, usage = time.time(), Usage()
    try:
        result = run(context)
        check_yield(result, spec["stage"])
        (attempt.path / "config.json").write_text(json.dumps(config.resolved(), indent=2, sort_keys=True))
        attempt.commit(
            stage=spec["stage"],
            kind=spec["kind"],
            counts=result.counts,
            skipped=result.skipped,
            config=config.resolved(),
            code_id=code,
            inputs=given,
            parts=result.parts,
            timings={"started": started, "finished": time.time()},
            resources=_resources(usage, context, time.time() - started),
            fence=lease.number,
            versions=_versions(),
            extra={
                **result.extra,
                "parts_made": context.parts_made,
                "node": spec["node"],
                "run_id": spec["run_id"],
                "outside_closure": sorted(loaded_modules() - set(closure(component, uses(config)))),
            },
        )
    except BaseException:
        attempt.discard()
        raise
    context.checkpoints().clear()  # of a finished key they are of no more use


def _guarded(artifact: "Artifact", spec: dict[str, Any]) -> "Artifact":
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


def _parse(component: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m components.{component}", description="Run one stage.")
    parser.add_argument("--spec", required=True, help="URL or path of the node's spec (JSON)")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=KEY", help="an input artifact's key")
    parser.add_argument("--key-out", default="", metavar="PATH", help="file to write the artifact's key to")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config and stop")
    return parser.parse_args(argv)


def _pair(text: str) -> tuple[str, str]:
    name, equals, key = text.partition("=")
    if not equals or not name or not key:
        raise ConfigError(f"--input {text!r} is not of the form NAME=KEY")
    return name, key


def _read(url: str) -> bytes:
    import fsspec

    with fsspec.open(
        url, "rb", **(store_options() or {} if "://" in url and not url.startswith("file:") else {})
    ) as file:
        return file.read()


def promote(store: "Store", name: str, key: str) -> None:
    """Let a node's name (``dataset/curated``; empty: it has none) mean what it made; one that does so already is left alone.

    A stage does this when it is through; a planner for what was there before.
    """
    kind, slash, rest = name.partition("/")
    if slash:
        store.promote(kind, rest, key)


def _announce(spec: dict[str, Any], path: str, key: str, store: "Store") -> None:
    """Point the name the spec asks for at the key, and write the key where the engine reads it."""
    promote(store, spec.get("promote", ""), key)
    if path:
        replace_on_disk(Path(path), key.encode(), fsync=False)


def _run_of(spec: dict[str, Any]) -> "Run":
    from wfm.artifacts import Store

    return Store.open(spec["store"], store_options()).runs.open(spec["run_id"])


def _open_attempt(spec: dict[str, Any]) -> int:
    """A number for this try where whoever started it took none; before any work, so that a kill leaves a record. 0 when the
    store does not take it now."""
    try:
        return _run_of(spec).append_attempt(spec["node"], {"host": socket.gethostname()})
    except Exception as error:
        get_logger("wfm.stage").error("attempt could not be noted: %s: %s", type(error).__name__, error)
        return 0


def _write_outcome(spec: dict[str, Any], attempt: int, answer: dict[str, Any]) -> None:
    """Best effort on a broken store: the exit code still tells."""
    try:
        run = _run_of(spec)
        run.write_outcome(spec["node"], attempt or run.append_attempt(spec["node"]), answer)
    except Exception as error:
        get_logger("wfm.stage").error("outcome could not be written: %s: %s", type(error).__name__, error)


def _die_with_parent() -> None:
    """An orphan dies with its parent (Linux): the engine's death must not leave a stage burning."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
