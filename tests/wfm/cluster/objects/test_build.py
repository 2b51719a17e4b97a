"""Every object of every stage: what an API server takes whole, and what the controllers' traps ask for."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.stages import TABLE
from tests.cluster import strict
from tests.wfm.cluster.requests import DIGEST, KEY, request, settings
from wfm.cluster import names
from wfm.cluster.objects import RESOURCES, build
from wfm.cluster.request import JobRequest, kind_of
from wfm.errors import EXIT_OUTCOMES, ConfigError, InputError, WfmError

Json = dict[str, Any]
NEEDS: tuple[dict[str, Any], ...] = (
    {},
    {"gpu": 1, "memory_gib": 64, "cpu": 7.5, "shm_gib": 16},
    {
        "gpu": 8,
        "replicas": 4,
        "rdma": 8,
        "memory_gib": 1500,
        "shm_gib": 256,
        "ephemeral_gib": 500,
        "grace_seconds": 600,
    },
    {
        "cpu": 0.1,
        "memory_gib": 0.25,
        "shm_gib": 0.0625,
        "ephemeral_gib": 0.5,
        "priority": "high",
        "workload_priority": "research",
    },
    {"replicas": 64, "parts": 256},
)
BARE, FULL = settings(queue=""), settings(
    training_job="trainjob", workload_priority="usual", pod_priority="usual", service_account="wfm", secrets=["store"],
    image_pull_secrets=["pull"], environment={"WFM_STORE": "s3://bucket/store", "HOME": "/root"},
    nccl={"NCCL_IB_HCA": "mlx5"}, node_selector={"zone": "a"},
    tolerations=[{"key": "batch", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}],
    gpu_tolerations=[{"key": "nvidia.com/gpu"}], gpu_node_selector={"pool": "h100"},
)  # fmt: skip


def every() -> Iterator[tuple[JobRequest, Any, Json]]:
    for row in TABLE:
        for needs in NEEDS:
            asked = request(row.name, resources=needs, parts=needs.get("parts", 0))
            for cluster in (BARE, FULL):
                yield asked, cluster, build(asked, cluster, attempt=2, avoid=["node-b", "node-a"])


def containers(made: Any) -> list[Json]:
    return [one for _, pod in strict.pods(made) for one in pod["spec"]["containers"]]


def mib(quantity: str) -> int:
    return int(quantity[:-2]) * {"Mi": 1, "Gi": 1024}[quantity[-2:]]


def test_an_api_server_takes_every_object_of_every_stage_whole() -> None:
    kinds = set()
    for asked, cluster, made in every():
        assert strict.faults(made) == [], (asked.stage, asked.resources)
        group, version, plural = RESOURCES[kind_of(asked, cluster)]
        assert made["apiVersion"] == f"{group}/{version}"
        assert made["kind"].lower() + "s" == plural
        kinds.add(made["kind"])
    assert kinds == {"PyTorchJob", "TrainJob", "DaskJob", "Job"}


def test_a_key_stands_in_annotations_alone_and_all_pods_are_found_by_the_job() -> None:
    for asked, cluster, made in every():
        name = made["metadata"]["name"]
        assert names.is_dns_1035(name, names.LONGEST_DASK if made["kind"] == "DaskJob" else names.LONGEST)
        assert made["metadata"]["annotations"][names.ANNOTATION_KEY] == KEY
        assert made["metadata"]["annotations"][names.ANNOTATION_TRY] == "2"
        assert made["metadata"]["labels"][names.LABEL_JOB] == name == asked.name(cluster)

        def labels(value: Any) -> Iterator[Json]:
            if isinstance(value, dict):
                yield from ([value["labels"]] if "labels" in value else [])
                for inner in value.values():
                    yield from labels(inner)
            elif isinstance(value, list):
                for inner in value:
                    yield from labels(inner)

        for each in labels(made):
            assert each[names.LABEL_JOB] == name
            assert not any(KEY in value for value in each.values())


def test_every_pod_is_confined_and_writes_to_sized_folders_alone() -> None:
    for _, _, made in every():
        for _, pod in strict.pods(made):
            spec = pod["spec"]
            assert spec["automountServiceAccountToken"] is False
            assert spec["securityContext"]["runAsNonRoot"]
            assert spec["securityContext"]["runAsUser"] > 0
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"])
            (one,) = spec["containers"]
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert one["image"].endswith(DIGEST)
            values = {each["name"]: each.get("value", each.get("valueFrom")) for each in one["env"]}
            assert len(values) == len(one["env"])
            mounted = {mount["mountPath"] for mount in one["volumeMounts"]}
            assert {values["HOME"], values["WFM_CACHE"], values["TMPDIR"]} <= mounted, "a cluster's HOME is not ours"
            assert values["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
            assert values["NODE_NAME"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
            assert values["WFM_GRACE_SECONDS"] == str(spec["terminationGracePeriodSeconds"])


def test_dev_shm_is_memory_and_counted_and_disks_fit_into_what_is_asked_for() -> None:
    for asked, _, made in every():
        for _, pod in strict.pods(made):
            (one,) = pod["spec"]["containers"]
            assert one["resources"]["limits"] == one["resources"]["requests"]
            sizes = {each["name"]: mib(each["emptyDir"]["sizeLimit"]) for each in pod["spec"]["volumes"]}
            shm = sizes.pop("shm", 0)
            assert sum(sizes.values()) <= mib(one["resources"]["limits"]["ephemeral-storage"])
            assert mib(one["resources"]["limits"]["memory"]) > shm
        if made["kind"] == "PyTorchJob":
            needs, limits = asked.resources, containers(made)[0]["resources"]["limits"]
            assert mib(limits["memory"]) == 1024 * (needs.memory_gib + needs.shm_gib)


def test_the_queue_stands_on_what_works_and_nowhere_else() -> None:
    for asked, cluster, made in every():
        found = list(_places(made, "kueue.x-k8s.io/queue-name"))
        if not cluster.queue:
            assert not found
        elif made["kind"] == "DaskJob":
            assert found == ["spec.cluster.spec.worker.metadata.labels"], (
                "the operator copies the job's own to all pods"
            )
        else:
            assert found == ["metadata.labels"]
        if cluster is FULL:
            priority = asked.resources.workload_priority or "usual"
            assert list(_values(made, "kueue.x-k8s.io/priority-class")) == [priority]
        assert "suspend" not in json.dumps(made), "that is Kueue's to set"


def _places(value: Any, name: str, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        if name in value:
            yield path
        for key, inner in value.items():
            yield from _places(inner, name, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _places(inner, name, path)


def _values(value: Any, name: str) -> Iterator[Any]:
    if isinstance(value, dict):
        if name in value:
            yield value[name]
        for inner in value.values():
            yield from _values(inner, name)


def test_machines_where_it_failed_are_left_out_of_every_pod() -> None:
    asked = request(resources={"gpu": 8})
    assert "affinity" not in json.dumps(build(asked, BARE))
    for kind in ("train_world_model", "embed_clips", "select_clips"):
        for cluster in (BARE, FULL):
            made = json.dumps(build(request(kind), cluster, avoid=["b", "a"]))
            rule = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["a", "b"]}
            assert made.count(json.dumps(rule)) == (3 if kind == "embed_clips" else 1)


def test_a_pytorchjob_has_workers_alone_that_meet_under_its_name() -> None:
    made = build(request(resources={"gpu": 8, "replicas": 4}), BARE)["spec"]
    name = request().name(BARE)
    assert list(made["pytorchReplicaSpecs"]) == ["Worker"]
    worker = made["pytorchReplicaSpecs"]["Worker"]
    assert (worker["replicas"], worker["restartPolicy"]) == (4, "Never"), "what restarts is not bounded by the operator"
    assert made["nprocPerNode"] == "8"
    assert "nProcPerNode" not in made["elasticPolicy"], "both are refused by its webhook"
    elastic = made["elasticPolicy"]
    assert (elastic["minReplicas"], elastic["maxReplicas"], elastic["rdzvId"], elastic["maxRestarts"]) == (
        4,
        4,
        name,
        0,
    )
    assert made["runPolicy"]["cleanPodPolicy"] == "Running"
    assert "ttlSecondsAfterFinished" not in made["runPolicy"]
    (one,) = worker["template"]["spec"]["containers"]
    assert one["name"] == "pytorch"
    assert one["command"][:7] == [
        "tini",
        "--",
        "python",
        "-m",
        "torch.distributed.run",
        "--module",
        "components.train_world_model",
    ]


def test_a_training_has_a_rank_for_each_device() -> None:
    for needs, ranks, devices in (
        ({}, "1", None), ({"ranks": 2}, "2", None), ({"gpu": 8}, "8", "8"), ({"gpu": 1, "ranks": 8}, "8", "8"),
        ({"gpu": 2, "ranks": 2}, "4", "4"),
    ):  # fmt: skip
        made = build(request(resources=needs), BARE)
        assert made["spec"]["nprocPerNode"] == ranks
        assert containers(made)[0]["resources"]["limits"].get("nvidia.com/gpu") == devices


def test_a_trainjob_says_what_its_runtime_does_not() -> None:
    made = build(request(resources={"gpu": 8, "replicas": 4, "grace_seconds": 77}), FULL)["spec"]
    trainer = made["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (4, 8)
    assert trainer["args"][:2] == ["--rdzv-id", request().name(FULL)], "else no gang knows that it is one"
    assert not any(one["name"].startswith("PET_") for one in trainer["env"]), (
        "the trainer's own, refused by its webhook"
    )
    (job,) = made["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pods = job["template"]["spec"]["template"]["spec"]
    assert job["name"] == "node"
    assert pods["containers"][0]["name"] == "node"
    assert {"name": "shm", "mountPath": "/dev/shm"} in pods["containers"][0]["volumeMounts"]
    assert pods["terminationGracePeriodSeconds"] == 77


def test_a_daskjob_tells_its_workers_what_dask_needs() -> None:
    made = build(request("embed_clips", resources={"replicas": 16, "memory_gib": 10}), FULL)["spec"]
    cluster = made["cluster"]["spec"]
    assert made["job"]["spec"]["restartPolicy"] == "Never"
    (runner,) = made["job"]["spec"]["containers"]
    assert runner["command"][:5] == ["tini", "--", "python", "-m", "components.embed_clips"]
    for part in ("scheduler", "worker"):
        (one,) = cluster[part]["spec"]["containers"]
        values = {each["name"]: each.get("value") for each in one["env"]}
        assert values["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == "20"
        assert values["DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE"] == "0.95"
        assert values["DASK_TEMPORARY_DIRECTORY"] == "/tmp/dask"
    words = cluster["worker"]["spec"]["containers"][0]["command"]
    assert words[:4] == ["tini", "--", "dask", "worker"]
    assert words[words.index("--local-directory") + 1] == "/tmp/dask"
    assert int(words[words.index("--memory-limit") + 1][:-1]) < 10 * 2**30
    assert cluster["worker"]["replicas"] == 16
    assert "nvidia.com/gpu" not in json.dumps(made)


def test_workers_with_devices_are_dask_cudas_and_nothing_else_asks_for_one() -> None:
    made = build(request("embed_clips", resources={"gpu": 1, "replicas": 16}), FULL)["spec"]
    (worker,) = made["cluster"]["spec"]["worker"]["spec"]["containers"]
    assert worker["command"][:5] == ["tini", "--", "dask", "cuda", "worker"]
    assert "wfm.parts.in_worker" in worker["command"], "dask-cuda's own preload takes the place of the environment's"
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,utility,video"} in worker["env"], (
        "NVDEC is in video"
    )
    for other in (made["job"]["spec"], made["cluster"]["spec"]["scheduler"]["spec"]):
        assert "nvidia" not in json.dumps(other).lower()


def test_devices_of_a_training_come_with_rdma_and_nccl() -> None:
    (one,) = containers(build(request(resources={"gpu": 8, "rdma": 4}), settings(nccl={"NCCL_IB_HCA": "mlx5"})))
    assert one["resources"]["limits"]["rdma/hca"] == "4"
    assert one["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert {"name": "NCCL_IB_HCA", "value": "mlx5"} in one["env"]
    (one,) = containers(build(request(), settings(nccl={"NCCL_IB_HCA": "mlx5"})))
    assert "NCCL_IB_HCA" not in json.dumps(one)


def test_threads_are_as_many_as_the_cores_of_a_process() -> None:
    for needs, threads in (({"cpu": 112, "gpu": 8}, "14"), ({"cpu": 4, "ranks": 2}, "4"), ({"cpu": 0.5}, "1")):
        (one,) = containers(build(request(resources=needs), BARE))
        assert {"name": "OMP_NUM_THREADS", "value": threads} in one["env"]
    (one,) = containers(build(request(), settings(environment={"OMP_NUM_THREADS": "3"})))
    assert {"name": "OMP_NUM_THREADS", "value": "3"} in one["env"], "the platform team's word"


def test_ranges_of_parts_are_an_indexed_job_that_knows_final_codes() -> None:
    made = build(request("embed_clips", parts=256, resources={"replicas": 64}, retries=3), BARE)["spec"]
    assert (made["completionMode"], made["completions"], made["parallelism"]) == ("Indexed", 256, 64)
    assert (made["backoffLimitPerIndex"], made["podReplacementPolicy"]) == (3, "Failed")
    assert 0 < made["maxFailedIndexes"] < 256
    rules = made["podFailurePolicy"]["rules"]
    codes = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule}
    assert codes == {"FailJob": [InputError.exit_code], "FailIndex": [WfmError.exit_code]}
    assert {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]} in rules
    final = {code for values in codes.values() for code in values}
    assert not final & {
        code for code, outcome in EXIT_OUTCOMES.items() if outcome in ("done", "try_again", "cancelled")
    }
    words = containers(build(request("embed_clips", parts=256), BARE))[0]["command"]
    assert words[-2:] == ["--parts", "JOB_COMPLETION_INDEX/256"]
    assert "--key-out" not in words


def test_a_stage_of_one_pod_that_asks_for_a_device_is_an_indexed_job_of_one() -> None:
    made = build(request("cluster_clips", resources={"gpu": 1}), BARE)
    spec = made["spec"]
    assert (made["kind"], spec["completions"], spec["parallelism"], spec["backoffLimitPerIndex"]) == ("Job", 1, 1, 0)
    assert containers(made)[0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "FailIndex" not in json.dumps(made)


def test_the_stage_after_its_ranges_has_a_name_of_its_own_and_no_device() -> None:
    ranges = request("embed_clips", parts=16, resources={"gpu": 1})
    last = ranges.closing()
    assert len({one.name(BARE) for one in (ranges, last, request("embed_clips"))}) == 3
    made = build(last, BARE)
    assert made["kind"] == "Job"
    assert "--key-out" in containers(made)[0]["command"]
    assert "nvidia.com/gpu" not in containers(made)[0]["resources"]["limits"]


def test_the_last_stop_of_a_job_leaves_time_for_what_comes_before_it_begins() -> None:
    for kind in ("select_clips", "train_world_model"):
        for cluster in (BARE, FULL):
            (stop,) = re.findall(r'"activeDeadlineSeconds": (\d+)', json.dumps(build(request(kind), cluster)))
            assert int(stop) >= request(kind).timeout_seconds + 600 + 900 + 120


def test_every_try_of_a_range_has_the_time_of_one_and_the_job_that_of_all() -> None:
    made = build(request("embed_clips", parts=256, resources={"replicas": 100}, retries=1), BARE)["spec"]
    each = made["template"]["spec"]["activeDeadlineSeconds"]
    assert made["activeDeadlineSeconds"] == each * 3 * 2
    assert "activeDeadlineSeconds" not in build(request("select_clips"), BARE)["spec"]["template"]["spec"]


def test_amounts_are_written_as_the_server_writes_them() -> None:
    (one,) = containers(build(request("select_clips", resources={"cpu": 0.1, "memory_gib": 1.5, "shm_gib": 0.5}), BARE))
    assert one["resources"]["limits"] == {"cpu": "100m", "memory": "2Gi", "ephemeral-storage": "10Gi"}
    (one,) = containers(
        build(request("select_clips", resources={"cpu": 2.0, "memory_gib": 1.25, "shm_gib": 0.25}), BARE)
    )
    assert one["resources"]["limits"] == {"cpu": "2", "memory": "1536Mi", "ephemeral-storage": "10Gi"}


def test_settings_without_an_image_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"images.training is not set"):
        build(request(), settings(images={}))


def test_nothing_of_this_loads_torch_dask_or_the_client() -> None:
    code = (
        "import sys, wfm.cluster.objects; "
        "print([m for m in ('torch', 'dask', 'kubernetes', 'numpy', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
