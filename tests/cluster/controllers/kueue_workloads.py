"""Kueue's Workloads: who waits, who is let in, and who is put out again (`kueue.py` has the jobs they stand for)."""

from collections.abc import Callable

from tests.cluster.controllers.kueue import WORKLOADS, on_workload
from tests.cluster.controllers.pods import gpus
from tests.cluster.controllers.table import SAME, Row, See, Table
from tests.cluster.server.api import (
    condition,
    condition_of,
    drop_conditions,
    holds,
    seconds_of,
    set_condition,
    timestamp,
)
from tests.cluster.server.storage import Json

_CORE = "kubernetes-sigs/kueue@v0.19.2 pkg/controller/core/workload_controller.go "
_SCHEDULER = "kubernetes-sigs/kueue@v0.19.2 pkg/scheduler/scheduler.go "
_PREEMPT = "kubernetes-sigs/kueue@v0.19.2 pkg/scheduler/preemption/preemption.go "


def state_of(see: See) -> str:
    if holds(see.obj, "Finished"):
        return "finished"
    if holds(see.obj, "Evicted"):
        return "evicted"
    if holds(see.obj, "Admitted"):
        return "admitted"
    return "pending" if condition_of(see.obj, "QuotaReserved") else "new"


def _queue(see: See) -> Json | None:
    local = see.api.find("localqueues.kueue.x-k8s.io", see.namespace, see.spec["queueName"])
    return see.api.find("clusterqueues.kueue.x-k8s.io", "", local["spec"]["clusterQueue"]) if local else None


def _demand(found: Json) -> int:
    return sum(one["count"] * gpus(one["template"]["spec"]) for one in found["spec"]["podSets"])


def nominal(queue: Json) -> int:
    """GPUs of a ClusterQueue."""
    return sum(
        int(resource["nominalQuota"]) for group in queue["spec"].get("resourceGroups", ())
        for flavor in group["flavors"] for resource in flavor["resources"] if resource["name"] == "nvidia.com/gpu"
    )  # fmt: skip


def _others(see: See, queue: Json) -> list[Json]:
    """Workloads that hold quota of the same ClusterQueue."""
    found = []
    for one in see.api.storage.of(WORKLOADS):
        held = one.object.get("status", {}).get("admission")
        if held and held["clusterQueue"] == queue["metadata"]["name"] and not holds(one.object, "Finished"):
            found.append(one.object)
    return found


def _stopped(queue: Json) -> bool:
    return queue["spec"].get("stopPolicy", "None") != "None"


def _fits(see: See) -> bool:
    queue = _queue(see)
    if queue is None or _stopped(queue) or not see.spec.get("active", True) or _backing_off(see):
        return False
    free = nominal(queue) - sum(_demand(one) for one in _others(see, queue))
    first = (one for one in _rivals(see) if _demand(one) <= free)  # the queue is ordered by priority
    return _demand(see.obj) <= free and next(first, None) is None


def _rivals(see: See) -> list[Json]:
    """Workloads of higher priority that wait in the same queue."""
    waiting = []
    for one in see.api.storage.of(WORKLOADS, see.namespace):
        spec, told = one.object["spec"], one.object.get("status", {})
        waits = spec.get("active", True) and not told.get("admission") and not holds(one.object, "Finished")
        same = spec["queueName"] == see.spec["queueName"]
        if waits and same and spec.get("priority", 0) > see.spec.get("priority", 0):
            waiting.append(one.object)
    return waiting


def _backing_off(see: See) -> bool:
    at = (see.status.get("requeueState") or {}).get("requeueAt")
    return bool(at) and see.now < seconds_of(at)


def _admit(see: See) -> None:
    queue = _queue(see)
    assert queue is not None
    pods = [
        {"name": one["name"], "count": one["count"], "flavors": {"nvidia.com/gpu": "default"}, "resourceUsage": {}}
        for one in see.spec["podSets"]
    ]
    name = queue["metadata"]["name"]

    def alter(found: Json) -> None:
        found["status"]["admission"] = {"clusterQueue": name, "podSetAssignments": pods}
        drop_conditions(found, ["Evicted", "Preempted", "Requeued", "PodsReady"])
        for kind, reason in (("QuotaReserved", "QuotaReserved"), ("Admitted", "Admitted")):
            set_condition(found, condition(kind, "True", reason, f"in ClusterQueue {name}"), see.api.time())

    see.change(alter)
    see.event("Admitted", f"Admitted by ClusterQueue {name}")


def _pend(reason: str, message: str) -> Callable[[See], None]:
    return lambda see: on_workload(see, condition("QuotaReserved", "False", reason, message))


def _evicted(reason: str, message: str) -> Callable[[See], None]:
    def do(see: See) -> None:
        on_workload(see, condition("Evicted", "True", reason, message))
        see.event(f"EvictedDueTo{reason}", message)

    return do


def _victims(see: See) -> list[Json]:
    """Those of lower priority whose quota would be enough, the lowest first."""
    queue = _queue(see)
    within = ((queue or {}).get("spec", {}).get("preemption") or {}).get("withinClusterQueue", "Never")
    if queue is None or within == "Never" or _stopped(queue) or _backing_off(see) or not see.spec.get("active", True):
        return []
    others = _others(see, queue)
    if any(holds(one, "Evicted") for one in others):
        return []  # somebody is on the way out already
    missing = sum(_demand(one) for one in others) + _demand(see.obj) - nominal(queue)
    found: list[Json] = []
    for one in sorted(others, key=lambda other: other["spec"].get("priority", 0)):
        if missing > 0 and one["spec"].get("priority", 0) < see.spec.get("priority", 0):
            found.append(one)
            missing -= _demand(one)
    return found if missing <= 0 else []


def _preempt(see: See) -> None:
    for one in _victims(see):
        document = see.api.stored(WORKLOADS, see.namespace, one["metadata"]["name"]).fresh()
        message = f"Preempted to accommodate a workload (UID: {see.uid}) due to prioritization in the ClusterQueue"
        set_condition(document, condition("Evicted", "True", "Preempted", message), see.api.time())
        set_condition(document, condition("Preempted", "True", "InClusterQueue", message), see.api.time())
        see.api.update(WORKLOADS, see.namespace, one["metadata"]["name"], document, status=True)


def _not_ready_long(see: See) -> bool:
    told = condition_of(see.obj, "PodsReady")
    limit = see.options.pods_ready_timeout
    return bool(limit) and told.get("status") == "False" and see.since(told["lastTransitionTime"]) >= limit


def _requeues(see: See) -> int:
    return int((see.status.get("requeueState") or {}).get("count", 0))


def _too_slow(see: See) -> None:
    count = _requeues(see) + 1
    at = timestamp(see.now + 60 * 2 ** (count - 1))
    told = condition("Evicted", "True", "PodsReadyTimeout", "Exceeded the PodsReady timeout")
    on_workload(see, told, requeueState={"count": count, "requeueAt": at})


def _deactivate(see: See) -> None:
    see.change(lambda found: found["spec"].update(active=False), status=False)


def _ran_long(see: See) -> bool:
    limit = see.spec.get("maximumExecutionTimeSeconds")
    return limit is not None and see.since(condition_of(see.obj, "Admitted")["lastTransitionTime"]) > limit


def _waits_for(see: See) -> str:
    if _queue(see) is None:
        return f"LocalQueue {see.spec['queueName']} doesn't exist"
    if _stopped(_queue(see) or {}):
        return "ClusterQueue is inactive: stopped"
    return "couldn't assign flavors to pod set: insufficient unused quota for nvidia.com/gpu in flavor default"


def _pending_rows(state: str) -> list[Row]:
    def untold(see: See) -> bool:
        return condition_of(see.obj, "QuotaReserved").get("message") != _waits_for(see)

    return [
        Row(state, "its quota is free", "admitted", _SCHEDULER + "admit", _fits, _admit),
        Row(state, "its queue does not exist", "pending", _CORE + "reconcileOnLocalQueueActiveState",
            lambda see: _queue(see) is None and untold(see), lambda see: _pend("Inadmissible", _waits_for(see))(see)),
        Row(state, "others of lower priority hold its quota", "pending", _PREEMPT + "IssuePreemptions", _victims,
            lambda see: (_preempt(see), _pend("Pending", "Preempting workloads")(see))),
        Row(state, "no quota is free", "pending", _SCHEDULER + "requeueAndUpdate",
            lambda see: untold(see) and condition_of(see.obj, "QuotaReserved").get("message") != "Preempting workloads",
            lambda see: _pend("Pending", _waits_for(see))(see)),
    ]  # fmt: skip


TABLE = Table(
    "kueue's workloads",
    (WORKLOADS,),
    state_of,
    (
        *(Row(state, "spec.active is false", "evicted", _CORE + "Reconcile (deactivated)",
              lambda see: not see.spec.get("active", True), _evicted("Deactivated", "The workload is deactivated"))
          for state in ("new", "pending", "admitted")),
        *_pending_rows("new"),
        *_pending_rows("pending"),
        Row("admitted", "its queue is stopped and drained", "evicted", _CORE + "reconcileOnClusterQueueActiveState",
            lambda see: ((_queue(see) or {}).get("spec") or {}).get("stopPolicy") == "HoldAndDrain",
            _evicted("ClusterQueueStopped", "The ClusterQueue is stopped")),
        Row("admitted", "not ready for too long, and too often", SAME, _CORE + "triggerDeactivation",
            lambda see: _not_ready_long(see) and _requeues(see) + 1 > see.options.requeue_limit, _deactivate),
        Row("admitted", "not ready for too long", "evicted", _CORE + "reconcileNotReadyTimeout", _not_ready_long, _too_slow),
        Row("admitted", "it ran longer than its label allows", SAME, _CORE + "reconcileMaxExecutionTime",
            _ran_long, _deactivate),
        Row("evicted", "it is out, and may come back", "pending", _CORE + "Reconcile (requeued)",
            lambda see: not holds(see.obj, "QuotaReserved") and see.spec.get("active", True)
            and not _backing_off(see) and condition_of(see.obj, "QuotaReserved"),
            lambda see: see.change(lambda found: (
                drop_conditions(found, ["Evicted"]), set_condition(found, condition("Requeued", "True", "BackoffFinished"),
                                                                   see.api.time())))),
        Row("evicted", "spec.active is false: it stays out", SAME, _CORE + "Reconcile (deactivated)",
            lambda see: not see.spec.get("active", True)),
    ),
    wants=lambda see: not see.deleting,
)  # fmt: skip
