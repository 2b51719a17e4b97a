"""Where pods run: the scheduler, the life of nodes, and what becomes of pods whose node is lost."""

from collections.abc import Callable, Iterable

from tests.cluster.controllers.pods import active, gpus, labels, phase
from tests.cluster.controllers.table import SAME, Row, See, Table
from tests.cluster.server.api import condition, condition_of, seconds_of, set_condition
from tests.cluster.server.storage import Json

LEASES, LEASE_NAMESPACE = "leases.coordination.k8s.io", "kube-node-lease"
UNREACHABLE, OUT_OF_SERVICE = "node.kubernetes.io/unreachable", "node.kubernetes.io/out-of-service"
HOSTNAME = "kubernetes.io/hostname"
_SCHEDULER = "kubernetes/kubernetes pkg/scheduler/schedule_one.go "
_LIFE = "kubernetes/kubernetes pkg/controller/nodelifecycle/node_lifecycle_controller.go "
_TAINT = "kubernetes/kubernetes pkg/controller/tainteviction/taint_eviction.go "
_GC = "kubernetes/kubernetes pkg/controller/podgc/gc_controller.go "


# -- the scheduler


def _placed(see: See) -> str:
    if see.spec.get("schedulingGates"):
        return "gated"
    return "bound" if see.spec.get("nodeName") else "pending"


def _fits(see: See, node: Json) -> bool:
    spec, name = node.get("spec") or {}, node["metadata"]["name"]
    if spec.get("unschedulable") or "deletionTimestamp" in node["metadata"]:
        return False
    if any(labels(node).get(key) != value for key, value in (see.spec.get("nodeSelector") or {}).items()):
        return False
    affinity = ((see.spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    terms = (affinity or {}).get("nodeSelectorTerms") or ()
    if terms and not any(all(_matches(rule, node) for rule in term.get("matchExpressions") or ()) for term in terms):
        return False
    for taint in spec.get("taints") or ():
        if taint["effect"] in ("NoSchedule", "NoExecute") and not _tolerates(see.spec, taint):
            return False
    capacity = node.get("status", {}).get("allocatable") or {}
    there = [
        pod.object for pod in see.api.storage.of("pods")
        if pod.object["spec"].get("nodeName") == name and phase(pod.object) not in ("Succeeded", "Failed")
    ]  # fmt: skip
    used = sum(gpus(pod["spec"]) for pod in there)
    wanted = gpus(see.spec)
    return len(there) < int(capacity.get("pods", 110)) and (
        not wanted or used + wanted <= int(capacity.get("nvidia.com/gpu", 0))
    )


def _matches(rule: Json, node: Json) -> bool:
    there = {HOSTNAME: node["metadata"]["name"], **labels(node)}.get(rule["key"])
    values = rule.get("values") or ()
    return {
        "In": there in values, "NotIn": there not in values, "Exists": there is not None, "DoesNotExist": there is None,
    }[rule["operator"]]  # fmt: skip


def _tolerates(spec: Json, taint: Json) -> bool:
    for one in spec.get("tolerations") or ():
        meant = one.get("key") in (None, "", taint["key"]) and one.get("effect") in (None, "", taint["effect"])
        if meant and (one.get("operator", "Equal") == "Exists" or one.get("value", "") == taint.get("value", "")):
            return True
    return False


def _node_for(see: See) -> Json | None:
    return next((node.object for node in see.api.storage.of("nodes") if _fits(see, node.object)), None)


def _bind(see: See) -> None:
    node = _node_for(see)
    assert node is not None

    def alter(pod: Json) -> None:
        pod["spec"]["nodeName"] = node["metadata"]["name"]

    see.change(alter, status=False)
    see.change(lambda pod: set_condition(pod, condition("PodScheduled"), see.api.time()))
    see.event("Scheduled", f"Successfully assigned {see.namespace}/{see.name} to {node['metadata']['name']}")


def _unschedulable(see: See) -> None:
    total = len(see.api.storage.of("nodes"))
    wanted = "Insufficient nvidia.com/gpu" if gpus(see.spec) else "node(s) didn't match Pod's node affinity/selector"
    message = f"0/{total} nodes are available: {total} {wanted}."
    see.change(
        lambda pod: set_condition(pod, condition("PodScheduled", "False", "Unschedulable", message), see.api.time())
    )
    see.event("FailedScheduling", message, "Warning")


SCHEDULER = Table(
    "scheduler",
    ("pods",),
    _placed,
    (
        Row("pending", "a node has room", "bound", _SCHEDULER + "bind", _node_for, _bind),
        Row("pending", "no node has room", SAME, _SCHEDULER + "handleSchedulingFailure",
            lambda see: condition_of(see.obj, "PodScheduled").get("reason") != "Unschedulable", _unschedulable),
        Row("gated", "it has scheduling gates", SAME,
            "kubernetes/kubernetes pkg/scheduler/framework/plugins/schedulinggates/scheduling_gates.go PreEnqueue",
            lambda see: not condition_of(see.obj, "PodScheduled"),
            lambda see: see.change(lambda pod: set_condition(
                pod, condition("PodScheduled", "False", "SchedulingGated", "Scheduling is blocked due to non-empty gates"),
                see.api.time()))),
    ),
    wants=lambda see: not see.deleting and phase(see.obj) == "Pending",
)  # fmt: skip


# -- the life of nodes


def _ready(see: See) -> str:
    return {"True": "ready", "False": "not ready"}.get(condition_of(see.obj, "Ready").get("status", ""), "unknown")


def _silent(see: See) -> bool:
    lease = see.api.find(LEASES, LEASE_NAMESPACE, see.name)
    return lease is not None and see.now - seconds_of(lease["spec"]["renewTime"]) > see.options.node_grace


def _taints(taints: Iterable[Json]) -> Callable[[Json], None]:
    return lambda node: node.setdefault("spec", {}).update(taints=list(taints))


def _lose(see: See) -> None:
    told = condition("Ready", "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
    see.change(lambda node: set_condition(node, told, see.api.time()))
    kept = list(see.spec.get("taints") or ())
    new = [
        {"key": UNREACHABLE, "effect": effect, "timeAdded": see.api.time()} for effect in ("NoSchedule", "NoExecute")
    ]
    see.change(_taints(kept + new), status=False)
    for pod in _here(see):
        if phase(pod) == "Running":
            _patch_pod(see, pod, lambda found: set_condition(found, condition("Ready", "False"), see.api.time()))
    see.event("NodeNotReady", f"Node {see.name} status is now: NodeNotReady")


def _find_again(see: See) -> None:
    see.change(_taints(taint for taint in see.spec.get("taints") or () if taint["key"] != UNREACHABLE), status=False)
    see.change(lambda node: set_condition(node, condition("Ready", "True", "KubeletReady"), see.api.time()))


def _here(see: See) -> list[Json]:
    return [pod.object for pod in see.api.storage.of("pods") if pod.object["spec"].get("nodeName") == see.name]


def _patch_pod(see: See, pod: Json, alter: Callable[[Json], object]) -> None:
    metadata = pod["metadata"]
    document = see.api.stored("pods", metadata["namespace"], metadata["name"]).fresh()
    alter(document)
    see.api.update("pods", metadata["namespace"], metadata["name"], document, status=True)


def _intolerant(see: See) -> list[Json]:
    """Pods whose patience with the unreachable node is over."""
    since = next(
        (seconds_of(taint["timeAdded"]) for taint in see.spec.get("taints") or () if taint["key"] == UNREACHABLE), 0.0
    )
    found = []
    for pod in _here(see):
        wish = [one for one in pod["spec"].get("tolerations") or () if one.get("key") == UNREACHABLE]
        patience = wish[0].get("tolerationSeconds", float("inf")) if wish else see.options.toleration
        if since and active(pod) and see.now - since >= patience:
            found.append(pod)
    return found


def _evict(see: See) -> None:
    told = condition(
        "DisruptionTarget", "True", "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"
    )
    for pod in _intolerant(see):
        _patch_pod(see, pod, lambda found: set_condition(found, told, see.api.time()))
        see.delete(pod)


NODES = Table(
    "node lifecycle",
    ("nodes",),
    _ready,
    (
        Row("ready", "no heartbeat for the grace period", "unknown", _LIFE + "tryUpdateNodeHealth", _silent, _lose),
        Row("unknown", "a heartbeat", "ready", _LIFE + "monitorNodeHealth", lambda see: not _silent(see), _find_again),
        Row("unknown", "a pod tolerates it no longer: it is deleted, and stays Terminating", SAME,
            _TAINT + "addConditionAndDeletePod", _intolerant, _evict),
    ),
)  # fmt: skip


# -- pods of nodes that are gone


def _node_state(see: See) -> str:
    if not see.spec.get("nodeName"):
        return "unbound"
    return "bound" if see.api.find("nodes", "", see.spec["nodeName"]) else "orphaned"


def _force(reason: str, message: str) -> Callable[[See], None]:
    def do(see: See) -> None:
        def alter(pod: Json) -> None:
            if phase(pod) not in ("Succeeded", "Failed"):
                pod["status"]["phase"] = "Failed"
                if reason:
                    set_condition(pod, condition("DisruptionTarget", "True", reason, message), see.api.time())

        see.change(alter)
        see.delete(see.obj, gracePeriodSeconds=0)

    return do


def _orphaned_long(see: See) -> bool:
    """The node's lease goes with the node: the last heartbeat tells since when."""
    lease = see.api.find(LEASES, LEASE_NAMESPACE, see.spec["nodeName"])
    return lease is None or see.now - seconds_of(lease["spec"]["renewTime"]) >= see.options.orphan_quarantine


def _out_of_service(see: See) -> bool:
    node = see.api.find("nodes", "", see.spec["nodeName"]) or {}
    keys = {taint["key"] for taint in (node.get("spec") or {}).get("taints") or ()}
    return see.deleting and OUT_OF_SERVICE in keys and condition_of(node, "Ready").get("status") != "True"


def _released(see: See) -> bool:
    return not see.meta.get("finalizers")


POD_GC = Table(
    "pod garbage collector",
    ("pods",),
    _node_state,
    (
        Row("orphaned", "its node is no more", SAME, _GC + "gcOrphaned",
            lambda see: _orphaned_long(see) and (_released(see) or phase(see.obj) not in ("Succeeded", "Failed")),
            _force("DeletionByPodGC", "PodGC: node no longer exists")),
        Row("bound", "it ends on a node that is out of service", SAME, _GC + "gcTerminating",
            lambda see: _out_of_service(see) and (_released(see) or phase(see.obj) not in ("Succeeded", "Failed")),
            _force("", "")),
    ),
)  # fmt: skip
