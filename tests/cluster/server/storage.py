"""What the model server remembers, as etcd would: objects under one counter, and the history that watches read.

Objects are never changed in place: who wants to change one takes `Stored.fresh()` and puts it back. With a `journal` every
change is appended to a file, and a new process that opens it knows what the last one knew.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

Json = dict[str, Any]
MODIFIED, ADDED, DELETED = "MODIFIED", "ADDED", "DELETED"


class Key(NamedTuple):
    """Where an object lies: its resource (``pods``, ``pytorchjobs.kubeflow.org``), namespace and name."""

    resource: str
    namespace: str
    name: str


@dataclass(frozen=True, eq=False)
class Stored:
    """One version of an object, and its JSON."""

    object: Json
    data: bytes

    def fresh(self) -> Json:
        """A copy that may be changed."""
        return json.loads(self.data)


@dataclass(frozen=True)
class Change:
    """One line of the history: `old` is None for what was added; for what was deleted `new` is its last state."""

    revision: int
    type: str
    key: Key
    old: Stored | None
    new: Stored


class Compacted(Exception):
    """The history does not reach back to that revision any more."""


class Storage:
    """Objects and history. Safe for several threads; `changed` is notified after every change."""

    def __init__(self, journal: Path | None = None) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.revision = 1
        self.compacted = 0
        self.listeners: list[Callable[[Change], None]] = []
        self.history: list[Change] = []
        self._objects: dict[str, dict[Key, Stored]] = defaultdict(dict)
        self._owned: dict[str, set[Key]] = defaultdict(set)
        self._journal = None
        if journal is not None:
            if journal.exists():
                self._replay(journal)
            self._journal = journal.open("a")

    def _replay(self, journal: Path) -> None:
        for line in journal.read_text().splitlines():
            try:
                type_, key, document = json.loads(line)
            except ValueError:
                break  # the last line of a process that was killed
            where = Key(*key)
            stored = Stored(document, json.dumps(document, separators=(",", ":")).encode())
            self.revision = max(self.revision, int(document["metadata"]["resourceVersion"]))
            self._index(where, None if type_ == DELETED else stored)
        self.compacted = self.revision  # a server that was started again serves no older watches

    def get(self, key: Key) -> Stored | None:
        return self._objects[key.resource].get(key)

    def of(self, resource: str, namespace: str = "") -> list[Stored]:
        """All objects of a resource (in a namespace), by name."""
        with self.lock:
            found = self._objects[resource]
            return [found[key] for key in sorted(found) if not namespace or key.namespace == namespace]

    def owned(self, uid: str, resource: str = "") -> list[Stored]:
        """What names an object of this uid as its owner."""
        with self.lock:
            keys = sorted(key for key in self._owned.get(uid, ()) if not resource or key.resource == resource)
            return [self._objects[key.resource][key] for key in keys]

    def has_uid(self, resource: str, namespace: str, name: str, uid: str) -> bool:
        found = self.get(Key(resource, namespace, name)) or self.get(Key(resource, "", name))
        return found is not None and found.object["metadata"]["uid"] == uid

    def put(self, key: Key, document: Json) -> Stored:
        """Write an object; its resourceVersion is set."""
        with self.lock:
            old = self.get(key)
            return self._write(MODIFIED if old else ADDED, key, old, document)

    def delete(self, key: Key, document: Json | None = None) -> Stored:
        """Take an object away; `document` is its last state."""
        with self.lock:
            old = self._objects[key.resource][key]
            return self._write(DELETED, key, old, document or old.fresh())

    def _write(self, type_: str, key: Key, old: Stored | None, document: Json) -> Stored:
        self.revision += 1
        document["metadata"]["resourceVersion"] = str(self.revision)
        stored = Stored(document, json.dumps(document, separators=(",", ":")).encode())
        self._index(key, None if type_ == DELETED else stored)
        change = Change(self.revision, type_, key, old, stored)
        self.history.append(change)
        if self._journal is not None:
            self._journal.write(json.dumps([type_, key, document]) + "\n")
            self._journal.flush()
        for listener in self.listeners:
            listener(change)
        self.changed.notify_all()
        return stored

    def _index(self, key: Key, stored: Stored | None) -> None:
        before = self._objects[key.resource].get(key)
        for held, step in ((before, "discard"), (stored, "add")):
            for owner in held.object["metadata"].get("ownerReferences", ()) if held else ():
                getattr(self._owned[owner["uid"]], step)(key)
        if stored is None:
            self._objects[key.resource].pop(key, None)
        else:
            self._objects[key.resource][key] = stored

    def since(self, revision: int, resource: str) -> list[Change]:
        """Changes after a revision. Raises Compacted."""
        with self.lock:
            if revision < self.compacted:
                raise Compacted(f"too old resource version: {revision} ({self.compacted})")
            start = len(self.history)
            while start and self.history[start - 1].revision > revision:
                start -= 1
            return [change for change in self.history[start:] if change.key.resource == resource]

    def compact(self) -> None:
        """Forget the history, as etcd does every five minutes."""
        with self.lock:
            self.compacted = self.revision
            self.history.clear()
