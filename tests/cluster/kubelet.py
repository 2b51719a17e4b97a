"""The writer of pod status: nodes that are not there, each with a kubelet that runs `Stage`s instead of containers.

It reaches the server as a real one does, through the API alone, so it serves with a real API server as well. Its life of a
pod is a table like those of the controllers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.controllers.nodes import HOSTNAME, LEASE_NAMESPACE, LEASES
from tests.cluster.controllers.pods import phase
from tests.cluster.controllers.table import GONE, SAME, Row
from tests.cluster.doors import Door
from tests.cluster.server.api import ApiError, condition, seconds_of, timestamp
from tests.cluster.server.storage import Json
from tests.cluster.stage import Desk, Stage

_KUBELET = "kubernetes/kubernetes pkg/kubelet/kubelet.go "
_PODS = "kubernetes/kubernetes pkg/kubelet/kubelet_pods.go "
_IMAGES = "kubernetes/kubernetes pkg/kubelet/images/image_manager.go "
_STATUS = "kubernetes/kubernetes pkg/kubelet/status/status_manager.go "
_EVICTION = "kubernetes/kubernetes pkg/kubelet/eviction/eviction_manager.go "
_RUNTIME = "kubernetes/kubernetes pkg/kubelet/kuberuntime/kuberuntime_container.go "
RENEW_SECONDS = 10.0


@dataclass
class Machine:
    """One node. `up`: whether its kubelet lives; its processes may outlive it."""

    name: str
    gpus: int = 8
    up: bool = True
    renewed: float = -1e9


@dataclass
class Life:
    """A pod on a node, as its kubelet sees it."""

    kubelet: "Kubelet"
    pod: Json
    now: float

    @property
    def name(self) -> str:
        return self.pod["metadata"]["name"]

    @property
    def process(self) -> Stage | None:
        return self.kubelet.processes.get(self.pod["metadata"]["uid"])

    @property
    def deleted(self) -> bool:
        return "deletionTimestamp" in self.pod["metadata"]

    def write(self, **status: Any) -> None:
        namespace = self.pod["metadata"]["namespace"]
        self.kubelet.door.patch("pods", namespace, self.name, {"status": status}, status=True)

    def container(self, state: Json, *, ready: bool = False, restarts: int | None = None) -> list[Json]:
        old = (self.pod.get("status", {}).get("containerStatuses") or [{}])[0]
        image = self.pod["spec"]["containers"][0]
        count = old.get("restartCount", 0) if restarts is None else restarts
        return [{"name": image["name"], "image": image.get("image", ""), "imageID": "", "ready": ready, "started": ready,
                 "restartCount": count, "state": state, "lastState": {}}]  # fmt: skip

    def conditions(self, *new: Json) -> list[Json]:
        kinds = {one["type"] for one in new}
        kept = [one for one in self.pod.get("status", {}).get("conditions") or () if one["type"] not in kinds]
        return [*kept, *({**one, "lastTransitionTime": timestamp(self.now)} for one in new)]


def _state(life: Life) -> str:
    if phase(life.pod) in ("Succeeded", "Failed"):
        return "ended"
    if life.process is None:
        return "lost" if phase(life.pod) == "Running" else "waiting"
    return "stopping" if life.deleted else "running"


def _image(life: Life) -> str:
    return str(life.pod["spec"]["containers"][0].get("image", ""))


def _waiting(reason: str, message: str) -> Callable[[Life], None]:
    return lambda life: life.write(
        phase="Pending", containerStatuses=life.container({"waiting": {"reason": reason, "message": message}})
    )


def _reason(life: Life) -> str:
    found = (life.pod.get("status", {}).get("containerStatuses") or [{}])[0]
    return str((found.get("state", {}).get("waiting") or {}).get("reason", ""))


def _lacks_config(life: Life) -> bool:
    told = _reason(life) == "CreateContainerConfigError"
    return life.kubelet.no_config and _image(life) not in life.kubelet.no_image and not told


def _start(life: Life) -> None:
    life.kubelet.processes[life.pod["metadata"]["uid"]] = Stage(life.kubelet.desk, life.pod, life.now)
    life.write(
        phase="Running", startTime=timestamp(life.now), containerStatuses=life.container(
            {"running": {"startedAt": timestamp(life.now)}}, ready=True),
        conditions=life.conditions(condition("Ready"), condition("ContainersReady")),
    )  # fmt: skip


def _old_enough(life: Life) -> bool:
    return life.now - seconds_of(life.pod["metadata"]["creationTimestamp"]) >= life.kubelet.start_seconds


def _exit(life: Life) -> None:
    process = life.process
    assert process is not None
    code, reason = process.ended or (137, "")
    terminated = {
        "exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error"),
        "startedAt": timestamp(process.began), "finishedAt": timestamp(life.now),
    }  # fmt: skip
    life.write(
        phase="Succeeded" if code == 0 else "Failed", containerStatuses=life.container({"terminated": terminated}),
        conditions=life.conditions(condition("Ready", "False", "PodCompleted" if code == 0 else "PodFailed")),
    )  # fmt: skip
    life.kubelet.forget(life.pod)


def _unknown(life: Life) -> None:
    state = {"exitCode": 137, "reason": "ContainerStatusUnknown", "finishedAt": timestamp(life.now),
             "message": "The container could not be located when the pod was terminated"}  # fmt: skip
    life.write(
        phase="Failed", containerStatuses=life.container({"terminated": state}),
        conditions=life.conditions(condition("Ready", "False", "PodFailed")),
    )  # fmt: skip


def _restart(life: Life) -> None:
    process = life.process
    count = (life.pod.get("status", {}).get("containerStatuses") or [{}])[0].get("restartCount", 0) + 1
    life.kubelet.desk.told(f"{life.name}: container restarted ({process.ended if process else ''})")
    life.kubelet.processes[life.pod["metadata"]["uid"]] = Stage(life.kubelet.desk, life.pod, life.now)
    state = {"running": {"startedAt": timestamp(life.now)}}
    life.write(containerStatuses=life.container(state, ready=True, restarts=count))


def _restarts(life: Life) -> bool:
    process = life.process
    wish = life.pod["spec"].get("restartPolicy", "Always")
    ended = process is not None and process.ended
    return bool(ended) and (wish == "Always" or (wish == "OnFailure" and process.ended[0] != 0))  # type: ignore[index,union-attr]


def _sigterm(life: Life) -> None:
    process = life.process
    assert process is not None
    process.sigterm(life.now)
    life.kubelet.desk.told(f"{life.name}: SIGTERM")


def _over(life: Life) -> bool:
    return life.now >= seconds_of(life.pod["metadata"]["deletionTimestamp"])


def _sigkill(life: Life) -> None:
    process = life.process
    assert process is not None
    process.kill()
    life.kubelet.desk.told(f"{life.name}: SIGKILL")


def _remove(life: Life) -> None:
    life.kubelet.door.delete("pods", life.pod["metadata"]["namespace"], life.name, gracePeriodSeconds=0)
    life.kubelet.forget(life.pod)


def _put_out(life: Life) -> None:
    message = life.kubelet.evictions[life.name]
    told = condition("DisruptionTarget", "True", "TerminationByKubelet", message)
    life.write(
        phase="Failed", reason="Evicted", message=message, conditions=life.conditions(told), containerStatuses=[]
    )
    life.kubelet.forget(life.pod)
    del life.kubelet.evictions[life.name]


ROWS: tuple[Row, ...] = (
    Row("waiting", "it is being deleted", GONE, _STATUS + "TerminatePod", lambda life: life.deleted, _remove),  # type: ignore[arg-type]
    Row("waiting", "its image cannot be pulled", SAME, _IMAGES + "EnsureImageExists",
        lambda life: _image(life) in life.kubelet.no_image and not _reason(life),
        _waiting("ErrImagePull", "rpc error: code = NotFound desc = failed to pull and unpack image: not found")),
    Row("waiting", "its image could not be pulled: back-off", SAME, _IMAGES + "EnsureImageExists",
        lambda life: _image(life) in life.kubelet.no_image and _reason(life) == "ErrImagePull",
        _waiting("ImagePullBackOff", "Back-off pulling image")),
    Row("waiting", "a secret or config map is missing", SAME, _RUNTIME + "generateContainerConfig", _lacks_config,
        _waiting("CreateContainerConfigError", 'secret "store" not found')),
    Row("waiting", "its container starts", "running", _RUNTIME + "startContainer",
        lambda life: _old_enough(life) and _image(life) not in life.kubelet.no_image and not life.kubelet.no_config, _start),
    Row("lost", "its machine was started anew: nobody knows its container", "ended",
        _PODS + "convertToAPIContainerStatuses", lambda life: True, _unknown),
    Row("running", "the node is short of disk or memory: evicted", "ended", _EVICTION + "evictPod",
        lambda life: life.name in life.kubelet.evictions, _put_out),
    Row("running", "its container ended, and restarts in place", SAME, _KUBELET + "SyncPod", _restarts, _restart),
    Row("running", "its container ended", "ended", _PODS + "getPhase",
        lambda life: life.process is not None and life.process.ended, _exit),
    Row("stopping", "its container ended", "ended", _PODS + "getPhase",
        lambda life: life.process is not None and life.process.ended, _exit),
    Row("stopping", "it is being deleted: SIGTERM", SAME, _RUNTIME + "killContainer",
        lambda life: life.process is not None and not life.process.term, _sigterm),
    Row("stopping", "its grace is over: SIGKILL", SAME, _RUNTIME + "killContainer", _over, _sigkill),
    Row("ended", "it is being deleted: its object may go", GONE, _STATUS + "canBeDeleted",
        lambda life: life.deleted and life.pod["metadata"].get("deletionGracePeriodSeconds", 0) > 0, _remove),
)  # type: ignore[arg-type] # fmt: skip


@dataclass
class Kubelet:
    """All machines of a test."""

    door: Door
    desk: Desk
    machines: dict[str, Machine] = field(default_factory=dict)
    processes: dict[str, Stage] = field(default_factory=dict)
    zombies: list[Stage] = field(default_factory=list)
    "Processes on machines that cannot be reached: they go on."
    evictions: dict[str, str] = field(default_factory=dict)
    no_image: set[str] = field(default_factory=set)
    no_config: bool = False
    start_seconds: float = 5.0
    fired: dict[str, int] = field(default_factory=dict)
    started: list[Callable[[Json], None]] = field(default_factory=list)
    "Asked at each start of a container."

    def add(self, *machines: Machine) -> None:
        """Register nodes."""
        for machine in machines:
            self.machines[machine.name] = machine
            self.door.create(
                "nodes", "", {"metadata": {"name": machine.name, "labels": {HOSTNAME: machine.name}}, "spec": {}}
            )
            capacity = {"nvidia.com/gpu": str(machine.gpus), "cpu": "64", "memory": "512Gi", "pods": "110"}
            ready = {**condition("Ready", "True", "KubeletReady"), "lastTransitionTime": timestamp(0)}
            status = {"capacity": capacity, "allocatable": capacity, "conditions": [ready]}
            self.door.patch("nodes", "", machine.name, {"status": status}, status=True)

    def forget(self, pod: Json) -> None:
        """A container is no more: its process dies if it still lives."""
        process = self.processes.pop(pod["metadata"]["uid"], None)
        if process is not None:
            process.kill()

    def step(self, now: float) -> None:
        """Look at every pod once. An API server that does not answer is asked again at the next step."""
        self._work(now)
        try:
            self._beat(now)
            pods = self.door.all("pods")
        except ApiError:
            return
        mine = {pod["metadata"]["uid"] for pod in pods}
        for uid in [uid for uid in self.processes if uid not in mine]:
            pod = self.processes[uid].pod
            if self.machines[pod["spec"]["nodeName"]].up:
                self.forget(pod)
        for pod in pods:
            machine = self.machines.get(pod["spec"].get("nodeName", ""))
            if machine is not None and machine.up:
                self._sync(Life(self, pod, now))

    def _work(self, now: float) -> None:
        everybody = [*self.processes.values(), *self.zombies]
        gangs: dict[str, list[Stage]] = {}
        for process in everybody:
            owner = process.pod["metadata"].get("ownerReferences", [{"uid": process.uid}])[0]["uid"]
            gangs.setdefault(owner, []).append(process)
        for gang in gangs.values():
            living = [one for one in gang if one.works and (not one.ended or one.rank == 0)]
            for one in gang:
                if one.works and not one.rank:
                    one.meet(len(living))
                one.pass_time(now, [other for other in living if other is not one])

    def _beat(self, now: float) -> None:
        for machine in self.machines.values():
            if machine.up and now - machine.renewed >= RENEW_SECONDS:
                machine.renewed = now
                spec = {"holderIdentity": machine.name, "renewTime": timestamp(now)}
                if self.door.patch(LEASES, LEASE_NAMESPACE, machine.name, {"spec": spec}) is None:
                    self.door.create(LEASES, LEASE_NAMESPACE, {"metadata": {"name": machine.name}, "spec": spec})

    def _sync(self, life: Life) -> None:
        for _ in range(6):
            state = _state(life)
            row = next((row for row in ROWS if row.state == state and row.when(life)), None)  # type: ignore[arg-type]
            if row is None:
                return
            name = f"kubelet: {row.state} --{row.event}--> {row.next}"
            self.fired[name] = self.fired.get(name, 0) + 1
            assert row.do is not None
            if row.event == "its container starts":
                for look in self.started:
                    look(life.pod)
            try:
                row.do(life)  # type: ignore[arg-type]
                fresh = self.door.find("pods", life.pod["metadata"]["namespace"], life.name)
            except ApiError:
                return
            if fresh is None or fresh["metadata"]["uid"] != life.pod["metadata"]["uid"]:
                return
            life.pod = fresh

    # -- what happens to machines and pods

    def lose(self, name: str) -> None:
        """The machine is not heard of any more; what runs on it goes on unseen."""
        self.machines[name].up = False
        for uid, process in list(self.processes.items()):
            if process.pod["spec"]["nodeName"] == name:
                self.zombies.append(self.processes.pop(uid))

    def die(self, name: str) -> None:
        """The machine is off: nothing on it goes on."""
        self.lose(name)
        for process in self.zombies:
            process.kill()
        self.zombies.clear()

    def back(self, name: str) -> None:
        """The machine is there again, started anew."""
        self.die(name)
        self.machines[name].up = True
        self.machines[name].renewed = -1e9

    def evict(self, pod: str, message: str = "The node was low on resource: ephemeral-storage.") -> None:
        self.evictions[pod] = message

    def oom(self, pod: str) -> None:
        """The kernel kills it for its memory."""
        for process in self.processes.values():
            if process.name == pod:
                process.kill("OOMKilled")
