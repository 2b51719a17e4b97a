"""What is known of one cluster: namespace, images, queue, names of its devices, quota, patience. No key knows of it.

A JSON file that ``WFM_CLUSTER`` (or ``--cluster``) names:

    {"namespace": "wfm", "queue": "research", "training_job": "trainjob",
     "images": {"curation": "registry.example/wfm-curation@sha256:...", "training": "...", "control": "..."},
     "environment": {"WFM_STORE": "s3://bucket/store"}, "quota": {"gpu": 64, "cpu": 1024, "memory_gib": 8192}}
"""

import json
import os
from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from wfm.cluster.names import is_dns_1035
from wfm.config import AboveZero, AtLeastZero, Config
from wfm.errors import ConfigError

VARIABLE = "WFM_CLUSTER"
Image = Literal["curation", "training", "control"]
Integration = Literal["pytorchjob", "trainjob", "job", "jobset", "pod", "deployment"]


class Images(Config):
    """What each role runs in, by digest: ``registry.example/wfm-training@sha256:...``. A tag may be another image tomorrow, and
    planner, launcher and stages must be of one code."""

    curation: str = ""
    training: str = ""
    control: str = ""


class Patience(Config):
    """How long the launcher waits before it says that something is wrong; time in Kueue's queue counts for none of them."""

    image_pull_seconds: AboveZero = 600.0
    "A pod whose image cannot be pulled [s]."
    unschedulable_seconds: AboveZero = 900.0
    "A pod for which no machine has room, once it was admitted [s]."
    queue_ignored_seconds: AboveZero = 120.0
    "A job with a queue label that nobody takes up: the integration is off, or the queue does not exist [s]."
    start_seconds: AboveZero = 900.0
    "From the first pod to all of them; ranks wait so long for each other [s]."
    lost_node_seconds: AboveZero = 300.0
    "A pod on a machine that is not heard of [s]."
    poll_seconds: AboveZero = 10.0
    "Between looks, where no event comes [s]."


class Quota(Config):
    """The most that one node may ask for, replicas included, as the platform team hands it out; None: not bounded here."""

    cpu: AboveZero | None = None
    memory_gib: AboveZero | None = None
    gpu: AtLeastZero | None = None
    rdma: AtLeastZero | None = None
    ephemeral_gib: AboveZero | None = None

    def limits(self) -> dict[str, float]:
        """The bounds that there are, by the names of `Resources.total`."""
        return {name: float(value) for name, value in self.resolved().items() if value is not None}


class Toleration(Config):
    """A taint that pods bear, as Kubernetes writes it."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""

    def plain(self) -> dict[str, str]:
        """Without what is left out."""
        return {name: value for name, value in self.resolved().items() if value}


class ClusterSettings(Config):
    """One cluster, as its platform team describes it."""

    namespace: str = "wfm"
    "Where everything is made."
    images: Images = Images()
    image_pull_secrets: tuple[str, ...] = ()
    "Names of secrets with which images are pulled."
    queue: str = ""
    "LocalQueue of Kueue for what holds devices; empty: there is no Kueue, and nothing waits in a queue."
    workload_priority: str = ""
    "WorkloadPriorityClass of Kueue, where a node has none of its own."
    pod_priority: str = ""
    "PriorityClass of pods, where a node has none of its own."
    service_account: str = ""
    "Of the pods of stages, for web identity at the store; they get no token for the API of Kubernetes. Empty: the default one."
    environment: dict[str, str] = {}
    "Variables of every stage: the store and its options."
    secrets: tuple[str, ...] = ()
    "Names of secrets whose entries become variables of every stage."
    training_job: Literal["pytorchjob", "trainjob"] = "pytorchjob"
    "What a training is made as: trainjob where Kueue no longer takes up PyTorchJob."
    training_runtime: str = "wfm-torch"
    "TrainingRuntime that trainjobs refer to (`wfm.cluster.objects.trainjob.runtime` makes it)."
    gpu_resource: str = "nvidia.com/gpu"
    "What devices are called here."
    rdma_resource: str = "rdma/hca"
    "What RDMA devices are called here; their machines must let a pod lock memory (LimitMEMLOCK of the container runtime)."
    nccl: dict[str, str] = {}
    "Variables of trainings that have devices, such as NCCL_IB_HCA or NCCL_SOCKET_IFNAME."
    node_selector: dict[str, str] = {}
    "Labels of the machines that pods of stages go to."
    tolerations: tuple[Toleration, ...] = ()
    "Taints that these pods bear."
    gpu_node_selector: dict[str, str] = {}
    "The same of pods that have devices, on top."
    gpu_tolerations: tuple[Toleration, ...] = ()
    spot_tolerations: tuple[Toleration, ...] = ()
    "Taints of machines that may go at any time; of pods whose node says that it can take it (``resources.spot``), on top."
    gang_topology: str = ""
    """Label of machines that lie together (a rack, a leaf of the fabric): the pods of a training keep to one value of it where
    they can. With a queue it is a level of its flavour's Topology. Empty: they lie anywhere."""
    spread_topology: str = ""
    "Label of machines (a zone, the host name) over which workers and ranges are spread. Empty: as the scheduler likes."
    integrations: tuple[Integration, ...] = ("job", "jobset", "trainjob", "pod", "deployment")
    "Kinds that Kueue takes up here (by default all it knows of ours but pytorchjob, which has to be switched on)."
    quota: Quota = Quota()
    patience: Patience = Patience()

    @pydantic.model_validator(mode="after")
    def _names(self) -> Self:
        if not is_dns_1035(self.namespace):
            raise ValueError(
                f"namespace = {self.namespace!r}: give a name of a-z, 0-9 and -, a letter first, at most 63 long"
            )
        for name in ("queue", "service_account", "training_runtime"):
            value = getattr(self, name)
            if value and not is_dns_1035(value):
                raise ValueError(f"{name} = {value!r}: give a name of a-z, 0-9 and -, a letter first, at most 63 long")
        return self

    @classmethod
    def read(cls, path: str = "") -> "ClusterSettings":
        """From the JSON file at ``path``, else the one that ``WFM_CLUSTER`` names. Raises ConfigError when there is none, it
        cannot be read, or says what cannot be."""
        named = path or os.environ.get(VARIABLE, "")
        if not named:
            raise ConfigError(
                f"no cluster is described: give --cluster FILE, or set {VARIABLE} to a JSON file of its settings"
            )
        try:
            values: Any = json.loads(Path(named).read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"the settings of the cluster, {named!r}, cannot be read: {error}") from None
        if not isinstance(values, dict):
            raise ConfigError(
                f"the settings of the cluster, {named!r}, are {type(values).__name__}: give an object of JSON"
            )
        try:
            return cls.parse(values)
        except ConfigError as error:
            raise ConfigError(f"the settings of the cluster, {named!r}: {error}") from None

    @classmethod
    def here(cls) -> "ClusterSettings | None":
        """Those that ``WFM_CLUSTER`` names; None where it names none."""
        return cls.read() if os.environ.get(VARIABLE) else None

    def image(self, role: str) -> str:
        """What a role runs in. Raises ConfigError where the settings do not say."""
        found: str = getattr(self.images, role, "")
        if not found:
            choices = ", ".join(Images.model_fields)
            raise ConfigError(
                f"images.{role} is not set in the settings of the cluster: give an image by its digest for {choices}"
            )
        return found
