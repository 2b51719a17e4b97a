"""A cluster, a store, runs and launchers, and one clock for all of them.

    world = World(tmp_path)                       # the model, its controllers, its own time
    world = World(tmp_path, url="http://...")     # any API server, real time; its controllers are its own
    asked = world.ask("train", seconds=600)       # a run whose node needs a key
    launcher = world.launcher(asked)
    world.until(lambda: asked.key in launcher.ended, 3600)

In the model's time a watch ends when all is told, and controllers and kubelets work in steps between the launchers' ticks.
On another server times are real, and shorter: `pace` of those that a scenario names (``WFM_TEST_PACE``).
"""

import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.controllers import ALL, Controllers, Options
from tests.cluster.controllers.kueue import webhook
from tests.cluster.controllers.pods import annotations, gpus, phase
from tests.cluster.doors import AGENT, DirectDoor, Door, HttpDoor
from tests.cluster.kubelet import Kubelet, Machine
from tests.cluster.proxy import Proxy
from tests.cluster.server.api import Api, ApiError
from tests.cluster.server.faults import Faults
from tests.cluster.server.http import HttpServer
from tests.cluster.server.kinds import Resource
from tests.cluster.server.storage import Json, Key, Storage
from tests.cluster.stage import GENERATION, KEY, Desk, Script
from tests.cluster.strict import faults
from wfm.artifacts import Store
from wfm.cluster.request import JobRequest
from wfm.cluster.resources import Resources
from wfm.cluster.settings import ClusterSettings

NAMESPACE = "training"
KINDS = ("pytorchjobs.kubeflow.org", "trainjobs.trainer.kubeflow.org", "daskjobs.kubernetes.dask.org", "jobs.batch")
START = 1_800_000_000.0
STEP = 5.0
DIGEST = "sha256:" + "0123456789abcdef" * 4
PATIENCE = {
    "image_pull_seconds": 300, "unschedulable_seconds": 600, "queue_ignored_seconds": 120, "start_seconds": 300,
    "lost_node_seconds": 120, "poll_seconds": 20,
}  # fmt: skip


def settings(**more: Any) -> ClusterSettings:
    images = {role: f"registry.example/wfm-{role}@{DIGEST}" for role in ("curation", "training", "control")}
    values: Json = {
        "namespace": NAMESPACE, "images": images, "queue": "research", "training_job": "pytorchjob",
        "integrations": ["pytorchjob", "trainjob", "job", "pod"], "patience": PATIENCE,
    }  # fmt: skip
    return ClusterSettings.parse({**values, **more})


def _strict(row: Resource, found: Json) -> None:
    """Of what launchers make, no field is dropped without a word, and none refused later."""
    if row.name not in KINDS or KEY not in annotations(found) or found["metadata"].get("ownerReferences"):
        return
    given = {name: value for name, value in found.items() if name != "status"}
    wrong = faults(
        {
            **given,
            "metadata": {"name": "n", **{k: found["metadata"][k] for k in ("labels", "annotations", "namespace")}},
        }
    )
    if wrong:
        raise ApiError(422, "Invalid", f"{row.kind} {found['metadata']['name']} is invalid: {'; '.join(wrong[:5])}")


class SimulatedClock:
    """Time that passes only when somebody waits; `world` lets the cluster go on meanwhile."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.time = START

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self._world.pass_time(seconds)  # as long as it says: the model's pace is 1


class RealClock:
    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class SkewedClock:
    """Of a machine whose clock is so many seconds ahead."""

    clock: Any
    ahead: float

    def now(self) -> float:
        return float(self.clock.now() + self.ahead)

    def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)


@dataclass(frozen=True, eq=False)
class Asked:
    """A node of a run, to be launched."""

    run: Any
    request: JobRequest

    @property
    def key(self) -> str:
        return self.request.key


@dataclass(eq=False)
class Launching:
    """A launcher that lives: `due` is when it wants to be called next."""

    name: str
    launcher: Any
    asked: list[Asked]
    due: float = 0.0

    @property
    def ended(self) -> dict[str, Any]:
        return self.launcher.ended


@dataclass
class World:
    """See the module. `direct`: the kubelets and the scenario call the model without HTTP."""

    folder: Path
    url: str = ""
    seed: int = 0
    direct: bool = False
    options: Options = field(default_factory=Options)
    machines: int = 2
    gpus: int = 8
    quota: int = 16
    patience: dict[str, float] = field(default_factory=dict)
    integrations: tuple[str, ...] = ("pytorchjob", "trainjob", "job", "pod")
    training_job: str = "pytorchjob"
    pace: float = 0.0
    "0: 1 in the model, ``WFM_TEST_PACE`` on another server."
    longest = 1e9
    "However long anybody waits: less where a planted bug would make it long."

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.lines: list[str] = []
        self.real = bool(self.url)
        self.mark = f"-{time.time_ns() // 1000:x}" if self.real else ""
        "In names, so that a scenario meets nothing of the one before on the same server."
        self.pace = self.pace or (float(os.environ.get("WFM_TEST_PACE", "0.05")) if self.real else 1.0)
        self.clock: Any = RealClock() if self.real else SimulatedClock(self)
        self.model: Controllers | None = None
        self.watchers: list[Callable[[], None]] = []
        "Asked after each step."
        self.due: list[tuple[float, Callable[[], None]]] = []
        "What happens at a time of its own."
        self.slow: Callable[[], Iterable[str]] = lambda: ()
        "Controllers that do nothing in this step."
        self.launchers: list[Launching] = []
        self._runs: dict[str, str] = {}
        self.began = self.clock.now()
        patience = {name: value * self.pace for name, value in {**PATIENCE, **self.patience}.items()}
        patience["start_seconds"] = max(patience["start_seconds"], 60.0)  # the least that the lint lets through
        self.settings = settings(
            patience=patience, integrations=list(self.integrations), training_job=self.training_job
        )
        self.front: HttpServer | Proxy = Proxy(self.url, self.seed + 2).start() if self.real else self._start_model()
        "What launchers talk to, and a scenario makes ill: the model itself, or a proxy in front of the other server."
        self.faults = self.front.faults
        self.door: Door = DirectDoor(self.api) if self.direct else HttpDoor.at(self.url)
        self.store = Store.open(self.folder / "store", {"fsync": False})
        self.desk = Desk(self.store, {}, self.tell)
        self.kubelet = Kubelet(self.door, self.desk)
        self.kubelet.start_seconds *= self.pace
        self._furnish()

    def _start_model(self) -> HttpServer:
        self.storage = Storage()
        self.api = Api(self.storage, self.clock.now, random.Random(self.seed + 1))
        self.api.admission.append(webhook(self.api, lambda: self.options.integrations))
        if not self.direct:
            self.api.admission.append(_strict)
        ill = Faults(random.Random(self.seed + 2), spared=AGENT)
        server = HttpServer(self.api, ill, streams=False).start()
        self.url = server.url
        self.model = Controllers(self.api, ALL, self.options)
        for name in ("default", "kube-node-lease", NAMESPACE):
            document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name}}
            self.storage.put(Key("namespaces", "", name), document)
        return server

    def _furnish(self) -> None:
        """Nodes, and a queue with its quota: on a real cluster what the platform team has set up stays."""
        from wfm.cluster.objects import trainjob

        self.kubelet.add(*(Machine(f"node-{number}{self.mark}", self.gpus) for number in range(self.machines)))
        made = (
            ("namespaces", "", {"metadata": {"name": NAMESPACE}}),
            ("clusterqueues.kueue.x-k8s.io", "", {
                "metadata": {"name": "all"}, "spec": {
                    "namespaceSelector": {}, "preemption": {"withinClusterQueue": "LowerPriority"},
                    "resourceGroups": [{"coveredResources": ["nvidia.com/gpu"], "flavors": [
                        {"name": "default", "resources": [{"name": "nvidia.com/gpu", "nominalQuota": self.quota}]}]}],
                }}),
            ("localqueues.kueue.x-k8s.io", NAMESPACE,
             {"metadata": {"name": "research"}, "spec": {"clusterQueue": "all"}}),
            ("workloadpriorityclasses.kueue.x-k8s.io", "", {"metadata": {"name": "urgent"}, "value": 100}),
            ("trainingruntimes.trainer.kubeflow.org", NAMESPACE, trainjob.runtime(self.settings)),
        )  # fmt: skip
        for resource, namespace, document in made:
            if self.door.find(resource, namespace, document["metadata"]["name"]) is None:
                self.door.create(resource, namespace, document)

    def close(self) -> None:
        for launching in self.launchers:
            launching.launcher.detach()
        if self.real:
            self._clear()
        self.front.stop()

    def _clear(self) -> None:
        """Take away what this world made on another server."""
        for key in self.desk.scripts:
            self.delete_job(key)
        self._pass(3.0)
        for name in self.kubelet.machines:
            self.door.delete("nodes", "", name)
            self.door.delete("leases.coordination.k8s.io", "kube-node-lease", name)

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def called(self, asked: Asked) -> str:
        """What the timeline calls it."""
        return f"{asked.request.node} of {self._runs.get(asked.run.id, asked.run.id)}"

    # -- what is told

    def tell(self, words: str) -> None:
        self.lines.append(f"{self.clock.now() - self.began:7.0f}  {words}")

    def timeline(self) -> str:
        """What happened, line by line."""
        return "\n".join([f"seed {self.seed}", *self.lines])

    # -- asking

    def ask(
        self, name: str = "train", *, kind: str = "torchjob", run: Any = None, key: str = "", retries: int = 3,
        timeout: float = 3600.0, replicas: int = 1, gpu: int = 8, parts: int = 0, grace: int = 30, generation: int = 1,
        script: Script | None = None, **resources: Any,
    ) -> Asked:  # fmt: skip
        """A run (or one more node of `run`) that needs a key, whose stage goes by `script`."""
        run = run or self.store.runs.create({"recipe": "test", "plan": {}})
        self._runs.setdefault(run.id, f"run {len(self._runs)}")
        grace, timeout = max(round(grace * self.pace), 1), timeout * self.pace
        key = key or hashlib.sha256(f"{self.seed} {name}{self.mark}".encode()).hexdigest()
        component = {"torchjob": "train_world_model", "daskjob": "split_clips"}.get(kind, "generate_videos")
        needs = Resources.parse({"gpu": gpu, "replicas": replicas, "grace_seconds": grace, **resources})
        spec = {
            "schema_version": 1, "store": self.store.url, "run_id": run.id, "node": name, "stage": component,
            "component": component, "kind": "model", "config": {}, "redo": "", "promote": "", "reads_truth": False,
        }  # fmt: skip
        url = run.write(f"specs/{name}.json", json.dumps(spec), private=True)
        request = JobRequest(
            stage=component, component=component, node=name, kind=kind, image="training", key=key, generation=generation,  # type: ignore[arg-type]
            run_id=run.id, spec_url=url, resources=needs, timeout_seconds=timeout, retries=retries, parts=parts,
        )  # fmt: skip
        if script is not None or key not in self.desk.scripts:
            self.desk.scripts[key] = (script or Script()).at_pace(self.pace)
        return Asked(run, request)

    def launcher(self, *asked: Asked, name: str = "", ahead: float = 0.0) -> Launching:
        """A new launcher process for these: as one that was started (again) on another machine, whose clock is `ahead`."""
        from wfm.cluster.api import Api as LauncherApi
        from wfm.cluster.launcher import Launcher

        found = LauncherApi.connect(namespace=self.settings.namespace, url=self.front.url)
        clock = SkewedClock(self.clock, ahead) if ahead else self.clock
        launcher = Launcher(found, self.store, self.settings, clock, threads=self.real)
        launching = Launching(name or f"launcher {len(self.launchers)}", launcher, list(asked))
        for one in asked:
            launcher.add(one.request)
        self.launchers.append(launching)
        self.tell(f"{launching.name} starts, for {', '.join(map(self.called, asked))}")
        return launching

    def crash(self, launching: Launching) -> None:
        """It is killed: nothing of it is left but what it did."""
        self.launchers.remove(launching)
        self.tell(f"{launching.name} is killed")

    def detach(self, launching: Launching) -> None:
        """It is sent SIGTERM."""
        launching.launcher.detach()
        self.launchers.remove(launching)
        self.tell(f"{launching.name} detaches")

    def deafen(self, launching: Launching) -> None:
        """It hears nothing more: a connection that nobody closed."""
        for mirror in launching.launcher._mirrors.values():
            mirror.stop()
        launching.launcher._catch_up = lambda: None

    # -- time

    def at(self, seconds: float, do: Callable[[], None]) -> None:
        """Let something happen so many seconds after the beginning."""
        self.due.append((self.began + seconds * self.pace, do))
        self.due.sort(key=lambda one: one[0])

    def step(self) -> None:
        """Kubelets and controllers see what is there."""
        now = self.clock.now()
        while self.due and self.due[0][0] <= now:
            self.due.pop(0)[1]()
        self.kubelet.step(now)
        if self.model is not None:
            self.model.settle(set(self.slow()))
        for look in self.watchers:
            look()

    def pass_time(self, seconds: float) -> None:
        """Let time pass without any launcher."""
        self._pass(seconds * self.pace)

    def _pass(self, seconds: float) -> None:
        if self.real:
            end = time.monotonic() + seconds
            while True:
                self.step()
                if time.monotonic() >= end:
                    return
                time.sleep(min(0.1, max(end - time.monotonic(), 0.0)))
        end = self.clock.time + seconds
        while self.clock.time < end:
            self.clock.time = min(self.clock.time + STEP, end)
            self.step()

    def tick(self) -> None:
        """Call the launchers that want to be."""
        for launching in list(self.launchers):
            if launching.due <= self.clock.now() and launching in self.launchers:
                wait = launching.launcher.tick()
                launching.due = self.clock.now() + max(wait, 0.1)
                if self.model is not None:
                    self.model.settle(set(self.slow()))

    def until(self, over: Callable[[], Any], limit: float) -> None:
        """Go on until `over()`. Fails, with what happened, when it is not within `limit` seconds."""
        limit = min(limit, self.longest) * self.pace + (150.0 if self.real else 0.0)  # constants of its own
        end = self.clock.now() + limit
        while True:
            self.tick()
            if over():
                return
            now = self.clock.now()
            if now >= end:
                raise AssertionError(f"not within {limit:.0f} s\n{self.timeline()}")
            due = min((launching.due for launching in self.launchers), default=end)
            self._pass(0.1 if self.real else max(min(due, now + 4 * STEP, end) - now, 1.0))

    def go(self, seconds: float) -> None:
        """Go on for so long."""
        end = self.clock.now() + seconds * self.pace
        self.until(lambda: self.clock.now() >= end, max(seconds, 1.0) + 1.0)

    def run(self, asked: Asked, limit: float = 7200.0) -> Any:
        """A launcher for it, to its end."""
        launching = self.launcher(asked)
        self.until(lambda: asked.key in launching.ended, limit)
        return launching.ended[asked.key]

    # -- looking

    def jobs(self, key: str = "") -> list[Json]:
        """Jobs of launchers (of a key), of any kind."""
        return [
            job for kind in KINDS for job in self.door.all(kind, NAMESPACE)
            if KEY in annotations(job) and key in ("", annotations(job)[KEY])
            and not any(owner["kind"] in ("JobSet", "TrainJob") for owner in job["metadata"].get("ownerReferences", ()))
        ]  # fmt: skip

    def jobs_stored(self) -> list[Json]:
        """The same of the model, without a request."""
        return [
            one.object for kind in KINDS for one in self.storage.of(kind, NAMESPACE)
            if KEY in annotations(one.object)
            and not any(owner["kind"] in ("JobSet", "TrainJob") for owner in one.object["metadata"].get("ownerReferences", ()))
        ]  # fmt: skip

    def pods(self, key: str = "") -> list[Json]:
        found = self.door.all("pods", NAMESPACE)
        return [pod for pod in found if KEY in annotations(pod) and key in ("", annotations(pod)[KEY])]

    def running(self, key: str = "") -> list[Json]:
        return [pod for pod in self.pods(key) if phase(pod) == "Running" and "deletionTimestamp" not in pod["metadata"]]

    def running_all(self) -> list[Json]:
        """Pods of anybody that run."""
        found = self.door.all("pods", NAMESPACE)
        return [pod for pod in found if phase(pod) == "Running" and "deletionTimestamp" not in pod["metadata"]]

    def holding(self, key: str = "") -> list[Json]:
        """Pods that hold devices."""
        return [
            pod for pod in self.pods(key)
            if gpus(pod["spec"]) and pod["spec"].get("nodeName") and phase(pod) not in ("Succeeded", "Failed")
        ]  # fmt: skip

    def records(self, asked: Asked) -> list[Any]:
        """The attempts of the node, as the store has them."""
        return self.store.runs.of(asked.run.id).read_outcomes(asked.request.node)

    def outcomes(self, asked: Asked) -> list[str]:
        return [str((one.outcome or {}).get("outcome")) for one in self.records(asked)]

    def reasons(self, asked: Asked) -> str:
        return " | ".join(str((one.outcome or {}).get("reason")) for one in self.records(asked))

    # -- doing, through the API

    def cancel(self, asked: Asked) -> None:
        self.tell(f"{self.called(asked)} is cancelled")
        asked.run.request_cancel("a test")

    def delete_job(self, key: str, **options: Any) -> None:
        """As somebody with kubectl would."""
        for job in self.jobs(key):
            resource = next(kind for kind in KINDS if self.door.find(kind, NAMESPACE, job["metadata"]["name"]))
            self.tell(f"{job['metadata']['name']} is deleted by somebody")
            self.door.delete(resource, NAMESPACE, job["metadata"]["name"], propagationPolicy="Background", **options)

    def workload(self, key: str) -> Json | None:
        uids = {job["metadata"]["uid"] for job in self.jobs(key)}
        for found in self.door.all("workloads.kueue.x-k8s.io", NAMESPACE):
            if any(owner["uid"] in uids for owner in found["metadata"].get("ownerReferences", ())):
                return found
        return None

    def change_workload(self, key: str, patch: Json) -> None:
        found = self.workload(key)
        assert found is not None, self.timeline()
        self.door.patch("workloads.kueue.x-k8s.io", NAMESPACE, found["metadata"]["name"], patch)

    def generation_of(self, job: Json) -> tuple[str, str]:
        return annotations(job)[KEY], annotations(job).get(GENERATION, "1")
