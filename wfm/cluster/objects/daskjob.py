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
from wfm.parts.dask_settings import PRELOAD, dask_environment

SCHEDULER_PORT, HEALTH_PORT = 8786, 8787
_MEMORY_SHARE = 0.95
"Of a worker's memory, without /dev/shm: Dask stops it there, before the kernel does."


def build(request: JobRequest, settings: ClusterSettings, attempt: int, avoid: Sequence[str]) -> Json:
    """The job; its pods are ``<name>-runner``, ``<name>-scheduler-…`` and ``<name>-default-worker-…``."""
    name, resources = request.name(settings), request.resources
    found, told = pod.labels(request, name), pod.annotations(request, attempt)
    image = settings.image(request.image)
    values = pod.environment(request, settings, name, attempt)
    dask = {**values, **dask_environment(pod.DASK_FOLDER)}
    without = {key: value for key, value in dask.items() if key not in ("NVIDIA_DRIVER_CAPABILITIES", "WFM_ATTEMPT")}

    def pods(container: Json, needs: Resources) -> Json:
        return pod.pod_spec(container, needs, settings, avoid)

    runner = pod.container(
        "runner", image, ["python", "-m", *pod.command(request)],
        {key: value for key, value in values.items() if key != "NVIDIA_DRIVER_CAPABILITIES"}, resources.runner(), settings,
    )  # fmt: skip
    scheduler = pod.container("scheduler", image, _scheduler(), without, resources.scheduler(), settings)
    scheduler["ports"] = [
        {"name": "tcp-comm", "containerPort": SCHEDULER_PORT, "protocol": "TCP"},
        {"name": "http-dashboard", "containerPort": HEALTH_PORT, "protocol": "TCP"},
    ]
    health = {"httpGet": {"port": "http-dashboard", "path": "/health"}}
    scheduler["readinessProbe"] = {**health, "initialDelaySeconds": 5, "periodSeconds": 10}
    scheduler["livenessProbe"] = {**health, "initialDelaySeconds": 30, "periodSeconds": 20, "failureThreshold": 6}
    workers = {key: value for key, value in dask.items() if key != "WFM_ATTEMPT"}
    worker = pod.container("worker", image, _worker(resources), workers, resources, settings)
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskJob",
        "metadata": {"name": name, "namespace": settings.namespace, "labels": found, "annotations": told},
        "spec": {
            "job": {"spec": {**pods(runner, resources.runner()), "restartPolicy": "Never"}},
            "cluster": {
                "spec": {
                    "scheduler": {
                        "spec": pods(scheduler, resources.scheduler()),
                        "service": _service(name),
                    },
                    "worker": {
                        "replicas": resources.replicas,
                        "metadata": {"labels": {**found, **pod.queue_labels(resources, settings)}},
                        "spec": pods(worker, resources),
                    },
                }
            },
        },
    }


def _scheduler() -> list[str]:
    return ["dask", "scheduler", "--port", str(SCHEDULER_PORT), "--dashboard-address", f":{HEALTH_PORT}"]


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
