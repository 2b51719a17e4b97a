"""What a `ledger` has counted, and how that outlives it: ``exporter/counted.json`` in the store.

A counter that begins anew at less than it was is read by Prometheus as one that began at zero: all that it shows then is taken
for new. So a ledger goes on from what the one before it had counted, whatever was deleted meanwhile, and whatever is told later
of a try that counted as lost. Of a run no try is kept: of each node which numbers are counted, when it was made, and which
ranges failed last. Of two ledgers of one store both count the same, and the last to write stands.

The document is replaced whenever something was counted. So that it does not hold each run that ever was, those that rest stand
in files of their own, ``exporter/counted/<id>.json``, each written once. Only those count that the document names, and what it
says of a run itself stands above them.
"""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import pydantic

from wfm.artifacts import schema
from wfm.artifacts.address import new_id
from wfm.errors import DataError, TryAgain

if TYPE_CHECKING:
    from wfm.artifacts import Store

PATH = "exporter/counted.json"
RESTING = "exporter/counted"
SCHEMA_VERSION = 2
_RUNS_A_FILE = 1000
_Figure = Annotated[float, pydantic.Field(ge=0.0, allow_inf_nan=False)]
_Count = Annotated[int, pydantic.Field(ge=0, lt=10**9)]
_SEPARATOR = " "


@dataclasses.dataclass
class Totals:
    """Of tries that have ended; by (stage, outcome) or by stage."""

    attempts: defaultdict[tuple[str, str], float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    seconds: defaultdict[tuple[str, str], float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    gpu_seconds: defaultdict[tuple[str, str], float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    lost_seconds: defaultdict[tuple[str, str], float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    "Of those that made nothing."
    disruptions: defaultdict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    "That were nobody's fault."
    waited_seconds: defaultdict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    "From when its inputs were there, or the try before had ended, to the beginning of each try."
    last_success: defaultdict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    "Unix time."

    def copy(self) -> "Totals":
        """Its own figures."""
        return Totals(*(getattr(self, field.name).copy() for field in dataclasses.fields(self)))


_OF_OUTCOME = ("attempts", "seconds", "gpu_seconds", "lost_seconds")


@dataclasses.dataclass(slots=True)
class OfNode:
    """The tries at a node that are counted."""

    through: _Count = 0
    "All numbers up to it are."
    beyond: set[_Count] = dataclasses.field(default_factory=set)
    "And these."
    made: _Figure = 0.0
    "Unix time at which it was made; 0: not yet."
    failed: dict[schema.Short, tuple[_Count, _Figure]] = dataclasses.field(default_factory=dict)
    "Range of parts (empty for the whole) whose last try made nothing -> its number, and when it ended."
    replaced: dict[schema.Short, _Count] = dataclasses.field(default_factory=dict)
    "Range of parts of which a try is open -> number of a later one that is counted."

    def add(self, number: int) -> None:
        """It is counted from now on."""
        self.beyond.add(number)
        while self.through + 1 in self.beyond:
            self.through += 1
            self.beyond.remove(self.through)

    def __contains__(self, number: int) -> bool:
        return number <= self.through or number in self.beyond


@dataclasses.dataclass(slots=True)
class OfRun:
    """The tries of a run that are counted."""

    nodes: dict[schema.Word, OfNode] = dataclasses.field(default_factory=dict)
    changed: _Figure = 0.0
    "Unix time of the last end of a try."

    def of(self, node: str) -> OfNode:
        """Those at a node, for more to come."""
        return self.nodes.setdefault(node, OfNode())

    def seen(self, node: str) -> OfNode:
        """Those at a node, to be looked at."""
        return self.nodes.get(node) or OfNode()

    def has(self, node: str, number: int) -> bool:
        """Whether a try is counted."""
        return node in self.nodes and number in self.nodes[node]


@dataclasses.dataclass
class _Document:
    schema_version: int
    totals: dict[schema.Word, dict[schema.Short, _Figure]]
    runs: dict[schema.Word, OfRun]
    resting: list[schema.Id] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Resting:
    schema_version: int
    runs: dict[schema.Word, OfRun]


def read(store: "Store") -> tuple[Totals, dict[str, OfRun], dict[str, set[str]]]:
    """What was counted until now: sums, the runs, and file -> those of them that it alone speaks of; nothing where nobody
    counted. Raises DataError for what cannot be read, InputError for what a newer wfm wrote."""
    try:
        data = store.objects.read(PATH)
    except FileNotFoundError:
        return Totals(), {}, {}
    found = schema.read(_Document, data, f"{store.url}/{PATH}", SCHEMA_VERSION)
    totals = Totals()
    for field in dataclasses.fields(totals):
        for label, value in found.totals.get(field.name, {}).items():
            stage, _, outcome = label.partition(_SEPARATOR)
            getattr(totals, field.name)[(stage, outcome) if field.name in _OF_OUTCOME else stage] = value
    runs, resting = dict(found.runs), dict[str, set[str]]()
    for name in reversed(found.resting):  # the later stands above the earlier
        path = f"{RESTING}/{name}.json"
        try:
            data = store.objects.read(path)
        except FileNotFoundError:
            raise DataError(f"{store.url}/{path} is named in {PATH} and is not there") from None
        these = schema.read(_Resting, data, f"{store.url}/{path}", SCHEMA_VERSION).runs
        resting[name] = these.keys() - runs.keys()
        runs = {**these, **runs}
    return totals, runs, dict(reversed(resting.items()))


def lay_to_rest(store: "Store", runs: dict[str, OfRun]) -> dict[str, set[str]]:
    """Write runs into files of their own; returns file -> its runs, for `write`. Raises what the store raises."""
    made: dict[str, set[str]] = {}
    several = iter(runs.items())
    while these := dict(itertools.islice(several, _RUNS_A_FILE)):
        name = new_id()
        document = schema.adapter(_Resting).dump_python(_Resting(SCHEMA_VERSION, these), mode="json")
        if not store.objects.create(f"{RESTING}/{name}.json", schema.encode(document)):
            raise TryAgain(f"{RESTING}/{name}.json is there already")
        made[name] = set(these)
    return made


def write(store: "Store", totals: Totals, runs: dict[str, OfRun], resting: Iterable[str] = ()) -> None:
    """Replace it; `resting`: names of the files that speak of other runs. Raises what the store raises."""
    document = _Document(
        SCHEMA_VERSION,
        {
            field.name: {
                _SEPARATOR.join(label) if isinstance(label, tuple) else label: value
                for label, value in getattr(totals, field.name).items()
            }
            for field in dataclasses.fields(totals)
        },
        runs,
        list(resting),
    )
    store.objects.replace(PATH, schema.encode(schema.adapter(_Document).dump_python(document, mode="json")))
