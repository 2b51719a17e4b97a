"""Mutations of pods: rights, volumes, amounts, images, secrets; in jobs of every kind and in workflows."""

from typing import Any

from tests.wfm.cluster.lint.change import Mutation, add, drop, env, more, put
from tests.wfm.cluster.lint.good import claim, image
from tests.wfm.cluster.lint.of_jobs import JOB_SET, MAIN, POD, RUNNER, RUNTIME, SCHEDULER, WORKER, m

INDEX = "spec template spec"
STEP = "spec templates 2"
CRON_STEP = "spec workflowSpec templates 2"
PATCH = "spec runtimePatches 0 trainingRuntimeSpec template spec replicatedJobs 0 template spec template spec"
_OTHER = f"sha256:{'e' * 64}"
_SIDECAR: dict[str, Any] = {
    "name": "proxy",
    "image": f"registry.example/proxy@{_OTHER}",
    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}},
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
}


def _sidecar(**changed: Any) -> dict[str, Any]:
    return {**_SIDECAR, **changed}


def _volume(pod: str, name: str, path: str, **volume: Any) -> tuple[Any, ...]:
    return (
        add(f"{pod} volumes", {"name": name, **volume}),
        add(f"{pod} containers 0 volumeMounts", {"name": name, "mountPath": path}),
    )


SECURITY: list[Mutation] = [
    m("root-user", "training", "may be root", put(f"{POD} securityContext runAsNonRoot", False)),
    m("root-user", "training", "unset", drop(f"{POD} securityContext runAsNonRoot")),
    m("root-user", "training", "the container may", put(f"{MAIN} securityContext runAsNonRoot", False)),
    m("root-user", "training", "user 0", put(f"{POD} securityContext runAsUser", 0)),
    m("root-user", "curation", "the runner is", put(f"{RUNNER} containers 0 securityContext runAsUser", 0)),
    m("root-user", "ranges", "group 0", put(f"{INDEX} securityContext runAsGroup", 0)),
    m(
        "root-user",
        "workflow",
        "a template may",
        put(f"{STEP} securityContext", {"runAsNonRoot": False, "seccompProfile": {"type": "RuntimeDefault"}}),
    ),
    m("root-user", "trainjob", "runtime", drop(f"{RUNTIME} template spec securityContext runAsNonRoot", of=1)),
    m("privileges", "training", "escalation", put(f"{MAIN} securityContext allowPrivilegeEscalation", True)),
    m(
        "privileges",
        "ranges",
        "escalation, unset",
        drop(f"{INDEX} containers 0 securityContext allowPrivilegeEscalation"),
    ),
    m("privileges", "encoding", "privileged", put(f"{WORKER} containers 0 securityContext privileged", True)),
    m("privileges", "training", "capabilities kept", drop(f"{MAIN} securityContext capabilities")),
    m(
        "privileges",
        "training",
        "capabilities added",
        put(f"{MAIN} securityContext capabilities add", ["IPC_LOCK", "SYS_ADMIN"]),
    ),
    m("privileges", "workflow", "a step", put(f"{STEP} container securityContext allowPrivilegeEscalation", True)),
    m(
        "privileges",
        "training",
        "a sidecar",
        add(f"{POD} containers", _sidecar(securityContext={**_SIDECAR["securityContext"], "privileged": True})),
    ),
    *(
        m("writable-root", on, f"{value}", put(f"{path} securityContext readOnlyRootFilesystem", value))
        for value in (False,)
        for on, path in (
            ("training", MAIN),
            ("curation", f"{SCHEDULER} containers 0"),
            ("workflow", f"{STEP} container"),
            ("cron", f"{CRON_STEP} container"),
        )
    ),
    m("writable-root", "ranges", "unset", drop(f"{INDEX} containers 0 securityContext readOnlyRootFilesystem")),
    m(
        "writable-root",
        "jobset",
        "an init container",
        add(
            f"{JOB_SET} template spec initContainers",
            _sidecar(securityContext={"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}),
        ),
    ),
    m(
        "writable-root",
        "trainjob",
        "runtime",
        drop(f"{RUNTIME} template spec containers 0 securityContext readOnlyRootFilesystem", of=1),
    ),
    m("seccomp", "training", "unset", drop(f"{POD} securityContext seccompProfile")),
    m("seccomp", "ranges", "Unconfined", put(f"{INDEX} securityContext seccompProfile type", "Unconfined")),
    m(
        "seccomp",
        "encoding",
        "Unconfined in the container",
        put(f"{WORKER} containers 0 securityContext seccompProfile", {"type": "Unconfined"}),
    ),
    *(m("host-access", "training", name, put(f"{POD} {name}", True)) for name in ("hostNetwork", "hostPID", "hostIPC")),
    m("host-access", "workflow", "network", put("spec hostNetwork", True)),
    m("host-access", "encoding", "a folder", *_volume(WORKER, "data", "/data", hostPath={"path": "/data"})),
    m("host-access", "curation", "a port", put(f"{SCHEDULER} containers 0 ports 0 hostPort", 8786)),
    *(
        m("api-token", on, "unset", drop(f"{path} automountServiceAccountToken"))
        for on, path in (
            ("training", POD),
            ("curation", RUNNER),
            ("encoding", WORKER),
            ("ranges", INDEX),
            ("jobset", f"{JOB_SET} template spec"),
        )
    ),
    m("api-token", "training", "mounted", put(f"{POD} automountServiceAccountToken", True)),
    m("api-token", "trainjob", "runtime", drop(f"{RUNTIME} template spec automountServiceAccountToken", of=1)),
    m(
        "api-token",
        "training",
        "as a volume",
        *_volume(POD, "token", "/token", projected={"sources": [{"serviceAccountToken": {"path": "token"}}]}),
    ),
    m("literal-secret", "training", "a key", env(MAIN, "AWS_SECRET_ACCESS_KEY", "abcdefabcdef")),
    m("literal-secret", "training", "a token", env(MAIN, "HF_TOKEN", "not-a-known-form")),
    m(
        "literal-secret",
        "curation",
        "a password of the runner",
        env(f"{RUNNER} containers 0", "DB_PASSWORD", "hunter2hunter2"),
    ),
    m(
        "literal-secret",
        "ranges",
        "in options",
        env(f"{INDEX} containers 0", "WFM_STORE_OPTIONS", '{"key": "id", "secret": "abc"}'),
    ),
    m(
        "literal-secret",
        "ranges",
        "deep in options",
        env(f"{INDEX} containers 0", "WFM_STORE_OPTIONS", '{"client_kwargs": {"aws_secret_access_key": "abc"}}'),
    ),
    m(
        "literal-secret",
        "ranges",
        "in an address",
        env(f"{INDEX} containers 0", "WFM_STORE", "s3://key:secret@bucket/store"),
    ),
    m("literal-secret", "training", "in an argument", add(f"{MAIN} command", "s3://bucket/x?X-Amz-Signature=abcdef")),
    m(
        "literal-secret",
        "workflow",
        "of a known form",
        add("spec arguments parameters", {"name": "id", "value": f"AKIA{'A' * 16}"}),
    ),
    m(
        "literal-secret",
        "workflow",
        "a key file",
        put("metadata annotations", {"note": "-----BEGIN RSA PRIVATE KEY-----"}),
    ),
]

VOLUMES: list[Mutation] = [
    m("shared-memory", "training", "not mounted", drop(f"{MAIN} volumeMounts 3")),
    m("shared-memory", "training", "no volume", drop(f"{MAIN} volumeMounts 3"), drop(f"{POD} volumes 3")),
    m(
        "shared-memory",
        "training",
        "in a sidecar alone",
        lambda objects: add(
            f"{POD} containers",
            _sidecar(
                resources={kind: {"cpu": "1", "memory": "400Gi"} for kind in ("requests", "limits")},
                volumeMounts=[
                    objects[0]["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0][
                        "volumeMounts"
                    ].pop(3)
                ],
            ),
        )(objects),
    ),
    m("shared-memory", "training", "elsewhere", put(f"{MAIN} volumeMounts 3 mountPath", "/dev/shm2")),
    m("shared-memory", "training", "a part of it", put(f"{MAIN} volumeMounts 3 subPath", "x")),
    m("shared-memory", "training", "for reading", put(f"{MAIN} volumeMounts 3 readOnly", True)),
    m(
        "shared-memory",
        "ranges",
        "on a disk",
        put(f"{INDEX} volumes 3 emptyDir medium", ""),
        *(put(f"{INDEX} containers 0 resources {kind} ephemeral-storage", "20Gi") for kind in ("requests", "limits")),
    ),
    m(
        "shared-memory",
        "encoding",
        "medium unset",
        drop(f"{WORKER} volumes 3 emptyDir medium"),
        *(put(f"{WORKER} containers 0 resources {kind} ephemeral-storage", "20Gi") for kind in ("requests", "limits")),
    ),
    m("shared-memory", "trainjob", "not mounted", drop(f"{PATCH} containers 0 volumeMounts 3")),
    m("shared-memory", "jobset", "not mounted", drop(f"{JOB_SET} template spec containers 0 volumeMounts 3")),
    m("memory-volume", "training", "no size", drop(f"{POD} volumes 3 emptyDir sizeLimit")),
    m("memory-volume", "training", "size 0", put(f"{POD} volumes 3 emptyDir sizeLimit", "0")),
    m("memory-volume", "training", "above the limit", put(f"{POD} volumes 3 emptyDir sizeLimit", "1Ti")),
    m("memory-volume", "encoding", "above the limit", put(f"{WORKER} volumes 3 emptyDir sizeLimit", "3Gi")),
    m("memory-volume", "trainjob", "above the limit", put(f"{PATCH} volumes 3 emptyDir sizeLimit", "400Gi")),
    m(
        "memory-volume",
        "ranges",
        "a second one",
        *_volume(INDEX, "more", "/more", emptyDir={"medium": "Memory", "sizeLimit": "2Gi"}),
    ),
    *(
        m("writable-folders", on, f"no {name}", env(path, name, None))
        for name in ("HOME", "WFM_CACHE")
        for on, path in (
            ("training", MAIN),
            ("trainjob", "spec trainer"),
            ("curation", f"{RUNNER} containers 0"),
            ("encoding", f"{WORKER} containers 0"),
            ("ranges", f"{INDEX} containers 0"),
            ("workflow", f"{STEP} container"),
        )
    ),
    *(
        m("writable-folders", "training", f"{name} on the root", env(MAIN, name, "/opt/cache"))
        for name in (
            "HOME",
            "WFM_CACHE",
            "TMPDIR",
            "TORCHINDUCTOR_CACHE_DIR",
            "TRITON_CACHE_DIR",
            "MPLCONFIGDIR",
            "NUMBA_CACHE_DIR",
            "XDG_CACHE_HOME",
        )
    ),
    m("writable-folders", "training", "cache not mounted", drop(f"{MAIN} volumeMounts 1")),
    m("writable-folders", "training", "home mounted for reading", put(f"{MAIN} volumeMounts 0 readOnly", True)),
    m("writable-folders", "training", "on memory", env(MAIN, "WFM_CACHE", "/dev/shm/cache")),
    m("writable-folders", "training", "out of its volume", env(MAIN, "WFM_CACHE", "/cache/../etc")),
    m(
        "writable-folders",
        "ranges",
        "a Secret as home",
        put(f"{INDEX} volumes 0", {"name": "home", "secret": {"secretName": "x"}}),
    ),
    m(
        "writable-folders",
        "evaluation",
        "nothing for temporary files",
        env(f"{INDEX} containers 0", "TMPDIR", None),
        drop(f"{INDEX} containers 0 volumeMounts 2"),
    ),
    m("scratch-size", "training", "a cache without a size", drop(f"{POD} volumes 1 emptyDir sizeLimit")),
    m("scratch-size", "ranges", "one more without a size", *_volume(INDEX, "more", "/more", emptyDir={})),
    m("scratch-size", "encoding", "more than is asked for", put(f"{WORKER} volumes 1 emptyDir sizeLimit", "1Ti")),
    m("scratch-size", "training", "not asked for", drop(f"{MAIN} resources requests ephemeral-storage")),
    m(
        "scratch-size",
        "trainjob",
        "limit below it",
        *(put(f"spec trainer resourcesPerNode {kind} ephemeral-storage", "1Gi") for kind in ("requests", "limits")),
    ),
    m("mounts", "training", "no such volume", add(f"{MAIN} volumeMounts", {"name": "data", "mountPath": "/data"})),
    m(
        "mounts",
        "workflow",
        "no such volume",
        add(f"{STEP} container volumeMounts", {"name": "data", "mountPath": "/data"}),
    ),
    *(
        m("lone-claim", on, what, *_volume(path, "data", "/data", persistentVolumeClaim={"claimName": "data"}), *known)
        for on, path in (("training", POD), ("encoding", WORKER), ("ranges", INDEX))
        for what, known in (("ReadWriteOnce", [more(claim("data", "ReadWriteOnce"))]), ("of unknown kind", []))
    ),
    m(
        "lone-claim",
        "workflow",
        "of two templates",
        put("spec volumes 0", {"name": "work", "persistentVolumeClaim": {"claimName": "work"}}),
        more(claim("work", "ReadWriteOncePod")),
    ),
    m(
        "lone-claim",
        "workflow",
        "made for the workflow",
        put("spec volumeClaimTemplates", [{"metadata": {"name": "data"}, "spec": claim("x", "ReadWriteOnce")["spec"]}]),
        *(
            add(f"spec templates {place} container volumeMounts", {"name": "data", "mountPath": "/data"})
            for place in (1, 2)
        ),
    ),
]

_CPU, _MEMORY = "resources requests cpu", "resources limits memory"
AMOUNTS: list[Mutation] = [
    m("cpu-request", "training", "none", drop(f"{MAIN} resources requests cpu"), drop(f"{MAIN} resources limits cpu")),
    m(
        "cpu-request",
        "trainjob",
        "0",
        *(put(f"spec trainer resourcesPerNode {kind} cpu", "0") for kind in ("requests", "limits")),
    ),
    m(
        "cpu-request",
        "ranges",
        "a sidecar",
        add(
            f"{INDEX} initContainers",
            _sidecar(resources={"requests": {"memory": "64Mi"}, "limits": {"memory": "64Mi"}}),
        ),
    ),
    m(
        "cpu-request",
        "workflow",
        "a step",
        *(drop(f"{STEP} container resources {kind} cpu") for kind in ("requests", "limits")),
    ),
    m("memory-limit", "training", "none", drop(f"{MAIN} {_MEMORY}")),
    m("memory-limit", "encoding", "of workers", drop(f"{WORKER} containers 0 {_MEMORY}")),
    m("memory-limit", "curation", "of the scheduler", drop(f"{SCHEDULER} containers 0 {_MEMORY}")),
    m("memory-limit", "workflow", "of a step", drop(f"{STEP} container {_MEMORY}")),
    m(
        "memory-limit",
        "jobset",
        "of a sidecar",
        add(f"{JOB_SET} template spec containers", _sidecar(resources={"requests": {"cpu": "1", "memory": "1Gi"}})),
    ),
    m("request-above-limit", "training", "memory", put(f"{MAIN} resources requests memory", "512Gi")),
    m("request-above-limit", "ranges", "cpu", put(f"{INDEX} containers 0 resources requests cpu", "2")),
    m("device-limit", "training", "no limit", drop(f"{MAIN} resources limits nvidia.com/gpu")),
    m("device-limit", "training", "asks for fewer", put(f"{MAIN} resources requests nvidia.com/gpu", "4")),
    m(
        "device-limit",
        "encoding",
        "a half",
        *(put(f"{WORKER} containers 0 resources {kind} nvidia.com/gpu", "500m") for kind in ("requests", "limits")),
    ),
    m("device-limit", "trainjob", "RDMA", put("spec trainer resourcesPerNode requests rdma/hca", "1")),
]

_TAGGED = "registry.example/wfm-training:v1"
IMAGES: list[Mutation] = [
    *(
        m("image-digest", "training", value, put(f"{MAIN} image", value))
        for value in (
            _TAGGED,
            "registry.example/wfm-training:latest",
            "registry.example/wfm-training",
            "registry.example/wfm-training@sha256:beef",
            f"registry.example/wfm-training@sha512:{'b' * 64}",
            "",
        )
    ),
    m("image-digest", "training", "none", drop(f"{MAIN} image")),
    m("image-digest", "trainjob", "by tag", put("spec trainer image", _TAGGED)),
    m("image-digest", "trainjob", "none", drop("spec trainer image")),
    m(
        "image-digest",
        "curation",
        "runner by tag",
        put(f"{RUNNER} containers 0 image", "registry.example/wfm-curation:v1"),
    ),
    m("image-digest", "encoding", "worker by tag", put(f"{WORKER} containers 0 image", _TAGGED)),
    m("image-digest", "workflow", "step by tag", put(f"{STEP} container image", "registry.example/wfm-curation:v1")),
    m("image-digest", "ranges", "a sidecar", add(f"{INDEX} containers", _sidecar(image="proxy:3"))),
    m("image-digest", "ranges", "an init container", add(f"{INDEX} initContainers", _sidecar(image="busybox"))),
    m("image-digest", "workflow", "a sidecar of a step", put(f"{STEP} sidecars", [_sidecar(image="proxy:latest")])),
    m("image-set", "training", "another digest", put(f"{MAIN} image", f"registry.example/wfm-training@{_OTHER}")),
    m("image-set", "training", "a tag beside the digest", put(f"{MAIN} image", f"{_TAGGED}@sha256:{'b' * 64}")),
    m("image-set", "training", "of another role", put(f"{MAIN} image", image("curation"))),
    m("image-set", "training", "a stranger's", put(f"{MAIN} image", f"registry.example/mine@{_OTHER}")),
    m(
        "image-set",
        "curation",
        "scheduler of another digest",
        put(f"{SCHEDULER} containers 0 image", f"registry.example/wfm-curation@{_OTHER}"),
    ),
    m("image-set", "curation", "worker of another role", put(f"{WORKER} containers 0 image", image("control"))),
    m("image-set", "workflow", "launcher of another role", put("spec templates 3 container image", image("training"))),
    m(
        "image-set",
        "workflow",
        "step of another digest",
        put(f"{STEP} container image", f"registry.example/wfm-curation@{_OTHER}"),
    ),
    m(
        "image-set",
        "ranges",
        "two digests of a sidecar",
        add(f"{INDEX} containers", _sidecar()),
        add(f"{INDEX} containers", _sidecar(name="second", image=f"registry.example/proxy@sha256:{'f' * 64}")),
    ),
]
MORE = [
    m(
        "mounts",
        "encoding",
        "a volume of nothing",
        put(f"{WORKER} volumes 3", {"name": "cuda"}),
        drop(f"{WORKER} containers 0 volumeMounts 3"),
        add(f"{WORKER} volumes", {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "512Mi"}}),
        add(f"{WORKER} containers 0 volumeMounts", {"name": "shm", "mountPath": "/dev/shm"}),
    ),
    m("literal-secret", "evaluation", "as an option", add(f"{INDEX} containers 0 command", "--api-key=abcdefabcdef")),
    m(
        "literal-secret",
        "evaluation",
        "as two words",
        add(f"{INDEX} containers 0 command", "--token"),
        add(f"{INDEX} containers 0 command", "abcdefabcdef"),
    ),
    m(
        "literal-secret",
        "workflow",
        "in a ConfigMap",
        more(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "c", "namespace": "wfm"},
                "data": {"HF_TOKEN": "abcdefabcdef"},
            }
        ),
    ),
]
ALL = [*MORE, *SECURITY, *VOLUMES, *AMOUNTS, *IMAGES]
