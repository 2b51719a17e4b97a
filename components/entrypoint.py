"""The contract of a stage process, shared by every component and every engine.

    python -m components.<component> --spec URL --input NAME=KEY ... --key-out PATH [--dry-run]
    python -m components.<component> --spec URL --input NAME=KEY ... --parts 3/7

The spec is one JSON object: schema_version, store, run_id, node, stage, component, kind, config, redo, promote (and its
``gate``), reads_truth, and the code id and image that the planner saw (``code``, ``image_reference``: `image.py`).
It is written before anything runs; what only the moment knows comes by the environment: ``DASK_SCHEDULER_ADDRESS`` (where
there are workers), ``WFM_ATTEMPT`` (a token by which whoever started it finds its attempt), ``WFM_GRACE_SECONDS`` (between
SIGTERM and SIGKILL; 30 where nobody says), and for the record ``WFM_ENGINE`` and ``POD_NAME``.

The process opens its attempt, derives its key, answers "cached" when that key is committed, leaves at once when earlier tries
of this run at that key ended for good, else takes the key's lease, runs, commits, and writes ``outcome.json`` into its
attempt folder. Whoever retries decides from the outcome; the exit code says the same (0 done, 78 wrong input, 75 try again,
143 cancelled, 1 bug).

With ``--parts`` it makes a range of the parts, commits no artifact and takes no lease of the key (`part_range.py`).

The attempt's record is kept by `stage_attempt.py`, the work itself done by `make_artifact.py`.

A training may be several processes of this same command, its ranks (torchrun sets ``RANK`` and ``WORLD_SIZE``): rank 0 does all
of the above, the others work along and end as it does (`gang.py`).
"""

import argparse
import faulthandler
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.context import ConfigT, Context, PartContext, Result
from components.derivation import code_id, derive_key
from components.gang import End, Gang
from components.image import refuse_other
from components.make_artifact import SCHEDULER, Task, follow, make, make_range
from components.outside import recall
from components.part_range import PartRange, check_in_parts, with_index
from components.promotion import promote
from components.stage_attempt import LEASE_HELD, patiently
from components.stage_log import StageLog
from wfm import caches, stopping
from wfm.artifacts.atomic import replace_on_disk
from wfm.artifacts.environment import store_options
from wfm.artifacts.lease import LeaseHeld
from wfm.config import Config
from wfm.crash_points import crash_point
from wfm.credentials import shown
from wfm.errors import (
    Cancelled,
    ConfigError,
    DataError,
    InputError,
    Outcome,
    TryAgain,
    WfmError,
    exit_code_of,
    outcome_of,
)
from wfm.log import get_logger, set_up
from wfm.registry import uses

if TYPE_CHECKING:
    from wfm.artifacts import Store

__all__ = ["SCHEDULER", "ConfigT", "Context", "PartContext", "Result", "announce", "main", "node_key"]

SPEC_VERSION = 1


def main(
    module: str, config_class: type[ConfigT], run: Callable[[Context[ConfigT]], Result], *, ranks: bool = False
) -> None:
    """Run a component as a process; never returns. `ranks`: several processes may share its work."""
    component = module.rpartition(".")[2]
    arguments = _parse(component)
    stopping.listen()
    if arguments.dry_run:
        spec = read_spec(arguments.spec)
        print(json.dumps(config_class.parse(spec["config"]).resolved(), indent=2, sort_keys=True))
        sys.exit(0)
    homeless: InputError | None = None
    try:
        caches.prepare()  # first of all: who opens a store, be it to say how this ended, asks for its cache
    except InputError as error:
        homeless = error
    log = StageLog.begin()
    faulthandler.enable()  # where a crash was, in the log
    set_up()
    try:
        spec = read_spec(arguments.spec)
        set_up(spec.get("log_level", "INFO"))
        gang = Gang(spec, log, stopping.asked, parts=arguments.parts)
    except Exception as error:  # nothing says where its attempt belongs
        end = _judge(error, component)
        log.end()
        os._exit(end.exit_code)
    key = ""
    try:
        gang.start(ranks, component)
        if homeless is not None:
            raise homeless
        key, outcome = _execute(component, spec, arguments, config_class, run, gang, stopping.asked.is_set)
        end = End(outcome, "", 0)
    except Exception as error:
        end = _judge(error, spec["node"])
        if isinstance(error, LeaseHeld):  # whoever tries again waits for the other first
            gang.attempt.notes[LEASE_HELD] = True
    if gang.attempt.cancelled and end.outcome == Cancelled.outcome:
        end = End(end.outcome, end.reason, stopping.exit_when_cancelled())
    gang.end(end, key)


def _judge(error: Exception, node: str) -> End:
    """What an exception means; told in the log."""
    log, reason = get_logger("wfm.stage"), shown(f"{type(error).__name__}: {error}")
    if isinstance(error, WfmError):
        log.error("%s: %s", node, reason)
        return End(error.outcome, reason, error.exit_code)
    if isinstance(error, MemoryError):
        log.error("%s: out of memory: %s", node, error)
        return End(TryAgain.outcome, f"out of memory: {error}", TryAgain.exit_code)
    if stopping.asked.is_set():  # a signal to the whole group took something that this process needed
        log.error("%s: asked to stop, then: %s", node, reason)
        return End(Cancelled.outcome, f"asked to stop, then: {reason}", Cancelled.exit_code)
    outcome = outcome_of(error)
    log.error("%s: %s: %s\n%s", node, outcome, reason, shown(traceback.format_exc()))
    return End(outcome, reason, exit_code_of(outcome))


def node_key(spec: dict[str, Any], inputs: dict[str, str], store: "Store") -> str:
    """The key of a node from its spec and its inputs' keys: the same answer in the planner and in the stage process."""
    return key_and_external(spec, inputs, store)[0]


def refuse_other_code(spec: dict[str, Any], who: str = "this stage", starts: str | None = None) -> None:
    """Raise InputError where the planner that wrote a spec was of other code, or of another image, than this process (or than
    the image that it `starts`)."""
    config: Config = _component(spec.get("component", "")).CONFIG.parse(spec["config"])
    refuse_other(spec, code_id(spec["component"], uses(config)), who, starts)


def _component(name: str) -> Any:
    """The module of a component. Raises InputError where this wfm has none of that name."""
    try:
        return importlib.import_module(f"components.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"components.{name}":
            raise
        raise InputError(
            f"this wfm has no component {name!r}: the spec was written by another; start it from the image that was planned"
        ) from None


def key_and_external(spec: dict[str, Any], inputs: dict[str, str], store: "Store") -> tuple[str, Any]:
    """The key, and what the component saw outside the store while deriving it (a listing, looked at once): now, or when the
    planner looked (`components.outside`)."""
    component = _component(spec.get("component", ""))
    config: Config = component.CONFIG.parse(spec["config"])
    if spec.get("seen"):
        external = recall(spec["seen"], store)
    else:
        external = component.external_inputs(config, inputs, store) if hasattr(component, "external_inputs") else None
    code, redo = code_id(spec["component"], uses(config)), spec.get("redo", "")
    return derive_key(spec["stage"], code, config.what(), inputs, external_inputs=external, redo=redo), external


def _execute(
    component: str,
    spec: dict[str, Any],
    arguments: argparse.Namespace,
    config_class: type[ConfigT],
    run: Callable[[Context[ConfigT]], Result],
    gang: Gang,
    stopping: Callable[[], bool],
) -> tuple[str, Outcome]:
    """Make the artifact (or a range of its parts), or find it made; returns its key, and ``done`` or ``cached``."""
    from wfm.artifacts import Store

    if spec.get("schema_version", 0) > SPEC_VERSION:
        raise InputError(
            f"spec version {spec['schema_version']} is newer than {SPEC_VERSION}: upgrade wfm on this machine"
        )
    part_range = _part_range(component, arguments)
    config = config_class.parse(spec["config"])
    store = Store.open(spec["store"], store_options())
    given = given_inputs(arguments.input)
    refuse_other_code({**spec, "component": component})
    key, external = key_and_external({**spec, "component": component}, given, store)
    gang.attempt.makes(key)
    if gang.leads and not store.has(key):
        gang.attempt.leave_if_final()
    usage = gang.attempt.usage.remote
    task = Task(component, spec, config, store, given, key, external, run, stopping, usage)
    outcome: Outcome = "cached"
    if part_range is not None and not store.has(key):
        gang.attempt.notes |= make_range(task, part_range)
        return key, "done"
    if not gang.leads:
        if gang.hear(key):
            follow(task)
            outcome = "done"
        return key, outcome
    if not store.has(key):
        with gang.lease(store, key, tuple(given.values())) as lease:
            if not store.has(key):  # else another starter finished it while we waited
                gang.announce("make", key)
                make(task, lease)
                outcome = "done"
    if outcome == "cached":
        gang.announce("leave", key)
    if part_range is None:
        announce(spec, arguments.key_out, key, store)
    if outcome == "cached":
        get_logger("wfm.stage").info("%s: cached as %s", spec["node"], key[:12])
    return key, outcome


def _parse(component: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m components.{component}", description="Run one stage.")
    parser.add_argument("--spec", required=True, help="URL or path of the node's spec (JSON)")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=KEY", help="an input artifact's key")
    parser.add_argument("--key-out", default="", metavar="PATH", help="file to write the artifact's key to")
    parser.add_argument(
        "--parts",
        metavar="I/N",
        type=with_index,
        help="make range I (0 to N-1) of N ranges of the stage's parts and no artifact; I may be a variable of the "
        "environment that holds the number: JOB_COMPLETION_INDEX/7",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config and stop")
    return parser.parse_args(argv)


def _part_range(component: str, arguments: argparse.Namespace) -> PartRange | None:
    if arguments.parts is None:
        return None
    part_range = PartRange.parse(arguments.parts)
    check_in_parts(component)
    if arguments.key_out:
        raise ConfigError("--parts makes no artifact, so there is no key to write: leave --key-out out")
    return part_range


def given_inputs(pairs: Sequence[str]) -> dict[str, str]:
    """``NAME=KEY`` of each ``--input``. Raises ConfigError for another form."""
    found = {}
    for text in pairs:
        name, equals, key = text.partition("=")
        if not equals or not name or not key:
            raise ConfigError(f"--input {text!r} is not of the form NAME=KEY")
        found[name] = key
    return found


@dataclass(frozen=True)
class _Told:
    """What every spec says."""

    store: str
    run_id: str
    node: str
    stage: str
    config: dict[str, Any]


def read_spec(url: str) -> dict[str, Any]:
    """The spec, which lies in the run. Raises InputError when it is not there, DataError when it is none, TryAgain when its
    store does not answer."""
    import fsspec

    from wfm.artifacts import schema
    from wfm.artifacts.trouble import meaning

    options = store_options() or {} if "://" in url and not url.startswith("file:") else {}
    options.pop("retry_seconds", None)  # our own, which no client knows

    def ask() -> bytes:
        try:
            with fsspec.open(url, "rb", **options) as file:
                return bytes(file.read())
        except FileNotFoundError:
            raise InputError(f"there is no spec at {url}: whoever starts a stage writes it first") from None
        except Exception as error:  # what a client of an object store raises has no common name
            if isinstance(error, PermissionError) and meaning(error) != "expired":
                raise InputError(f"the spec at {url} cannot be read: {error}") from None
            raise TryAgain(f"the spec at {url} cannot be read now: {type(error).__name__}: {error}") from error

    where = f"the spec at {url}"
    found: dict[str, Any] = schema.parse(patiently(ask, "the spec cannot be read"), where)
    if not isinstance(found, dict):
        raise DataError(f"{where} is no object of JSON: whoever starts a stage writes one")
    schema.fit(_Told, found, where)
    return found


def announce(spec: dict[str, Any], path: str, key: str, store: "Store") -> None:
    """Point the name the spec asks for at the key, and write the key where the engine reads it."""
    crash_point("before_promotion")
    promote(store, spec.get("promote", ""), key, spec.get("gate"), spec.get("run_id", ""))
    crash_point("before_key_out")
    if path:
        replace_on_disk(Path(path), key.encode(), fsync=False)
