"""The kinds of objects that are asked for: where the server has them, and what they are called."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Resource:
    """A kind of object that the server has below a URL of its own."""

    group: str
    "Empty for the oldest ones."
    version: str
    plural: str
    kind: str
    everywhere: bool = False
    "Of no namespace, or asked for in all of them at once."

    @property
    def path(self) -> str:
        """What comes before the namespace in its URL."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def of_all_namespaces(self) -> "Resource":
        """The same, whatever namespace it is in; for lists alone."""
        return replace(self, everywhere=True)

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


POD = Resource("", "v1", "pods", "Pod")
SERVICE = Resource("", "v1", "services", "Service")
DEPLOYMENT = Resource("apps", "v1", "deployments", "Deployment")
JOB = Resource("batch", "v1", "jobs", "Job")
PYTORCHJOB = Resource("kubeflow.org", "v1", "pytorchjobs", "PyTorchJob")
TRAINJOB = Resource("trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob")
DASKJOB = Resource("kubernetes.dask.org", "v1", "daskjobs", "DaskJob")
DASKCLUSTER = Resource("kubernetes.dask.org", "v1", "daskclusters", "DaskCluster")
EVENT = Resource("", "v1", "events", "Event")
WORKLOAD = Resource("kueue.x-k8s.io", "v1beta2", "workloads", "Workload")
