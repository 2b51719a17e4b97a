"""The contract of a stage process, shared by every component and every engine.

    python -m components.<component> --spec URL --input NAME=KEY ... --key-out PATH [--dry-run]

The spec is one JSON object: schema_version, store, run_id, node, stage, component, kind, config, redo, promote, reads_truth.
It is written before anything runs; what only the moment knows comes by the environment: ``DASK_SCHEDULER_ADDRESS`` (where
there are workers), ``WFM_ATTEMPT`` (a token by which whoever started it finds its attempt), ``WFM_ENGINE`` and ``POD_NAME`` (for
the record).

The process opens its attempt, derives its key, answers "cached" when that key is committed, leaves at once when earlier tries
of this run at that key ended for good, else takes the key's lease, runs, commits, and writes ``outcome.json`` into its
attempt folder. Whoever retries decides from the outcome; the exit code says the same (0 done, 78 wrong input, 75 try again,
143 cancelled, 1 bug).

The attempt's record is kept by `stage_attempt.py`, the work itself done by `make_artifact.py`.
"""

import argparse
import ctypes
import errno
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.context import ConfigT, Context, PartContext, Result, store_options
from components.derivation import code_id, derive_key
from components.make_artifact import SCHEDULER, Task, make
from components.stage_attempt import StageAttempt, patiently
from wfm.artifacts.atomic import replace_on_disk
from wfm.config import Config
from wfm.errors import ConfigError, InputError, TryAgain, WfmError
from wfm.log import get_logger, set_up
from wfm.registry import uses

if TYPE_CHECKING:
    from wfm.artifacts import Store

__all__ = ["SCHEDULER", "ConfigT", "Context", "PartContext", "Result", "main", "node_key", "promote"]

SPEC_VERSION = 1
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


def main(module: str, config_class: type[ConfigT], run: Callable[[Context[ConfigT]], Result]) -> None:
    """Run a component as a process; never returns."""
    component = module.rpartition(".")[2]
    arguments = _parse(component)
    _die_with_parent()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if arguments.dry_run:
        spec = json.loads(_read(arguments.spec, stop))
        print(json.dumps(config_class.parse(spec["config"]).resolved(), indent=2, sort_keys=True))
        sys.exit(0)
    attempt = StageAttempt(stop)
    reason, code, failure = "", 0, None
    try:
        spec = json.loads(_read(arguments.spec, stop))
        set_up(spec.get("log_level", "INFO"))
        attempt.open(spec)
        outcome = _execute(component, spec, arguments, config_class, run, attempt, stop.is_set)
    except Exception as error:
        set_up()
        outcome, reason, code = _judge(error, component)
        failure = error
    attempt.close(outcome, reason, code, failure)
    os._exit(code)  # not sys.exit: threads of libraries must not keep a finished stage alive


def _judge(error: Exception, node: str) -> tuple[str, str, int]:
    """What an exception means: outcome, reason, exit code; told in the log."""
    log, reason = get_logger("wfm.stage"), f"{type(error).__name__}: {error}"
    if isinstance(error, WfmError):
        log.error("%s: %s", node, reason)
        return error.outcome, reason, error.exit_code
    if isinstance(error, MemoryError):
        log.error("%s: out of memory: %s", node, error)
        return TryAgain.outcome, f"out of memory: {error}", TryAgain.exit_code
    passing = isinstance(error, OSError) and error.errno in _PASSING
    outcome, code = (TryAgain.outcome, TryAgain.exit_code) if passing else (WfmError.outcome, WfmError.exit_code)
    log.error("%s: %s: %s\n%s", node, outcome, reason, traceback.format_exc())
    return outcome, reason, code


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
    attempt: StageAttempt,
    stopping: Callable[[], bool],
) -> str:
    """Make the artifact, or find it made: ``done`` or ``cached``."""
    from wfm.artifacts import Store

    if spec.get("schema_version", 0) > SPEC_VERSION:
        raise InputError(
            f"spec version {spec['schema_version']} is newer than {SPEC_VERSION}: upgrade wfm on this machine"
        )
    config = config_class.parse(spec["config"])
    store = Store.open(spec["store"], store_options())
    given = dict(_pair(text) for text in arguments.input)
    key, external = _key_and_external({**spec, "component": component}, given, store)
    attempt.makes(key)
    outcome = "cached"
    if not store.has(key):
        attempt.leave_if_final()
        with store.lease(key, inputs=tuple(given.values())).acquire(stopping=stopping) as lease:
            if not store.has(key):  # else another starter finished it while we waited
                task = Task(component, spec, config, store, given, key, external, run, stopping, attempt.usage.remote)
                make(task, lease)
                outcome = "done"
    _announce(spec, arguments.key_out, key, store)
    if outcome == "cached":
        get_logger("wfm.stage").info("%s: cached as %s", spec["node"], key[:12])
    return outcome


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


def _read(url: str, stop: threading.Event) -> bytes:
    """The spec, which lies in the run. Raises InputError when it is not there, TryAgain when its store does not answer."""
    import fsspec

    options = store_options() or {} if "://" in url and not url.startswith("file:") else {}

    def ask() -> bytes:
        try:
            with fsspec.open(url, "rb", **options) as file:
                return bytes(file.read())
        except FileNotFoundError:
            raise InputError(f"there is no spec at {url}: whoever starts a stage writes it first") from None
        except PermissionError as error:
            raise InputError(f"the spec at {url} cannot be read: {error}") from None
        except Exception as error:  # what a client of an object store raises has no common name
            raise TryAgain(f"the spec at {url} cannot be read now: {type(error).__name__}: {error}") from error

    return patiently(ask, stop, "the spec")


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


def _die_with_parent() -> None:
    """An orphan dies with its parent (Linux): the engine's death must not leave a stage burning."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
