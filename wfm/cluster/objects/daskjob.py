"""A stage over a corpus as a DaskJob: a scheduler, workers, and the stage's own process as the runner.

The operator copies the labels of a DaskJob to everything it makes. So the queue's label stands on the workers alone, which hold
the devices: with it the scheduler and the runner would wait for each other in the queue. The runner is a bare pod that nobody
brings back, and a DaskJob may stay Running for ever when it is taken away: the launcher watches the runner and bounds the time.
"""

from collections.abc import Sequence

from wfm.cluster import pod
from wfm.cluster.pod import Json
from wfm.cluster.request import JobRequest
from wfm.cluster.resources import Resources
from wfm.cluster.settings import ClusterSettings
from wfm.parts.dask_settings import PRELOAD, dask_environment, variable

SCHEDULER_PORT, HEALTH_PORT = 8786, 8787
IDLE_SECONDS = 6 * 3600
"""A cluster that computes nothing for so long [s] is ended: its runner was taken away, and the operator itself never ends it.
Far longer than a stage reads listings or commits."""
_MEMORY_SHARE = 0.95
"Of a worker's memory, without /dev/shm: Dask stops it there, before the kernel does."


def build(request: JobRequest, settings: ClusterSettings, attempt: int, avoid: Sequence[str]) -> Json:
    """The job; its pods are ``<name>-runner``, ``<name>-scheduler-…`` and ``<name>-default-worker-…``."""
    name, resources = request.name(settings), request.resources
    found, told = pod.labels(request, name), pod.annotations(request, attempt)
    alone, controls = resources.runner(), resources.scheduler()

    def container(part: str, words: list[str], needs: Resources, more: dict[str, str]) -> Json:
        values = {**pod.environment(request, settings, name, attempt, needs), **more}
        return pod.container(part, settings.image(request.image), words, values, needs, settings)

    def pods(one: Json, needs: Resources, apart: str = "") -> Json:
        return pod.pod_spec(one, needs, settings, avoid, apart=apart)

    dask = dask_environment(pod.DASK_FOLDER)
    # the runner starts together with the scheduler that it looks for
    patience = {variable("distributed.comm.timeouts.connect"): f"{settings.patience.start_seconds:g}s"}
    runner = container("runner", ["python", "-m", *pod.command(request)], alone, patience)
    scheduler = {**container("scheduler", _scheduler(), controls, dask), **_served()}
    worker = container("worker", [*_worker(resources), *_death(settings)], resources, dask)
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskJob",
        "metadata": {"name": name, "namespace": settings.namespace, "labels": found, "annotations": told},
        "spec": {
            "job": {"spec": {**pods(runner, alone), "restartPolicy": "Never"}},
            "cluster": {
                "spec": {
                    "idleTimeout": IDLE_SECONDS,
                    "scheduler": {"spec": pods(scheduler, controls), "service": _service(name)},
                    "worker": {
                        "replicas": resources.replicas,
                        "metadata": {"labels": {**found, **pod.queue_labels(resources, settings)}},
                        "spec": pods(worker, resources, apart=name),
                    },
                }
            },
        },
    }


def _scheduler() -> list[str]:
    return ["dask", "scheduler", "--port", str(SCHEDULER_PORT), "--dashboard-address", f":{HEALTH_PORT}"]


def _served() -> Json:
    """The ports of the scheduler, and the page by which the cluster sees that it is there."""
    health = {"httpGet": {"port": "http-dashboard", "path": "/health"}}
    return {
        "ports": [
            {"name": "tcp-comm", "containerPort": SCHEDULER_PORT, "protocol": "TCP"},
            {"name": "http-dashboard", "containerPort": HEALTH_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": {**health, "initialDelaySeconds": 5, "periodSeconds": 10},
        "livenessProbe": {**health, "initialDelaySeconds": 30, "periodSeconds": 20, "failureThreshold": 6},
    }


def _worker(resources: Resources) -> list[str]:
    """One process of one thread for each device, or one in all: of two items in a process that crashed nobody knows which it
    was. The operator names the worker and says where the scheduler is, by the environment."""
    processes = max(1, resources.gpu)
    memory = f"{int(resources.memory_gib * _MEMORY_SHARE * 2**30 / processes)}B"
    # the preload is named, though it stands in the environment: dask-cuda's own takes its place
    return [
        *(["dask", "cuda", "worker"] if resources.gpu else ["dask", "worker"]),
        *("--name", "$(DASK_WORKER_NAME)"),
        *("--nthreads", "1"),
        *("--memory-limit", memory),
        *("--local-directory", pod.DASK_FOLDER),
        *("--preload", PRELOAD),
        "--no-dashboard",
    ]


def _death(settings: ClusterSettings) -> list[str]:
    """A worker ends whose scheduler is gone, or does not come while a job of several pods may still begin."""
    return ["--death-timeout", f"{settings.patience.start_seconds:g}"]


def _service(name: str) -> Json:
    """By which workers and runner find the scheduler; the operator gives it its name."""
    return {
        "type": "ClusterIP",
        "selector": {"dask.org/cluster-name": name, "dask.org/component": "scheduler"},
        "ports": [
            {"name": "tcp-comm", "protocol": "TCP", "port": SCHEDULER_PORT, "targetPort": "tcp-comm"},
            {"name": "http-dashboard", "protocol": "TCP", "port": HEALTH_PORT, "targetPort": "http-dashboard"},
        ],
    }
