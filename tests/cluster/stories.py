"""Stories of the controllers alone, without any launcher: together they fire every row of the tables (`test_tables.py`).

The scenarios and schedules fire most of them too; these are short, and fire those that our own jobs never need.
"""

from collections.abc import Callable
from typing import Any

from tests.cluster.controllers import Options
from tests.cluster.controllers.pods import phase
from tests.cluster.kubelet import Machine
from tests.cluster.server.api import condition_of, holds
from tests.cluster.server.storage import Json
from tests.cluster.world import NAMESPACE, World

PYTORCHJOBS, JOBS, TRAINJOBS = "pytorchjobs.kubeflow.org", "jobs.batch", "trainjobs.trainer.kubeflow.org"
JOBSETS, DASKJOBS, WORKLOADS = "jobsets.jobset.x-k8s.io", "daskjobs.kubernetes.dask.org", "workloads.kueue.x-k8s.io"
QUEUE = {"kueue.x-k8s.io/queue-name": "research"}
Story = Callable[[World], None]
STORIES: list[tuple[Story, dict[str, Any]]] = []


def story(**choices: Any) -> Callable[[Story], Story]:
    def note(tell: Story) -> Story:
        STORIES.append((tell, choices))
        return tell

    return note


def template(*, restart: str = "Never", gpu: int = 1, image: str = "registry.example/a@sha256:0") -> Json:
    container = {
        "name": "pytorch",
        "image": image,
        "command": ["sleep"],
        "resources": {"limits": {"nvidia.com/gpu": str(gpu)}},
    }
    return {"spec": {"containers": [container], "restartPolicy": restart, "terminationGracePeriodSeconds": 10}}


def torch(world: World, *, workers: int = 2, master: bool = False, restart: str = "OnFailure", labels: Any = None,
          elastic: bool = False, name: str = "job", **policy: Any) -> None:  # fmt: skip
    kinds = {"Worker": {"replicas": workers, "restartPolicy": restart, "template": template()}}
    if master:
        kinds["Master"] = {"replicas": 1, "restartPolicy": restart, "template": template()}
    spec: Json = {"pytorchReplicaSpecs": kinds, "runPolicy": policy}
    if elastic:
        spec["elasticPolicy"] = {"minReplicas": 1, "maxReplicas": workers}
    world.door.create(PYTORCHJOBS, NAMESPACE, {"metadata": {"name": name, "labels": labels or {}}, "spec": spec})


def job(world: World, *, name: str = "job", labels: Any = None, pods: int = 1, **spec: Any) -> None:
    given = {"completions": pods, "parallelism": pods, "completionMode": "Indexed", "template": template(), **spec}
    world.door.create(JOBS, NAMESPACE, {"metadata": {"name": name, "labels": labels or {}}, "spec": given})


def ends(world: World, name: str, code: int) -> None:
    """The containers of pods whose names begin so end with a code."""
    found = [one for one in world.kubelet.processes.values() if one.name.startswith(name)]
    assert found, f"no process of {name}: {[one.name for one in world.kubelet.processes.values()]}"
    for one in found:
        one.ended = (code, "")
    world.pass_time(5)


def condition(world: World, resource: str, kind: str, name: str = "job") -> bool:
    return holds(world.door.find(resource, NAMESPACE, name) or {}, kind)


@story()
def a_pod_fails_and_is_made_again_without_end(world: World) -> None:
    torch(world)
    world.pass_time(10)
    for _ in range(4):
        ends(world, "job-worker-1", 1)
        world.pass_time(20)
    assert not condition(world, PYTORCHJOBS, "Failed")
    ends(world, "job-worker-0", 0)
    ends(world, "job-worker-1", 0)
    assert condition(world, PYTORCHJOBS, "Succeeded")


@story()
def pods_fail_before_any_other_runs(world: World) -> None:
    world.kubelet.start_seconds = 1000
    torch(world, name="again", workers=2)
    torch(world, name="never", workers=1, restart="Never")
    world.pass_time(10)
    for name in ("again-worker-0", "never-worker-0"):
        world.door.patch("pods", NAMESPACE, name, {"status": {"phase": "Failed"}}, status=True)
    world.pass_time(5)
    assert condition(world, PYTORCHJOBS, "Restarting", "again")
    assert condition(world, PYTORCHJOBS, "Failed", "never")
    world.door.patch("pods", NAMESPACE, "again-worker-1", {"status": {"phase": "Failed"}}, status=True)
    world.pass_time(5)
    name = world.door.all("pods", NAMESPACE)[0]["metadata"]["name"]
    assert name.startswith("again")
    world.door.patch(PYTORCHJOBS, NAMESPACE, "again", {"spec": {"runPolicy": {"suspend": True}}})
    world.pass_time(5)
    assert condition(world, PYTORCHJOBS, "Suspended", "again")


@story()
def a_restarting_job_meets_its_deadline(world: World) -> None:
    torch(world, activeDeadlineSeconds=60)
    world.pass_time(10)
    world.kubelet.start_seconds = 1000
    for number in range(2):
        world.kubelet.evict(f"job-worker-{number}")
    world.pass_time(60)
    assert condition(world, PYTORCHJOBS, "Failed")


@story()
def deadlines_of_jobs_that_run_and_that_wait(world: World) -> None:
    torch(world, activeDeadlineSeconds=60, cleanPodPolicy="Running", ttlSecondsAfterFinished=20)
    world.pass_time(70)
    assert condition(world, PYTORCHJOBS, "Failed")
    world.pass_time(30)
    assert world.door.find(PYTORCHJOBS, NAMESPACE, "job") is None
    world.kubelet.start_seconds = 1000
    torch(world, activeDeadlineSeconds=60, name="waits")
    world.pass_time(70)
    assert condition(world, PYTORCHJOBS, "Failed", "waits")


@story()
def exit_codes_and_restarts_in_place(world: World) -> None:
    torch(world, name="code", restart="ExitCode")
    torch(world, name="place", restart="OnFailure", backoffLimit=2)
    world.pass_time(10)
    ends(world, "code-worker-1", 137)
    assert not condition(world, PYTORCHJOBS, "Failed", "code")
    ends(world, "code-worker-0", 1)
    assert condition(world, PYTORCHJOBS, "Failed", "code")
    for _ in range(3):
        ends(world, "place-worker-0", 1)
    assert condition(world, PYTORCHJOBS, "Failed", "place")


@story()
def the_master_decides_and_survivors_go_or_stay(world: World) -> None:
    torch(world, master=True, cleanPodPolicy="Running", ttlSecondsAfterFinished=30)
    torch(world, name="stays", cleanPodPolicy="None", restart="Never")
    world.pass_time(10)
    ends(world, "job-master", 0)
    ends(world, "stays-worker-1", 1)
    assert condition(world, PYTORCHJOBS, "Succeeded")
    assert condition(world, PYTORCHJOBS, "Failed", "stays")
    world.pass_time(60)
    left = [pod["metadata"]["name"] for pod in world.door.all("pods", NAMESPACE) if phase(pod) == "Running"]
    assert left == ["stays-worker-0"]
    assert world.door.find(PYTORCHJOBS, NAMESPACE, "job") is None


@story()
def one_success_is_enough_for_an_elastic_job(world: World) -> None:
    torch(world, elastic=True, cleanPodPolicy="Running", restart="Never")
    world.pass_time(10)
    ends(world, "job-worker-1", 0)
    assert condition(world, PYTORCHJOBS, "Succeeded")


@story()
def suspended_pods_go_and_start_time_is_set_anew(world: World) -> None:
    torch(world)
    world.pass_time(30)
    start = world.door.find(PYTORCHJOBS, NAMESPACE, "job")["status"]["startTime"]  # type: ignore[index]
    world.door.patch(PYTORCHJOBS, NAMESPACE, "job", {"spec": {"runPolicy": {"suspend": True}}})
    world.pass_time(60)
    assert not world.door.all("pods", NAMESPACE)
    owner = world.door.find(PYTORCHJOBS, NAMESPACE, "job")
    assert owner is not None
    reference = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": "job", "uid": owner["metadata"]["uid"],
                 "controller": True}  # fmt: skip
    late = {"metadata": {"name": "late", "ownerReferences": [reference]}, **template()}
    world.door.create("pods", NAMESPACE, late)
    world.pass_time(60)
    assert world.door.find("pods", NAMESPACE, "late") is None
    world.door.patch(PYTORCHJOBS, NAMESPACE, "job", {"spec": {"runPolicy": {"suspend": False}}})
    world.pass_time(30)
    assert world.door.find(PYTORCHJOBS, NAMESPACE, "job")["status"]["startTime"] > start  # type: ignore[index]


@story()
def what_becomes_of_indexes(world: World) -> None:
    rules = [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [78]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}},
    ]
    job(world, name="some", pods=3, backoffLimitPerIndex=1, maxFailedIndexes=3, podFailurePolicy={"rules": rules})
    world.pass_time(10)
    ends(world, "some-0", 1)
    ends(world, "some-1", 75)
    evicted = next(pod for pod in world.door.all("pods", NAMESPACE) if pod["metadata"]["name"].startswith("some-2"))
    world.kubelet.evict(evicted["metadata"]["name"])
    world.pass_time(30)
    ends(world, "some-1", 0)
    ends(world, "some-2", 0)
    world.pass_time(10)
    found = world.door.find(JOBS, NAMESPACE, "some")
    assert found is not None
    assert condition_of(found, "Failed")["reason"] == "FailedIndexes"
    assert (found["status"]["failedIndexes"], found["status"]["completedIndexes"]) == ("0", "1,2")
    for name, code in (("final", 78), ("many", 1)):
        job(world, name=name, pods=2, backoffLimitPerIndex=0, maxFailedIndexes=0, podFailurePolicy={"rules": rules})
        world.pass_time(10)
        ends(world, f"{name}-0", code)
        world.pass_time(30)
        found = world.door.find(JOBS, NAMESPACE, name)
        assert found is not None
        wanted = "PodFailurePolicy" if name == "final" else "MaxFailedIndexesExceeded"
        assert condition_of(found, "Failed")["reason"] == wanted


@story()
def limits_of_a_job(world: World) -> None:
    job(world, name="retries", backoffLimit=1)
    job(world, name="late", activeDeadlineSeconds=60, ttlSecondsAfterFinished=10)
    job(world, name="good", ttlSecondsAfterFinished=30)
    world.pass_time(10)
    ends(world, "retries-0", 1)
    ends(world, "good-0", 0)
    world.pass_time(15)
    assert condition(world, JOBS, "Complete", "good")
    ends(world, "retries-0", 1)
    world.pass_time(60)
    assert condition_of(world.door.find(JOBS, NAMESPACE, "retries") or {}, "Failed")["reason"] == "BackoffLimitExceeded"
    assert condition(world, JOBS, "Failed", "late") or world.door.find(JOBS, NAMESPACE, "late") is None
    world.pass_time(60)
    assert world.door.find(JOBS, NAMESPACE, "good") is None
    assert world.door.find(JOBS, NAMESPACE, "late") is None


@story()
def a_job_is_suspended_and_resumed(world: World) -> None:
    job(world, name="later", suspend=True)
    job(world, name="now")
    world.pass_time(10)
    world.door.patch(JOBS, NAMESPACE, "now", {"spec": {"suspend": True}})
    world.pass_time(60)
    assert not world.door.all("pods", NAMESPACE)
    for name in ("now", "later"):
        world.door.patch(JOBS, NAMESPACE, name, {"spec": {"suspend": False}})
    world.pass_time(15)
    assert len(world.running_all()) == 2


@story()
def a_job_that_is_deleted_without_a_word_leaves_its_pods(world: World) -> None:
    """batch/v1 orphans unless asked otherwise; a foreground deletion waits for the pods."""
    for name in ("orphans", "front", "back"):
        job(world, name=name)
    world.pass_time(10)
    world.door.delete(JOBS, NAMESPACE, "orphans")
    world.door.delete(JOBS, NAMESPACE, "front", propagationPolicy="Foreground")
    world.door.delete(JOBS, NAMESPACE, "back", propagationPolicy="Background")
    world.step()
    assert world.door.find(JOBS, NAMESPACE, "front") is not None
    assert world.door.find(JOBS, NAMESPACE, "back") is None
    world.pass_time(60)
    assert [pod["metadata"]["name"][:7] for pod in world.door.all("pods", NAMESPACE)] == ["orphans"]
    assert world.door.find(JOBS, NAMESPACE, "front") is None


def jobset(world: World, name: str, *, restarts: int = 0, replicas: int = 1, ttl: int | None = None) -> None:
    one = {"completions": 1, "parallelism": 1, "completionMode": "Indexed", "backoffLimit": 0, "template": template()}
    spec: Json = {
        "replicatedJobs": [{"name": "node", "replicas": replicas, "template": {"spec": one}}],
        "failurePolicy": {"maxRestarts": restarts, "rules": [
            {"name": "no", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]},
    }  # fmt: skip
    if ttl is not None:
        spec["ttlSecondsAfterFinished"] = ttl
    world.door.create(JOBSETS, NAMESPACE, {"metadata": {"name": name}, "spec": spec})


@story()
def jobsets(world: World) -> None:
    jobset(world, "again", restarts=1, ttl=30)
    jobset(world, "two", replicas=2, ttl=30)
    world.pass_time(10)
    ends(world, "again-node-0", 1)
    world.pass_time(60)
    ends(world, "again-node-0", 0)
    world.pass_time(5)
    assert condition(world, JOBSETS, "Completed", "again")
    ends(world, "two-node-0", 1)
    world.pass_time(10)
    assert condition(world, JOBSETS, "Failed", "two")
    world.pass_time(60)
    assert not world.door.all(JOBSETS, NAMESPACE)


def trainjob(world: World, name: str, *, runtime: str = "wfm-torch", labels: Any = None, **more: Any) -> None:
    reference = {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": runtime}
    spec = {"runtimeRef": reference, "trainer": {"image": "i", "command": ["sleep"], "numNodes": 2}, **more}
    world.door.create(TRAINJOBS, NAMESPACE, {"metadata": {"name": name, "labels": labels or {}}, "spec": spec})


@story()
def trainjobs(world: World) -> None:
    trainjob(world, "unknown", runtime="nobody")
    trainjob(world, "good")
    trainjob(world, "late", activeDeadlineSeconds=60)
    trainjob(world, "waits", suspend=True)
    world.pass_time(10)
    assert condition_of(world.door.find(TRAINJOBS, NAMESPACE, "unknown") or {}, "Failed")
    ends(world, "good-node-0", 0)
    world.pass_time(5)
    assert condition(world, TRAINJOBS, "Complete", "good")
    world.door.patch(TRAINJOBS, NAMESPACE, "waits", {"spec": {"suspend": False}})
    world.pass_time(20)
    world.door.patch(TRAINJOBS, NAMESPACE, "waits", {"spec": {"suspend": True}})
    world.pass_time(60)
    assert condition(world, TRAINJOBS, "Failed", "late")
    world.door.patch(TRAINJOBS, NAMESPACE, "waits", {"spec": {"suspend": False}})
    world.pass_time(20)
    ends(world, "waits-node-0", 1)
    world.pass_time(10)
    assert condition(world, TRAINJOBS, "Failed", "waits")


def daskjob(world: World, name: str, *, labels: Any = None) -> None:
    spec = {
        "job": {"spec": template(gpu=0)["spec"]}, "cluster": {"spec": {
            "scheduler": {"spec": template(restart="Always", gpu=0)["spec"], "service": {"type": "ClusterIP"}},
            "worker": {"replicas": 2, "metadata": {"labels": labels or {}}, "spec": template(restart="Always")["spec"]}}},
    }  # fmt: skip
    world.door.create(DASKJOBS, NAMESPACE, {"metadata": {"name": name}, "spec": spec})


def dask_state(world: World, name: str) -> str:
    return str((world.door.find(DASKJOBS, NAMESPACE, name) or {})["status"]["jobStatus"])


@story()
def daskjobs(world: World) -> None:
    for name in ("good", "bad", "stuck", "lost", "n" * 60):
        daskjob(world, name)
    world.pass_time(10)
    ends(world, "good-runner", 0)
    ends(world, "bad-runner", 1)
    world.door.delete("pods", NAMESPACE, "stuck-runner")
    world.door.delete("daskclusters.kubernetes.dask.org", NAMESPACE, "lost")
    world.pass_time(60)
    ends(world, "lost-runner", 0)
    world.pass_time(60)
    assert [dask_state(world, name) for name in ("good", "bad", "stuck", "lost")] == [
        "Successful", "Failed", "Running", "Running",
    ]  # fmt: skip
    assert (world.door.find("daskclusters.kubernetes.dask.org", NAMESPACE, "n" * 60) or {})["status"][
        "phase"
    ] == "Error"


@story()
def runners_that_end_before_anybody_saw_them_run(world: World) -> None:
    world.kubelet.start_seconds = 1000
    for name, how in (("good", "Succeeded"), ("bad", "Failed")):
        daskjob(world, name)
        world.pass_time(5)
        world.door.patch("pods", NAMESPACE, f"{name}-runner", {"status": {"phase": how}}, status=True)
        world.pass_time(5)
    assert dask_state(world, "good") == "Successful"
    assert dask_state(world, "bad") == "Failed"


@story(quota=4)
def queues(world: World) -> None:
    job(world, name="first", labels=QUEUE, pods=4)
    torch(world, name="second", labels=QUEUE)
    job(world, name="nowhere", labels={"kueue.x-k8s.io/queue-name": "nobody"})
    world.pass_time(10)
    assert len(world.running_all()) == 4
    world.door.patch(PYTORCHJOBS, NAMESPACE, "second", {"spec": {"runPolicy": {"suspend": False}}})
    world.pass_time(10)
    assert world.door.find(PYTORCHJOBS, NAMESPACE, "second")["spec"]["runPolicy"]["suspend"]  # type: ignore[index]
    job(world, name="urgent", labels={**QUEUE, "kueue.x-k8s.io/priority-class": "urgent"}, pods=2)
    world.pass_time(40)
    assert {pod["metadata"]["name"].split("-")[0] for pod in world.running_all()} == {"urgent", "second"}
    ends(world, "urgent-", 0)
    ends(world, "second-", 0)
    world.pass_time(30)
    assert {pod["metadata"]["name"].split("-")[0] for pod in world.running_all()} == {"first"}
    stop = {"spec": {"stopPolicy": "HoldAndDrain"}}
    world.door.patch("clusterqueues.kueue.x-k8s.io", "", "all", stop)
    world.pass_time(30)
    assert not world.running_all()
    for workload in world.door.all(WORKLOADS, NAMESPACE):
        world.door.patch(WORKLOADS, NAMESPACE, workload["metadata"]["name"], {"spec": {"active": False}})
    world.pass_time(10)


@story(quota=4)
def a_queue_that_learns_to_preempt(world: World) -> None:
    world.door.patch(
        "clusterqueues.kueue.x-k8s.io", "", "all", {"spec": {"preemption": {"withinClusterQueue": "Never"}}}
    )
    job(world, name="first", labels=QUEUE, pods=4)
    world.pass_time(10)
    job(world, name="urgent", labels={**QUEUE, "kueue.x-k8s.io/priority-class": "urgent"})
    world.pass_time(20)
    assert len(world.running_all()) == 4
    more = {"spec": {"preemption": {"withinClusterQueue": "LowerPriority"}}}
    world.door.patch("clusterqueues.kueue.x-k8s.io", "", "all", more)
    world.pass_time(40)
    assert [pod["metadata"]["name"].split("-")[0] for pod in world.running_all()] == ["urgent"]


@story()
def a_queue_that_goes_while_others_wait(world: World) -> None:
    world.door.patch("clusterqueues.kueue.x-k8s.io", "", "all", {"spec": {"stopPolicy": "Hold"}})
    job(world, name="waits", labels=QUEUE)
    world.pass_time(10)
    world.door.delete("localqueues.kueue.x-k8s.io", NAMESPACE, "research")
    world.pass_time(10)
    told = condition_of(world.door.all(WORKLOADS, NAMESPACE)[0], "QuotaReserved")
    assert told["reason"] == "Inadmissible"


@story()
def deactivated_before_it_is_looked_at(world: World) -> None:
    world.slow = lambda: ("kueue's workloads",)
    job(world, name="waits", labels=QUEUE)
    world.pass_time(5)
    name = world.door.all(WORKLOADS, NAMESPACE)[0]["metadata"]["name"]
    world.door.patch(WORKLOADS, NAMESPACE, name, {"spec": {"active": False}})
    world.slow = lambda: ()
    world.pass_time(5)
    assert condition_of(world.door.all(WORKLOADS, NAMESPACE)[0], "Evicted")["reason"] == "Deactivated"


@story(options=Options(pods_ready_timeout=30, requeue_limit=1))
def jobs_that_are_not_ready_in_time(world: World) -> None:
    world.kubelet.start_seconds = 1000
    torch(world, labels=QUEUE)
    world.pass_time(300)
    workload = world.door.all(WORKLOADS, NAMESPACE)[0]
    assert workload["spec"]["active"] is False
    assert condition_of(workload, "Evicted")["reason"] == "Deactivated"


@story()
def jobs_that_run_longer_than_their_label_says(world: World) -> None:
    job(world, labels={**QUEUE, "kueue.x-k8s.io/max-exec-time-seconds": "60"})
    world.pass_time(120)
    assert condition_of(world.door.all(WORKLOADS, NAMESPACE)[0], "Evicted")["reason"] == "Deactivated"


@story()
def a_job_that_ends_while_it_is_evicted(world: World) -> None:
    job(world, labels=QUEUE)
    world.pass_time(10)
    world.slow = lambda: ("kueue's jobs",)
    name = world.door.all(WORKLOADS, NAMESPACE)[0]["metadata"]["name"]
    world.door.patch(WORKLOADS, NAMESPACE, name, {"spec": {"active": False}})
    ends(world, "job-0", 0)
    world.slow = lambda: ()
    world.pass_time(5)
    assert holds(world.door.all(WORKLOADS, NAMESPACE)[0], "Finished")


@story(options=Options(integrations=("batch/job", "pod")))
def integrations_off_and_jobs_that_slip_in(world: World) -> None:
    torch(world, labels=QUEUE)
    world.options.integrations = ()
    job(world, name="before", labels=QUEUE)
    world.pass_time(10)
    world.options.integrations = ("batch/job", "pod")
    world.pass_time(30)
    assert world.door.find(JOBS, NAMESPACE, "before")["spec"]["suspend"] is True or world.door.all(WORKLOADS, NAMESPACE)  # type: ignore[index]
    assert len(world.door.all(WORKLOADS, NAMESPACE)) == 1, "the training is not managed"


@story(quota=2)
def workers_that_queue_alone(world: World) -> None:
    daskjob(world, "dask", labels=QUEUE)
    world.pass_time(15)
    job(world, name="urgent", labels={**QUEUE, "kueue.x-k8s.io/priority-class": "urgent"})
    world.pass_time(40)
    assert sum("worker" in pod["metadata"]["name"] for pod in world.running_all()) == 1
    worker = next(pod for pod in world.running_all() if "worker" in pod["metadata"]["name"])
    world.kubelet.evict(worker["metadata"]["name"])
    world.pass_time(10)
    assert any(holds(one, "Finished") for one in world.door.all(WORKLOADS, NAMESPACE))


@story(machines=3, options=Options(toleration=60))
def nodes_that_are_lost_come_back_and_go(world: World) -> None:
    for number in range(3):
        job(world, name=f"job{number}", template=template(gpu=8))
    world.pass_time(10)
    assert len(world.running_all()) == 3
    for name in ("node-0", "node-1"):
        world.kubelet.die(name)
    world.pass_time(60)
    assert condition_of(world.door.find("nodes", "", "node-0") or {}, "Ready")["status"] == "Unknown"
    world.kubelet.back("node-0")
    world.pass_time(90)
    taint = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
    world.door.patch("nodes", "", "node-1", {"spec": {"taints": [taint]}})
    world.pass_time(20)
    world.kubelet.die("node-2")
    world.door.delete("nodes", "", "node-2")
    world.pass_time(120)
    world.kubelet.add(Machine("node-3"))
    world.pass_time(30)
    assert {pod["spec"]["nodeName"] for pod in world.running_all()} <= {"node-0", "node-3"}


@story()
def what_keeps_a_container_from_starting(world: World) -> None:
    world.kubelet.no_image.add("missing")
    job(world, name="image", template=template(image="missing"))
    job(world, name="room", template=template(gpu=9))
    world.pass_time(10)
    world.kubelet.no_config = True
    job(world, name="secret")
    world.pass_time(10)
    waiting: dict[str, Json] = {}
    for pod in world.door.all("pods", NAMESPACE):
        statuses = pod["status"].get("containerStatuses") or [{"state": {}}]
        waiting[pod["metadata"]["name"].split("-")[0]] = statuses[0]["state"]
    assert waiting["image"]["waiting"]["reason"] == "ImagePullBackOff"
    assert waiting["secret"]["waiting"]["reason"] == "CreateContainerConfigError"
    for name in ("image", "room", "secret"):
        world.door.delete(JOBS, NAMESPACE, name, propagationPolicy="Background")
    world.pass_time(10)
    assert not world.door.all("pods", NAMESPACE)


@story()
def containers_that_do_not_hear_sigterm(world: World) -> None:
    job(world, name="deaf")
    world.pass_time(10)
    process = next(iter(world.kubelet.processes.values()))
    process.sigterm = lambda now: setattr(process, "term", now)  # type: ignore[method-assign]
    world.door.delete(JOBS, NAMESPACE, "deaf", propagationPolicy="Background")
    world.pass_time(5)
    assert world.door.all("pods", NAMESPACE)
    world.pass_time(15)
    assert not world.door.all("pods", NAMESPACE)
