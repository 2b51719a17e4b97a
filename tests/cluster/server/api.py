"""The verbs of the API server over `Storage`: what a request means, and which error it gets.

Both the controllers (in this process) and HTTP (`http.py`) call these; only HTTP knows forbidden verbs and faults. Sources:
kubernetes/kubernetes ``staging/src/k8s.io/apiserver/pkg/registry/generic/registry/store.go`` (create, update, delete,
preconditions, finalizers), ``pkg/registry/batch/job/strategy.go`` (jobs keep their pods unless asked),
``pkg/registry/core/pod/strategy.go`` (grace).
"""

import base64
import json
import random
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from tests.cluster.server import patches, selectors
from tests.cluster.server.kinds import BY_NAME, Resource
from tests.cluster.server.storage import Json, Key, Storage, Stored

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # k8s.io/apimachinery/pkg/util/rand
GONE = ("Succeeded", "Failed")


class ApiError(Exception):
    """An answer that is none: `code` and `reason` as in a Status."""

    def __init__(self, code: int, reason: str, message: str, *, retry_after: int = 0, **details: Any) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.retry_after, self.details = (
            code,
            reason,
            message,
            retry_after,
            details,
        )

    def status(self) -> Json:
        details = {**self.details, **({"retryAfterSeconds": self.retry_after} if self.retry_after else {})}
        return {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
            "reason": self.reason, "details": details, "code": self.code,
        }  # fmt: skip


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str | None) -> float:
    """0.0 for none."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def condition(kind: str, status: str = "True", reason: str = "", message: str = "") -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def condition_of(found: Json, kind: str) -> Json:
    """The condition of an object of that type; {} when it has none."""
    return next((one for one in found.get("status", {}).get("conditions") or () if one["type"] == kind), {})


def holds(found: Json, kind: str) -> bool:
    return condition_of(found, kind).get("status") == "True"


Admission = Callable[[Resource, Json], None]
"""What sees an object before it is stored; may change it, or raise ApiError."""


class Api:
    """`now`: seconds since 1970. `rng`: of the suffixes of names, so that a seed gives the same ones."""

    def __init__(self, storage: Storage, now: Callable[[], float], rng: random.Random) -> None:
        self.storage, self.now, self.rng = storage, now, rng
        self.installed = {resource.name for resource in BY_NAME.values()}
        "Resources that are served: take a CRD away here."
        self.admission: list[Admission] = []
        self.quota: dict[str, int] = {}
        "Resource name -> how many of its objects may be there: a ResourceQuota of object counts."
        self.logs: dict[tuple[str, str], str] = {}

    def time(self) -> str:
        return timestamp(self.now())

    # -- reading

    def resource(self, name: str) -> Resource:
        if name not in self.installed:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return BY_NAME[name]

    def get(self, resource: str, namespace: str, name: str) -> Json:
        """The object as it is stored: not to be changed."""
        return self.stored(resource, namespace, name).object

    def stored(self, resource: str, namespace: str, name: str) -> Stored:
        found = self.storage.get(Key(resource, namespace if BY_NAME[resource].namespaced else "", name))
        if found is None:
            raise ApiError(404, "NotFound", f'{resource} "{name}" not found', name=name, kind=resource)
        return found

    def find(self, resource: str, namespace: str, name: str) -> Json | None:
        found = self.storage.get(Key(resource, namespace, name))
        return found.object if found else None

    def select(
        self,
        resource: str,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        continue_: str = "",
    ) -> tuple[list[Stored], Json]:
        """(objects, the list's metadata). A continued list goes on at the revision of its first page, as far as the history
        reaches."""
        try:
            fits = selectors.parse(labels, fields)
        except selectors.BadSelector as error:
            raise ApiError(400, "BadRequest", str(error)) from None
        with self.storage.lock:
            revision, after = self.storage.revision, ""
            if continue_:
                token = json.loads(base64.urlsafe_b64decode(continue_))
                revision, after = token["rv"], token["start"]
                if revision < self.storage.compacted:
                    raise ApiError(
                        410, "Expired", "The provided continue parameter is too old to display a consistent list"
                    )
            found = [one for one in self._at(resource, namespace, revision) if fits(one.object)]
        metadata: Json = {"resourceVersion": str(revision)}
        if limit or after:
            found = [one for one in found if _place(one) > after]
            if limit and len(found) > limit:
                metadata["remainingItemCount"] = len(found) - limit
                found = found[:limit]
                token = json.dumps({"rv": revision, "start": _place(found[-1])}).encode()
                metadata["continue"] = base64.urlsafe_b64encode(token).decode()
        return found, metadata

    def _at(self, resource: str, namespace: str, revision: int) -> list[Stored]:
        found = self.storage.of(resource, namespace)
        if revision == self.storage.revision:
            return found
        then = {_place(one): one for one in found}
        for change in reversed(self.storage.since(revision, resource)):  # back to what it was
            if change.old is None:
                then.pop(_place(change.new), None)
            else:
                then[_place(change.old)] = change.old
        return [then[place] for place in sorted(then) if not namespace or place.startswith(f"{namespace}/")]

    # -- writing

    def create(self, resource: str, namespace: str, document: Json) -> Json:
        row = self.resource(resource)
        found: Json = json.loads(json.dumps(document))
        metadata = found.setdefault("metadata", {})
        if metadata.get("resourceVersion"):
            raise ApiError(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        if row.namespaced:
            if metadata.setdefault("namespace", namespace) != namespace:
                raise ApiError(400, "BadRequest", "the namespace of the provided object does not match the request")
            if self.storage.get(Key("namespaces", "", namespace)) is None:
                raise ApiError(404, "NotFound", f'namespaces "{namespace}" not found')
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds"):
            metadata.pop(field, None)
        metadata["uid"], metadata["creationTimestamp"] = str(uuid.UUID(int=self.rng.getrandbits(128))), self.time()
        if not metadata.get("name"):
            if not metadata.get("generateName"):
                raise ApiError(
                    422, "Invalid", f"{resource}: metadata.name: Required value: name or generateName is required"
                )
            metadata["name"] = metadata["generateName"][:58] + "".join(self.rng.choices(_SUFFIX, k=5))
        if row.status:
            metadata["generation"] = 1
            found["status"] = {"phase": "Pending", "qosClass": "Guaranteed"} if resource == "pods" else {}
        found["apiVersion"], found["kind"] = row.api_version, row.kind
        with self.storage.lock:
            for look in self.admission:
                look(row, found)
            key = Key(resource, metadata.get("namespace", "") if row.namespaced else "", metadata["name"])
            if self.storage.get(key) is not None:
                raise ApiError(
                    409, "AlreadyExists", f'{resource} "{key.name}" already exists', name=key.name, kind=resource
                )
            used = sum(1 for _ in self.storage.of(resource, namespace))
            if used >= self.quota.get(resource, used + 1):
                raise ApiError(
                    403, "Forbidden",
                    f'{resource} "{key.name}" is forbidden: exceeded quota: team, requested: count/{resource}=1, '
                    f"used: count/{resource}={used}, limited: count/{resource}={self.quota[resource]}",
                )  # fmt: skip
            return self.storage.put(key, found).object

    def update(self, resource: str, namespace: str, name: str, document: Json, *, status: bool = False) -> Json:
        """Replace an object, or its status. Raises Conflict for a resourceVersion that is not the stored one."""
        row = self.resource(resource)
        with self.storage.lock:
            old = self.stored(resource, namespace, name)
            asked = document.get("metadata", {}).get("resourceVersion")
            if row.crd and not asked:
                raise ApiError(
                    422, "Invalid", f"{resource} {name!r}: metadata.resourceVersion: must be specified for an update"
                )
            return self._replace(row, old, json.loads(json.dumps(document)), status)

    def patch(
        self, resource: str, namespace: str, name: str, patch: Any, *, way: str = "application/merge-patch+json",
        status: bool = False,
    ) -> Json:  # fmt: skip
        row = self.resource(resource)
        if row.crd and way.startswith("application/strategic"):
            raise ApiError(415, "UnsupportedMediaType", f"the body of the request was in an unknown format - {way}")
        with self.storage.lock:
            old = self.stored(resource, namespace, name)
            try:
                document = patches.apply(way, old.fresh(), patch)
            except KeyError:
                raise ApiError(415, "UnsupportedMediaType", f"unknown patch type {way}") from None
            except ValueError as error:
                raise ApiError(422, "Invalid", str(error)) from None
            return self._replace(row, old, document, status)

    def _replace(self, row: Resource, old: Stored, document: Json, status: bool) -> Json:
        before, metadata = old.object["metadata"], document.setdefault("metadata", {})
        name, namespace = before["name"], before.get("namespace", "")
        asked = metadata.get("resourceVersion")
        if asked and asked != before["resourceVersion"]:
            raise ApiError(
                409, "Conflict",
                f'Operation cannot be fulfilled on {row.name} "{name}": the object has been modified; please apply your '
                "changes to the latest version and try again", name=name, kind=row.name,
            )  # fmt: skip
        if metadata.get("uid", before["uid"]) != before["uid"]:
            raise ApiError(409, "Conflict", f'{row.name} "{name}": the UID in the precondition does not match')
        if status and row.status:
            document = {**old.fresh(), "status": document.get("status", {})}
        else:
            if row.status:
                document["status"] = old.object.get("status", {})
            for field in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
                metadata.pop(field, None)
                if field in before:
                    metadata[field] = before[field]
            if row.status and document.get("spec") != old.object.get("spec"):
                metadata["generation"] = before.get("generation", 1) + 1
        document["apiVersion"], document["kind"] = old.object["apiVersion"], old.object["kind"]
        key = Key(row.name, namespace if row.namespaced else "", name)
        document["metadata"]["resourceVersion"] = before["resourceVersion"]
        if document == old.object:
            return old.object  # nothing changes: no new revision
        if "deletionTimestamp" in before and not document["metadata"].get("finalizers") and _grace_over(row, document):
            return self.storage.delete(key, document).object
        return self.storage.put(key, document).object

    def delete(self, resource: str, namespace: str, name: str, options: Json | None = None) -> Json:
        """Delete, or mark for it: pods keep their grace, finalizers hold an object back. Which of its dependents go is for
        the garbage collector."""
        row, options = self.resource(resource), options or {}
        with self.storage.lock:
            old = self.stored(resource, namespace, name)
            document = old.fresh()
            metadata = document["metadata"]
            for field, value in (options.get("preconditions") or {}).items():
                if value and metadata.get(field) != value:
                    raise ApiError(
                        409, "Conflict",
                        f'Operation cannot be fulfilled on {resource} "{name}": Precondition failed: {field} in precondition: '
                        f"{value}, {field} in object meta: {metadata.get(field)}", name=name, kind=resource,
                    )  # fmt: skip
            policy = options.get("propagationPolicy")
            if policy is None and resource == "jobs.batch":
                policy = "Orphan"  # batch/v1 keeps to what it did before there was garbage collection
            for finalizer, wanted in ((FOREGROUND, policy == "Foreground"), (ORPHAN, policy == "Orphan")):
                if wanted and finalizer not in metadata.setdefault("finalizers", []):
                    metadata["finalizers"].append(finalizer)
            grace = 0
            if resource == "pods":
                grace = options.get("gracePeriodSeconds")
                if grace is None:
                    grace = document["spec"].get("terminationGracePeriodSeconds", 30)
                if not document["spec"].get("nodeName") or document["status"].get("phase") in GONE:
                    grace = 0
                if "deletionTimestamp" in metadata:
                    grace = min(grace, metadata["deletionGracePeriodSeconds"])
            key = Key(resource, namespace if row.namespaced else "", name)
            if not metadata.get("finalizers") and grace == 0:
                return self.storage.delete(key, document).object
            if "deletionTimestamp" not in metadata or grace < metadata["deletionGracePeriodSeconds"]:
                metadata["deletionTimestamp"] = timestamp(self.now() + grace)
                metadata["deletionGracePeriodSeconds"] = grace
            if document != old.object:
                return self.storage.put(key, document).object
            return old.object

    def evict(self, namespace: str, name: str) -> None:
        """pods/eviction: ``pkg/registry/core/pod/storage/eviction.go``."""
        pod = self.stored("pods", namespace, name).fresh()
        set_condition(
            pod, condition("DisruptionTarget", "True", "EvictionByEvictionAPI", "Eviction API: evicting"), self.time()
        )
        self.update("pods", namespace, name, pod, status=True)
        self.delete("pods", namespace, name)

    def event(self, about: Json, reason: str, message: str, kind: str = "Normal") -> None:
        """An Event; of one that was told before the count is raised."""
        metadata = about["metadata"]
        name = f"{metadata['name']}.{reason.lower()}"
        namespace = metadata.get("namespace", "default")
        found = self.storage.get(Key("events", namespace, name))
        if found is not None and found.object["involvedObject"]["uid"] == metadata["uid"]:
            if found.object["message"] == message:
                return
            document = found.fresh()
            document |= {"count": document["count"] + 1, "lastTimestamp": self.time(), "message": message}
            self.storage.put(Key("events", namespace, name), document)
            return
        involved = {
            "apiVersion": about["apiVersion"], "kind": about["kind"], "name": metadata["name"], "namespace": namespace,
            "uid": metadata["uid"],
        }  # fmt: skip
        document = {
            "apiVersion": "v1", "kind": "Event", "metadata": {
                "name": name, "namespace": namespace, "creationTimestamp": self.time(),
                "uid": str(uuid.UUID(int=self.rng.getrandbits(128))),
            },
            "involvedObject": involved, "reason": reason, "message": message, "type": kind, "count": 1,
            "firstTimestamp": self.time(), "lastTimestamp": self.time(), "source": {"component": "model"},
        }  # fmt: skip
        self.storage.put(Key("events", namespace, name), document)


def _place(one: Stored) -> str:
    metadata = one.object["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}"


def _grace_over(row: Resource, document: Json) -> bool:
    return row.name != "pods" or document["metadata"].get("deletionGracePeriodSeconds", 0) == 0


def set_condition(document: Json, new: Json, now: str) -> bool:
    """Put a condition into a status; its time of transition moves only with its status. Whether anything changed."""
    conditions = document.setdefault("status", {}).setdefault("conditions", [])
    for index, old in enumerate(conditions):
        if old["type"] == new["type"]:
            moved = now if old["status"] != new["status"] else old.get("lastTransitionTime", now)
            conditions[index] = {**new, "lastTransitionTime": moved}
            return conditions[index] != old
    conditions.append({**new, "lastTransitionTime": now})
    return True


def drop_conditions(document: Json, kinds: Iterable[str]) -> None:
    status = document.setdefault("status", {})
    status["conditions"] = [one for one in status.get("conditions", ()) if one["type"] not in set(kinds)]
