"""The tries of one run at one node, as its attempt records in the store tell: what the launcher counts, and what it adds.

    tries = Records(run, node).read()

The stage opens its attempt itself and writes how it ended. The launcher writes the end of one whose pod died, and a whole
record for pods that died before they could open any; the first word stands, so no end is told twice.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from wfm.artifacts import schema
from wfm.artifacts.runs import SCHEMA_VERSION
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

LAUNCHER_FOLDER = "launcher"
"""In a run: ``launcher/<node>.json``, what its launcher says of a node; ``launcher/<node>/<token>.json``, deaths it tells
of."""
ENGINE = "launcher"
_TELLING_SECONDS = 120.0
"""So long after another launcher began to tell of a death it is told again, if it is not told by then."""
_LEASE_HELD = "lease_held"


@dataclasses.dataclass(frozen=True)
class Try:
    """One attempt. `outcome` is empty while nobody has written how it ended."""

    number: int
    token: str
    pod: str
    parts: str = ""
    outcome: str = ""
    reason: str = ""
    key: str = ""
    disruption: bool = False
    "Whether it was nobody's fault."
    held: bool = False
    "Whether it left because another process works on the key."
    nodes: tuple[str, ...] = ()
    "Nodes that may have been the cause."
    unschedulable: bool = False
    "Whether no node could take it: then the next one is not kept from any."
    ends_job: bool = False
    "Whether the launcher ended it, and with it the job that it was a try of."
    gives_up: bool = False
    "Whether no further try is to be made by this run."


@dataclasses.dataclass(frozen=True)
class Death:
    """An end that the launcher tells of: of the attempt `number`, or of one that was never opened and has the `token`."""

    reason: str
    outcome: str = "try_again"
    number: int = 0
    token: str = ""
    pod: str = ""
    parts: str = ""
    disruption: bool = False
    nodes: tuple[str, ...] = ()
    unschedulable: bool = False
    ends_job: bool = False
    gives_up: bool = False
    "Whether no further try is to be made by this run: somebody put the job out of the queue."
    absent: str = ""
    "Pod whose absence is all that tells of this death: to be made sure of, a view may be behind."
    theirs: bool = False
    "Of the run that the job was made for, where that is another than ours."


class Records:
    """Attempts at `node` of `run`; those that have ended are read once."""

    def __init__(self, run: "Run", node: str) -> None:
        self.run, self.node = run, node
        self._known: dict[int, Try] = {}

    def read(self) -> tuple[Try, ...]:
        """All tries, in order."""
        for number in self.run.attempts(self.node):
            known = self._known.get(number)
            if known is None or not known.outcome:
                self._known[number] = self._read(number, known)
        return tuple(self._known[number] for number in sorted(self._known))

    def _read(self, number: int, known: Try | None) -> Try:
        if known is None:
            record = self.run.read_attempt(self.node, number) or {}
            known = Try(number, _text(record, "token"), _text(record, "pod"), _text(record, "parts"))
        outcome = self.run.read_outcome(self.node, number)
        if outcome is None:
            return known
        return dataclasses.replace(
            known, outcome=_text(outcome, "outcome") or "bug", reason=_text(outcome, "reason"), key=_text(outcome, "key"),
            disruption=outcome.get("disruption") is True, held=outcome.get(_LEASE_HELD) is True,
            nodes=tuple(_texts(outcome.get("nodes"))),
            unschedulable=outcome.get("unschedulable") is True, ends_job=outcome.get("ends_job") is True,
            gives_up=outcome.get("gives_up") is True,
        )  # fmt: skip

    def tell(self, death: Death, key: str, now: float) -> bool:
        """Write a death down, unless it is told already; False while another launcher is about to. Raises what the store
        raises; a second call goes on."""
        number = death.number or self._open_for(death, key, now)
        if number:
            words = {
                "outcome": death.outcome, "reason": death.reason, "key": key, "written_by": ENGINE,
                "disruption": death.disruption, "nodes": list(death.nodes), "unschedulable": death.unschedulable,
                "ends_job": death.ends_job, "gives_up": death.gives_up, **({"parts": death.parts} if death.parts else {}),
            }  # fmt: skip
            self.run.write_outcome(self.node, number, words)
        return number > 0

    def _open_for(self, death: Death, key: str, now: float) -> int:
        """A record for one that died without; 0 when another launcher has made it, or is about to."""
        name = f"{LAUNCHER_FOLDER}/{self.node}/{death.token}.json"
        mark = schema.encode({"schema_version": SCHEMA_VERSION, "at": now})
        if not self.run.create(name, mark):
            there = self.run.attempt_with(self.node, death.token)
            began = schema.decode(self.run.read(name) or mark, name, SCHEMA_VERSION).get("at")
            if there:
                return there
            if isinstance(began, int | float) and abs(now - began) < _TELLING_SECONDS:
                return 0
        there = self.run.attempt_with(self.node, death.token)
        record = {"token": death.token, "pod": death.pod, "engine": ENGINE, "key": key, "ranks": 1}
        if death.parts:
            record["parts"] = death.parts
        return there or self.run.append_attempt(self.node, record)


@dataclasses.dataclass
class Said:
    """What a launcher says of a node: for `wfm status`, for the launchers of other runs, and for the next of its own."""

    key: str
    words: str = ""
    job: str = ""
    ended: str = ""
    "Its outcome, once it is through with the node."
    warnings: list[str] = dataclasses.field(default_factory=list)
    nodes: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    "Number of a try -> nodes that may be why it ended."


def write_said(run: "Run", node: str, said: Said, at: float) -> None:
    """Replace it."""
    document = {"schema_version": SCHEMA_VERSION, "at": at, **dataclasses.asdict(said)}
    run.write(f"{LAUNCHER_FOLDER}/{node}.json", schema.encode(document))


def read_said(run: "Run", node: str) -> Said | None:
    """What a launcher of `run` said of `node`; None for none, or one that cannot be read."""
    data = run.read(f"{LAUNCHER_FOLDER}/{node}.json")
    if data is None:
        return None
    try:
        found = schema.decode(data, f"{LAUNCHER_FOLDER}/{node}.json", SCHEMA_VERSION)
    except InputError:
        return None
    nodes, warnings = found.get("nodes"), found.get("warnings")
    failed = nodes.items() if isinstance(nodes, dict) else ()
    return Said(
        _text(found, "key"), _text(found, "words"), _text(found, "job"), _text(found, "ended"), warnings=_texts(warnings),
        nodes={number: _texts(names) for number, names in failed if number.isdecimal()},
    )  # fmt: skip


def said_of(run: "Run") -> dict[str, Said]:
    """Node -> what its launcher said."""
    nodes = [name.removesuffix(".json") for name in run.names(LAUNCHER_FOLDER) if name.endswith(".json")]
    found = {node: read_said(run, node) for node in nodes}
    return {node: said for node, said in found.items() if said is not None}


def still_need(store: "Store", runs: Iterable[str], key: str) -> list[str]:
    """Of runs noted on a job those that wait for `key`: one that is not there, that was cancelled, that ended, or whose
    launchers are through with the key, needs nothing."""
    waiting = []
    for run_id in runs:
        try:
            run = store.runs.of(run_id)
            if run.read("spec.json") is None or run.cancelled_by() or has_ended(run):
                continue
            said = [one for one in said_of(run).values() if one.key == key]
        except InputError:  # no id of a run
            continue
        if not said or not all(one.ended for one in said):
            waiting.append(run_id)
    return waiting


def has_ended(run: "Run") -> bool:
    """Whether an engine wrote down that the run is over."""
    data = run.read("state.json")
    if data is None:
        return False
    try:
        return schema.decode(data, "state.json", SCHEMA_VERSION).get("state") in ("done", "failed", "cancelled")
    except InputError:
        return False


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
