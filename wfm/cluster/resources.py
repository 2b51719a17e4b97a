"""What a node needs to run. No key knows of it: more machines, the same artifact.

A profile says it by node (``"resources": {...}`` in a recipe), a user by ``--set NODE.resources.memory_gib=64``; the table of
stages holds a laptop's share. On a laptop only cpu, memory_gib, gpu and ranks are read.
"""

from typing import Literal

from wfm.config import AboveZero, Config, Count, Natural

Kind = Literal["container", "daskjob", "torchjob"]
"""How a cluster runs a stage: one pod, a Dask cluster of workers, ranks."""
SCHEDULER_CPU, SCHEDULER_GIB = 1.0, 4.0
"""What the scheduler of a DaskJob asks for: it keeps a few hundred bytes of each task that waits."""
RUNNER_CPU, RUNNER_GIB = 2.0, 8.0
"""The most that its runner asks for: it plans, hands out, and commits; the work is the workers'."""
LOGS_GIB = 0.1
"""Of the disk of a pod, what its own output may fill (the kubelet turns it over at 50 MiB)."""


class Resources(Config):
    """What a node needs to run."""

    cpu: AboveZero = 1.0
    """Cores of a replica, or of each rank where ``ranks`` says several; on a larger machine the engine lets it use more
    (`engines/run_node.py`)."""
    gpu: Natural = 0
    """Devices of a replica, or of each rank where ``ranks`` says several; none are needed on a laptop. Of a DaskJob each worker
    has so many and is started by ``dask cuda worker``; on a cluster a training has a rank for each."""
    memory_gib: AboveZero = 2.0
    "Memory of a replica, or of each rank where ``ranks`` says several [GiB]. What lies in /dev/shm comes on top."
    replicas: Count = 1
    "Pods side by side, on a cluster: workers, machines of a training, part ranges at a time."
    parts: Natural = 0
    """Ranges that the parts of a stage are divided into, on a cluster: an Indexed Job in place of a Dask cluster. 0: none."""
    ranks: Count = 1
    """Processes of one machine that one training is split over (``--set NODE.ranks=2``), each with so many cores, memory and
    devices; of a torchjob only. The model is the same for any number, up to rounding."""
    shm_gib: AboveZero = 1.0
    """Size of /dev/shm of a replica, on a cluster [GiB]: loader workers of torch and NCCL hand on through it, and a pod's own
    holds 64 MB. It is memory: the pod's limit is the sum of both."""
    ephemeral_gib: AboveZero = 10.0
    "Disk of a replica, on a cluster [GiB]: home, caches, temporary files, and the part of it that logs fill."
    rdma: Natural = 0
    "RDMA devices of a replica, on a cluster (the ``rdma_resource`` of its settings): for trainings over several machines."
    grace_seconds: Count = 120
    "Between SIGTERM and SIGKILL, on a cluster [s]: time to keep what is whole and a checkpoint."
    spot: bool = False
    """Whether its pods may stand on machines that go at any time (``spot_tolerations`` of the cluster's settings): what is lost
    is a part, or what came after the last checkpoint. Of a DaskJob the workers alone."""
    priority: str = ""
    "PriorityClass of its pods, on a cluster; empty: that of the cluster's settings."
    workload_priority: str = ""
    "WorkloadPriorityClass of Kueue, for what waits in a queue; empty: that of the cluster's settings."

    @property
    def processes(self) -> int:
        """Ranks of a replica of a training on a cluster: each uses one device, so what has several is several."""
        return self.ranks * max(self.gpu, 1)

    def pod(self) -> dict[str, float]:
        """What one pod is charged: cpu [cores], memory_gib with /dev/shm, gpu, rdma, ephemeral_gib."""
        return {
            "cpu": self.cpu * self.ranks,
            "memory_gib": self.memory_gib * self.ranks + self.shm_gib,
            "gpu": float(self.gpu * self.ranks),
            "rdma": float(self.rdma),
            "ephemeral_gib": self.ephemeral_gib,
        }

    def runner(self) -> "Resources":
        """What the runner of a DaskJob needs: at most a worker's share, without devices."""
        few = {"cpu": min(self.cpu, RUNNER_CPU), "memory_gib": min(self.memory_gib, RUNNER_GIB)}
        return self.model_copy(
            update={**few, "gpu": 0, "rdma": 0, "replicas": 1, "ranks": 1, "parts": 0, "spot": False}
        )

    def scheduler(self) -> "Resources":
        """What the scheduler of a DaskJob needs; no model is there, so nothing is at /dev/shm."""
        more = {"cpu": SCHEDULER_CPU, "memory_gib": SCHEDULER_GIB, "shm_gib": 0.0, "ephemeral_gib": 2.0}
        return self.runner().model_copy(update=more)

    def total(self, kind: Kind = "container") -> dict[str, float]:
        """What the node as a whole asks for at a time: that of a pod times the replicas, and of a DaskJob (a daskjob
        that is not divided into ranges) its runner and scheduler."""
        beside = self.beside(kind)
        return {
            name: amount * self.replicas + sum(one.pod()[name] for one in beside.values())
            for name, amount in self.pod().items()
        }

    def beside(self, kind: Kind) -> dict[str, "Resources"]:
        """The pods that a node has beside its replicas: of a DaskJob its runner and its scheduler."""
        return {"runner": self.runner(), "scheduler": self.scheduler()} if kind == "daskjob" and not self.parts else {}
