"""What a running stage is given: its config, its inputs, a folder to write to, and parts.

A stage over a corpus calls ``ctx.map_parts``: one part per prefix of the video id. A part's key depends on its own inputs
only, so a part that another artifact has made already is taken as it is, and one percent more videos redoes about one
percent. Parts are committed one by one, wherever they ran, before the artifact that names them. Each is made under a lease of
its own: what another process makes at this moment (`components.part_range`) is left to it and waited for at the end.
"""

import dataclasses
import functools
import importlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from components.derivation import canonical, code_id, derive_part_key
from components.image import identity
from components.part_range import PartRange, RangeDone
from components.usage import Usage, add_usage, no_usage
from wfm.artifacts.environment import store_options
from wfm.config import Config
from wfm.crash_points import crash_point
from wfm.errors import Cancelled, DataError, InputError
from wfm.log import get_logger, progress
from wfm.registry import uses

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, PartEntry, Store
    from wfm.artifacts.checkpoints import Checkpoints
    from wfm.artifacts.lease import Lease
    from wfm.parallel.ranks import Ranks

_SECONDS_OF_A_CALL = 7 * 86400.0
ConfigT = TypeVar("ConfigT", bound=Config)
_LOOKS, _LOOKS_AT_ONCE = 512, 16
"""Parts that are looked for between two questions whether to stop, and requests at a time."""


@dataclasses.dataclass
class Result:
    """What a stage or part did, besides the files it wrote.

    ``counts["inputs"]`` and ``counts["outputs"]`` are compared: zero outputs from some inputs is a failure, not a success.
    """

    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    "Items left out, by reason."
    parts: list["PartEntry"] = dataclasses.field(default_factory=list)
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    "Anything else worth keeping in the manifest, as plain JSON values."


@dataclasses.dataclass
class PartContext(Generic[ConfigT]):
    """What a part function is given, in whichever process it runs."""

    name: str
    config: ConfigT
    inputs: Any
    "What the part's key was made from."
    arguments: Any
    "What else the part needs to be computed; not in the key."
    out: Path
    store_url: str
    after_death: bool = False
    "Whether whoever began this part before has died at it: the items may be looked at one by one (`wfm.curation.poison`)."
    work: Counter[str] = dataclasses.field(default_factory=Counter)
    "How much it was: ``videos`` or ``clips``, ``video_seconds``, ``bytes``; for rates, not in the artifact."

    def open_store(self) -> "Store":
        """The store the stage works on."""
        return open_store(self.store_url)


@dataclasses.dataclass
class Context(Generic[ConfigT]):
    """What a stage's ``run`` is given."""

    stage: str
    component: str
    node: str
    run_id: str
    key: str
    code_id: str
    config: ConfigT
    store: "Store"
    inputs: dict[str, "Artifact"]
    out: Path
    "Folder of this attempt: what is written here is committed with the artifact."
    scratch: Path
    "Local folder kept between attempts at this key."
    lease: "Lease | None" = None
    "Under which this runs; None on a rank that only works along, and for parts."
    scheduler: str = ""
    "Address of a Dask scheduler; empty: in this process."
    external_inputs: Any = None
    redo: str = ""
    "Nonce of a stage that was asked for again: its parts are made again too."
    log: logging.Logger = dataclasses.field(default_factory=lambda: get_logger("wfm.stage"))
    stop_requested: Callable[[], bool] = lambda: False
    remote_usage: dict[str, float] = dataclasses.field(default_factory=lambda: no_usage())
    "What the parts used in other processes."
    parts_made: dict[str, int] = dataclasses.field(default_factory=lambda: {"made": 0, "of": 0})
    "How many parts were made now, of how many: what a stage took says nothing of parts that were there already."
    parts_before: dict[str, float] = dataclasses.field(default_factory=lambda: {"parts": 0, **no_usage()})
    "Parts that ranges and earlier tries made for this very key, and what they used."
    part_range: PartRange | None = None
    "The range of parts to make; None: all of them, and the artifact."

    def checkpoints(self) -> "Checkpoints":
        """What a training would go on from: in `scratch`, and in the store, where it outlives this machine."""
        if self.lease is None:
            return self.store.checkpoints(self.key)
        lease = self.lease
        return self.store.checkpoints(self.key, fence=lease.number, taken_over=lambda: lease.taken_over)

    @functools.cached_property
    def ranks(self) -> "Ranks":
        """The processes that share this training; `ALONE` where it is one. Only a torchjob asks. How long another one may be
        silent is for the watch of the ranks to judge (`components/gang.py`), not for each call."""
        from wfm.parallel.ranks import join

        return join(timeout_seconds=_SECONDS_OF_A_CALL)

    def stopping(self) -> bool:
        """Whether someone asked this stage to stop: keep what is whole and raise `Cancelled`."""
        return self.stop_requested()

    def map_parts(
        self,
        parts: Mapping[str, Any],
        function: "Callable[[PartContext[ConfigT]], Result]",
        arguments: Mapping[str, Any] | None = None,
        *,
        more_follow: bool = False,
    ) -> list["PartEntry"]:
        """Make every part that is not there yet and return their entries in name order.

        ``parts`` maps a part's name to the plain values its key depends on, ``arguments`` to what else it needs.
        ``function`` is a module-level function; it may run in another process. ``more_follow``: parts made from these follow.

        A process that has a range makes its share of them and raises `RangeDone`; it goes on only where more follow and the
        parts of the other ranges are there too.
        """
        from wfm.artifacts import PartEntry

        keys = {
            name: derive_part_key(self.stage, self.code_id, self.config.what(), inputs, redo=self.redo)
            for name, inputs in parts.items()
        }
        mine = sorted(parts) if self.part_range is None else self.part_range.among(parts)
        counted: set[str] = set()
        entries = self._find({name: keys[name] for name in mine}, counted)
        missing = [name for name in mine if name not in entries]
        self.log.info("%s: %d parts, %d of them done before", self.stage, len(mine), len(entries))
        self.parts_made["of"] += len(mine)
        payloads = {
            name: self._payload(name, keys[name], parts[name], (arguments or {}).get(name), function)
            for name in missing
        }
        for name, answer in self._run(payloads):
            if answer["made"]:
                entries[name] = PartEntry(**answer["made"])
                counted.add(keys[name])
                self.parts_made["made"] += 1
            add_usage(self.remote_usage, answer)
        if self.part_range is not None and not more_follow:
            raise RangeDone
        # those that other processes made, now or before
        entries |= self._find({name: key for name, key in keys.items() if name not in entries}, counted)
        gone = sorted(parts.keys() - entries)
        if gone and self.part_range is not None:
            raise RangeDone(
                f"what is made of these parts is left to the plain call: {len(gone)} of {len(parts)} are missing"
            )
        if gone:
            self.store.part(keys[gone[0]])  # raises, with the words for it: it was invalidated a moment ago
        return [entries[name] for name in sorted(entries)]

    def _find(self, keys: Mapping[str, str], counted: set[str]) -> dict[str, "PartEntry"]:
        """What an artifact lists of those parts (name -> key) that are there. Counts what was used for them before, each key
        once (``counted``)."""
        found, names = {}, list(keys)
        with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:  # in a bucket each is two requests
            for start in range(0, len(names), _LOOKS):
                some = names[start : start + _LOOKS]
                for name, part in zip(some, pool.map(self.store.find_part, [keys[name] for name in some]), strict=True):
                    if part is None:
                        continue
                    found[name] = part.entry(name)
                    if part.key not in counted and part.manifest.extra.get("made_for") == self.key:
                        self.parts_before["parts"] += 1
                        add_usage(self.parts_before, part.manifest.resources)
                    counted.add(part.key)
                self._go_on()
        return found

    def _go_on(self) -> None:
        if self.stopping():
            raise Cancelled(f"{self.node}: asked to stop; the parts made so far are kept")

    def _run(self, payloads: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, answer) of every part. Those that others make at this moment come last: by then they are there, or theirs have
        died."""
        if not payloads:
            return
        work, began, patient = Counter[str](), time.monotonic(), False
        with progress(len(payloads), self.node, "parts") as shown:
            while payloads:
                held = {}
                for name, answer in self._tasks({name: {**one, "patient": patient} for name, one in payloads.items()}):
                    if answer["held"]:
                        held[name] = payloads[name]
                    else:
                        work.update(answer["work"])
                        shown.advance(note=rates(work, time.monotonic() - began))
                        yield name, answer
                        crash_point("after_part")
                    self._go_on()
                if held:
                    self.log.info("%s: other processes make %d of the parts: waiting for them", self.stage, len(held))
                payloads, patient = held, True

    def _tasks(self, payloads: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        from wfm.parts.workers import map_tasks

        # a worker cannot be asked whether the stage is to stop
        function = run_part_on_worker if self.scheduler else functools.partial(run_part, stopping=self.stop_requested)
        return map_tasks(function, payloads, scheduler=self.scheduler, stopping=self.stop_requested)

    def _payload(
        self, name: str, key: str, inputs: Any, arguments: Any, function: Callable[..., Any]
    ) -> dict[str, Any]:
        module = f"components.{self.component}" if function.__module__ == "__main__" else function.__module__
        return {
            "store": self.store.url,
            "stage": self.stage,
            "component": self.component,
            "code_id": self.code_id,
            "key": key,
            "name": name,
            "config": self.config.resolved(),
            "inputs": inputs,
            "arguments": arguments,
            "made_for": self.key,
            "needs": [artifact.key for artifact in self.inputs.values()],
            "function": f"{module}:{function.__qualname__}",
        }


def open_store(url: str) -> "Store":
    """The store of that address; one for all parts that a process makes, with the manifests that it has read."""
    return _kept_store(url, os.environ.get("WFM_STORE_OPTIONS", ""), os.getpid())


@functools.lru_cache(maxsize=2)
def _kept_store(url: str, _options: str, _pid: int) -> "Store":
    from wfm.artifacts import Store

    return Store.open(url, store_options())


def rates(work: Mapping[str, float], seconds: float) -> str:
    """``{"clips": 30, "video_seconds": 90, "bytes": 2e6}`` in 10 s -> ``3 clips/s, 9 video-seconds/s, 0.2 MB/s``."""
    units = {"videos": 1.0, "clips": 1.0, "video_seconds": 1.0, "bytes": 1e6}
    names = {"video_seconds": "video-seconds", "bytes": "MB"}
    shown = {names.get(of, of): work[of] / unit / max(seconds, 1e-9) for of, unit in units.items() if work.get(of)}
    return ", ".join(f"{rate:.3g} {name}/s" for name, rate in shown.items())


def run_part(payload: dict[str, Any], stopping: Callable[[], bool] | None = None) -> dict[str, Any]:
    """Make one part and commit it; called in a worker process.

    Returns what it used, how much it did, its entry if it was ``made`` now, and whether another process ``held`` its lease; one
    that is ``patient`` waits for that lease instead. Raises Cancelled when ``stopping()`` turns true while it waits.
    """
    from wfm.artifacts.lease import LeaseHeld

    store = open_store(payload["store"])
    key = payload["key"]
    usage, work, held = Usage(), Counter[str](), False
    made: dict[str, Any] | None = None
    try:
        with store.lease(key, inputs=tuple(payload["needs"])).acquire(
            None if payload["patient"] else 0, stopping
        ) as lease:
            if not store.has_part(key):
                part, work = _make_part(store, key, payload, usage, lease)
                made = dataclasses.asdict(part.entry(payload["name"]))
    except LeaseHeld:
        held = True
    return {**usage.read(), "work": dict(work), "made": made, "held": held}


def run_part_on_worker(payload: dict[str, Any]) -> dict[str, Any]:
    """`run_part` where a Dask worker got it. Raises InputError when its code is another than that of the stage's process, the
    runner, which names the part by its own: workers may have been started elsewhere, from another image, and before."""
    here = _code_here(payload["component"], canonical(payload["config"]))
    if here != payload["code_id"]:
        raise InputError(
            f"{payload['stage']}: its process runs code {payload['code_id']}, the Dask worker "
            f"{os.environ.get('DASK_WORKER_NAME') or os.uname().nodename} runs code {here} (image: {identity()}): start "
            "scheduler and workers from the image of the stage"
        )
    return run_part(payload)


@functools.lru_cache(maxsize=8)
def _code_here(component: str, config: bytes) -> str:
    return code_id(component, uses(importlib.import_module(f"components.{component}").CONFIG.parse(json.loads(config))))


def _make_part(
    store: "Store", key: str, payload: dict[str, Any], usage: Usage, lease: "Lease"
) -> tuple["Artifact", Counter[str]]:
    module, _, name = payload["function"].partition(":")
    function = getattr(importlib.import_module(module), name)
    config_class = importlib.import_module(f"components.{payload['component']}").CONFIG
    attempt = store.part_attempt(key)
    try:
        started = time.time()
        context = PartContext(
            name=payload["name"],
            config=config_class.parse(payload["config"]),
            inputs=payload["inputs"],
            arguments=payload["arguments"],
            out=attempt.path,
            store_url=payload["store"],
            after_death=lease.adopted,
        )
        result = function(context)
        crash_point("before_part_commit")
        part = attempt.commit(
            stage=payload["stage"],
            kind="part",
            counts=result.counts,
            skipped=result.skipped,
            config=payload["config"],
            code_id=payload["code_id"],
            inputs={},
            timings={"started": started, "finished": time.time()},
            resources=usage.read(),
            fence=lease.number,
            extra={**result.extra, "inputs": payload["inputs"], "made_for": payload["made_for"]},
        )
        crash_point("after_part_commit")
    except BaseException:
        attempt.discard()
        raise
    return part, context.work


def check_yield(result: Result, stage: str) -> None:
    """Zero outputs from some inputs is a failure."""
    inputs, outputs = result.counts.get("inputs"), result.counts.get("outputs")
    if inputs and outputs == 0:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(result.skipped.items())) or "none counted"
        raise DataError(f"{stage}: {inputs} inputs gave no output at all. Skipped by reason: {reasons}")
