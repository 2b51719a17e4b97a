"""Where a pod lands, how long it stays on a machine that is gone, and what else could end a job or keep it for ever."""

from collections.abc import Iterator

from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.naming import JOBS
from wfm.cluster.lint.quantity import whole
from wfm.cluster.lint.seen import STAGE_ROLES, WORKFLOWS, Seen, at, rows, table, word

_GONE = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
"""Taints of a machine that does not answer."""
_MOST_BORNE = 3600
_BLIND = ("Default", "None")


@rule("scheduler", "the scheduler of the cluster places each pod of a stage")
def scheduler(seen: Seen) -> Iterator[Found]:
    """No machine by name, which goes past the scheduler and the queue; no other scheduler; no priority of the system's."""
    for pod in seen.pods:
        if pod.role == "other":
            continue
        if pod.content.get("nodeName"):
            says = "it goes past the scheduler, and fails where there is no room: leave it out, or use nodeSelector"
            yield Found(pod.where("nodeName"), pod.content["nodeName"], says)
        if pod.content.get("schedulerName") not in (None, "", "default-scheduler"):
            says = "without that one no pod is ever placed: leave it out"
            yield Found(pod.where("schedulerName"), pod.content["schedulerName"], says)
        if word(pod.content, "priorityClassName").startswith("system-"):
            says = "it would throw out what the cluster itself needs: name the priority of the settings"
            yield Found(pod.where("priorityClassName"), pod.content["priorityClassName"], says)
        for each in pod.containers:
            if each.content.get("imagePullPolicy") == "Never":
                says = "it starts only where somebody put the image: IfNotPresent, or leave it out"
                yield Found(f"{each.where}.imagePullPolicy", "Never", says)


@rule("toleration", "a pod leaves a machine that does not answer")
def toleration(seen: Seen) -> Iterator[Found]:
    """Who bears every taint, or that of a lost machine without an end, stays on it and is never made again."""
    for pod in seen.pods:
        for place, each in rows(pod.content, "tolerations"):
            hits = word(each, "key") in _GONE or (not word(each, "key") and each.get("operator") == "Exists")
            if not hits or word(each, "effect") not in ("", "NoExecute"):
                continue
            borne = whole(each.get("tolerationSeconds"))
            if borne is None or borne > _MOST_BORNE:
                says = (
                    f"its pods would never leave a machine that is gone: name the key that is meant, or give "
                    f"tolerationSeconds of {_MOST_BORNE} at most"
                )
                yield Found(pod.where(f"tolerations.{place}"), each, says)


@rule("peers", "pods of one stage find each other by name, from their start on")
def peers(seen: Seen) -> Iterator[Found]:
    """By the cluster's DNS, also before they are ready: ranks and workers look for names of pods and services."""
    for pod in seen.pods:
        if pod.role in STAGE_ROLES and pod.content.get("dnsPolicy") in _BLIND:
            says = "it knows no names of the cluster: ClusterFirst, or leave it out"
            yield Found(pod.where("dnsPolicy"), pod.content["dnsPolicy"], says)
        if pod.role == "rank":
            for name in ("hostname", "subdomain"):
                if pod.content.get(name):
                    says = "its controller gives each rank a name of its own: leave it out"
                    yield Found(pod.where(name), pod.content[name], says)
    bases = {"JobSet": "spec", "TrainingRuntime": "spec.template.spec", "ClusterTrainingRuntime": "spec.template.spec"}
    for thing in seen.of(*bases):
        for name in ("enableDNSHostnames", "publishNotReadyAddresses"):
            path = f"{bases[thing.kind]}.network.{name}"
            if at(thing.content, path) is False:
                yield Found(thing.where(path), False, "ranks meet before they are ready, by their names: leave it out")


@rule("ties", "a job ends by its own, and goes when it is told to")
def ties(seen: Seen) -> Iterator[Found]:
    """No owner, with which it would be deleted (a launcher's pod that is drained must not end a training); no finalizer, which
    keeps a deleted job, its name and its namespace until somebody takes it off."""
    for thing in seen.of(*JOBS, "JobSet", *WORKFLOWS):
        owners = at(thing.content, "metadata.ownerReferences")
        if owners and thing.kind in JOBS:
            says = "it would be deleted together with its owner, though others need it: leave it out"
            yield Found(thing.where("metadata.ownerReferences"), owners, says)
        places = [("metadata", table(thing.content, "metadata"))]
        places += [(pod.metadata_path, pod.metadata) for pod in seen.pods_of(thing)]
        for path, found in places:
            if found.get("finalizers"):
                says = "what is deleted would stay, and hold its name, until somebody takes it off: leave it out"
                yield Found(thing.where(f"{path}.finalizers"), found["finalizers"], says)
