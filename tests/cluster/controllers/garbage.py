"""The garbage collector, the TTL controller, and Deployments (with their ReplicaSets folded in)."""

from tests.cluster.controllers.pods import active, from_template
from tests.cluster.controllers.table import GONE, SAME, Row, See, Table
from tests.cluster.server.api import FOREGROUND, ORPHAN, condition_of, holds
from tests.cluster.server.kinds import BY_KIND, RESOURCES
from tests.cluster.server.storage import Json

_GC = "kubernetes/kubernetes pkg/controller/garbagecollector/garbagecollector.go "
_TTL = "kubernetes/kubernetes pkg/controller/ttlafterfinished/ttlafterfinished_controller.go "
_SETS = "kubernetes/kubernetes pkg/controller/replicaset/replica_set.go "


def state_of(see: See) -> str:
    if see.deleting and FOREGROUND in (see.meta.get("finalizers") or ()):
        return "waits for its dependents"
    if see.deleting and ORPHAN in (see.meta.get("finalizers") or ()):
        return "lets its dependents go"
    return "owned" if see.meta.get("ownerReferences") else "free"


def _ownerless(see: See) -> bool:
    if see.deleting:
        return False
    for owner in see.meta["ownerReferences"]:
        row = BY_KIND.get((owner["apiVersion"], owner["kind"]))
        if row is None or see.api.storage.has_uid(row.name, see.namespace, owner["name"], owner["uid"]):
            return False
    return True


def _resource(found: Json) -> str:
    return BY_KIND[found["apiVersion"], found["kind"]].name


def _dependents(see: See) -> list[Json]:
    return [one for one in see.owned() if "deletionTimestamp" not in one["metadata"]]


def _policy(see: See, found: Json) -> str:
    return "Foreground" if see.api.storage.owned(found["metadata"]["uid"]) else "Background"


def _without(see: See, finalizer: str) -> None:
    left = [one for one in see.meta["finalizers"] if one != finalizer]
    see.api.patch(see.resource, see.namespace, see.name, {"metadata": {"finalizers": left or None}})


def _let_go(see: See) -> None:
    for one in see.owned():
        owners = [owner for owner in one["metadata"]["ownerReferences"] if owner["uid"] != see.uid]
        patch = {"metadata": {"ownerReferences": owners or None}}
        see.api.patch(_resource(one), see.namespace, one["metadata"]["name"], patch)
    _without(see, ORPHAN)


_COLLECTED = tuple(
    row.name for row in RESOURCES
    if row.namespaced and row.name not in ("events", "leases.coordination.k8s.io", "localqueues.kueue.x-k8s.io")
)  # fmt: skip
"""What has owners, or is deleted in the foreground; the real one looks at all there is."""
GARBAGE = Table(
    "garbage collector",
    _COLLECTED,
    state_of,
    (
        Row("owned", "no owner is left", SAME, _GC + "attemptToDeleteItem", _ownerless,
            lambda see: see.delete(see.obj, see.resource, propagationPolicy="Background")),
        Row("waits for its dependents", "dependents are left", SAME, _GC + "processDeletingDependentsItem", _dependents,
            lambda see: [see.delete(one, _resource(one), propagationPolicy=_policy(see, one)) for one in _dependents(see)]),
        Row("waits for its dependents", "none is left", GONE, _GC + "processDeletingDependentsItem",
            lambda see: not see.owned(), lambda see: _without(see, FOREGROUND)),
        Row("lets its dependents go", "it is seen", GONE, _GC + "orphanDependents", lambda see: True, _let_go),
    ),
)  # fmt: skip


def _ended(see: See) -> str:
    return "finished" if holds(see.obj, "Complete") or holds(see.obj, "Failed") else "unfinished"


def _ttl_over(see: See) -> bool:
    ttl = see.spec.get("ttlSecondsAfterFinished")
    ended = condition_of(see.obj, "Complete") or condition_of(see.obj, "Failed")
    return ttl is not None and not see.deleting and see.since(ended.get("lastTransitionTime")) > ttl


TTL = Table(
    "ttl after finished",
    ("jobs.batch",),
    _ended,
    (
        Row("finished", "ttlSecondsAfterFinished is over", GONE, _TTL + "processJob", _ttl_over,
            lambda see: see.delete(see.obj, see.resource, propagationPolicy="Background")),
    ),
)  # fmt: skip


def _lacks(see: See) -> int:
    return int(see.spec.get("replicas", 1)) - sum(active(pod) for pod in see.pods)


def _make_pods(see: See) -> None:
    for _ in range(_lacks(see)):
        see.create("pods", from_template(see.spec["template"], f"{see.name}-6d5f8c7b9-"))


DEPLOYMENTS = Table(
    "deployment",
    ("deployments.apps",),
    lambda see: "deleting" if see.deleting else "wanted",
    (
        Row("wanted", "fewer active pods than replicas", SAME, _SETS + "manageReplicas",
            lambda see: _lacks(see) > 0, _make_pods),
    ),
)  # fmt: skip
