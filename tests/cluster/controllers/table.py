"""Controllers as tables: in this state, at this event, that is done, and then it is in that state, as this source says.

A row is tried when the object is in its state (`ANY` for any); the first whose event has come is done, and afterwards the
object must be in the row's next state (`SAME`: the one it was in; `GONE`): else the table is wrong, and says so. A row without
anything to do tells that nothing happens where somebody might expect it; it fires once an object.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tests.cluster.server.api import Api, ApiError, seconds_of
from tests.cluster.server.storage import Json, Key

ANY, SAME, GONE = "any", "same", "gone"
_MOST_ROUNDS = 200


@dataclass
class Options:
    """How this cluster is set up; what the controllers' own configuration says on a real one."""

    integrations: Collection[str] = ("batch/job", "trainer.kubeflow.org/trainjob", "pod", "kubeflow.org/pytorchjob")
    "Kinds that Kueue manages (`pkg/controller/jobs`); PyTorchJob has to be named."
    pods_ready_timeout: float = 0.0
    "Kueue's waitForPodsReady.timeout [s]; 0: off."
    requeue_limit: int = 1
    "How often a workload that was not ready comes back before it is deactivated."
    node_grace: float = 40.0
    "Silence after which a node is Unknown [s]."
    toleration: float = 300.0
    "How long pods stay on a node that cannot be reached [s]."
    orphan_quarantine: float = 40.0
    pod_gpus: int = 0
    "A ResourceQuota of requests.nvidia.com/gpu of pods; 0: none."
    job_backoff: float = 10.0
    "The Job controller's wait after the first failed pod [s], doubled for each further one."


class See:
    """One object as a controller sees it, and what it can do."""

    def __init__(self, api: Api, options: Options, found: Json, resource: str) -> None:
        self.api, self.options, self.obj, self.resource = api, options, found, resource
        self.meta, self.spec = found["metadata"], found.get("spec") or {}
        self.status: Json = found.get("status") or {}
        self.name, self.namespace, self.uid = self.meta["name"], self.meta.get("namespace", ""), self.meta["uid"]
        self.now = api.now()

    @cached_property
    def pods(self) -> list[Json]:
        """The pods that it owns."""
        return self.owned("pods")

    def owned(self, resource: str = "") -> list[Json]:
        return [one.object for one in self.api.storage.owned(self.uid, resource)]

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self.meta

    def since(self, text: str | None) -> float:
        """Seconds since a time that is written somewhere; -1 for none."""
        return self.now - seconds_of(text) if text else -1.0

    # -- doing

    def fresh(self) -> Json:
        return self.api.stored(self.resource, self.namespace, self.name).fresh()

    def change(self, alter: Callable[[Json], Any], *, status: bool = True) -> None:
        """Change the object's status (or the rest of it)."""
        document = self.fresh()
        alter(document)
        self.api.update(self.resource, self.namespace, self.name, document, status=status)

    def create(self, resource: str, document: Json) -> Json | None:
        """Create an object of its own; None where it is there already. Raises ApiError."""
        owner = {
            "apiVersion": self.obj["apiVersion"], "kind": self.obj["kind"], "name": self.name, "uid": self.uid,
            "controller": True, "blockOwnerDeletion": True,
        }  # fmt: skip
        document["metadata"].setdefault("ownerReferences", [owner])
        try:
            return self.api.create(resource, self.namespace, document)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return None
            raise

    def delete(self, found: Json, resource: str = "pods", **options: Any) -> None:
        try:
            self.api.delete(resource, found["metadata"].get("namespace", ""), found["metadata"]["name"], options)
        except ApiError as error:
            if error.code != 404:
                raise

    def event(self, reason: str, message: str, kind: str = "Normal") -> None:
        self.api.event(self.obj, reason, message, kind)


When = Callable[[See], Any]


@dataclass(frozen=True, eq=False)
class Row:
    """`source`: repository, tree, file and function that say so."""

    state: str
    event: str
    next: str
    source: str
    when: When
    do: Callable[[See], Any] | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """A controller. `state_of`: the name of the state an object is in."""

    name: str
    resources: Sequence[str]
    "Whose objects it looks at."
    state_of: Callable[[See], str]
    rows: Sequence[Row]
    wants: Callable[[See], bool] = lambda see: True
    "Whether an object is its own."

    def key(self, row: Row) -> str:
        return f"{self.name}: {row.state} --{row.event}--> {row.next}"


class WrongTable(AssertionError):
    """A row did not lead where it says."""


@dataclass
class Controllers:
    """All tables at work over one API. `fired` counts the rows that fired."""

    api: Api
    tables: Sequence[Table]
    options: Options = field(default_factory=Options)
    fired: dict[str, int] = field(default_factory=dict)
    _noted: set[tuple[str, str]] = field(default_factory=set)

    def settle(self, skip: Collection[str] = ()) -> None:
        """Let them work until none has anything left to do. `skip`: tables that are slow this time."""
        with self.api.storage.lock:
            for _ in range(_MOST_ROUNDS):
                before = self.api.storage.revision
                for table in self.tables:
                    if table.name not in skip:
                        self._run(table)
                if self.api.storage.revision == before:
                    return
        raise WrongTable(
            f"the controllers do not come to rest: {dict(sorted(self.fired.items(), key=lambda i: -i[1])[:5])}"
        )

    def _run(self, table: Table) -> None:
        for resource in table.resources:
            for stored in self.api.storage.of(resource):
                key = Key(resource, stored.object["metadata"].get("namespace", ""), stored.object["metadata"]["name"])
                for _ in range(_MOST_ROUNDS):
                    if not self._step(table, key):
                        break

    def _step(self, table: Table, key: Key) -> bool:
        found = self.api.storage.get(key)
        if found is None:
            return False
        see = See(self.api, self.options, found.object, key.resource)
        if not table.wants(see):
            return False
        state = table.state_of(see)
        for row in table.rows:
            if row.state not in (state, ANY) or not row.when(see):
                continue
            name = table.key(row)
            if row.do is None:
                if (see.uid, name) not in self._noted:
                    self._noted.add((see.uid, name))
                    self.fired[name] = self.fired.get(name, 0) + 1
                continue
            before = self.api.storage.revision
            try:
                row.do(see)
            except ApiError as error:
                if error.code != 403:
                    raise
                see.event("FailedCreate", f"Error creating: {error.message}", "Warning")
            if self.api.storage.revision == before:
                continue
            self.fired[name] = self.fired.get(name, 0) + 1
            self._check(table, row, state, key, see.deleting)
            return True
        return False

    def _check(self, table: Table, row: Row, state: str, key: Key, deleting: bool) -> None:
        found = self.api.storage.get(key)
        if found is None and deleting:
            return  # the last that held it back
        now = GONE if found is None else table.state_of(See(self.api, self.options, found.object, key.resource))
        wanted = state if row.next == SAME else row.next
        if now not in (wanted, GONE if row.next == SAME else wanted):
            raise WrongTable(f"{table.key(row)}: {key} is {now}")
