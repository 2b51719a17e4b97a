"""What is served: group, version, plural, kind, and where each stands.

A resource's name is its plural, with the group behind it unless it is of the core: ``pods``, ``jobs.batch``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Resource:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = True
    "Whether its status is written by way of a subresource only."
    crd: bool = False
    "Whether it is there only when its CRD is installed."

    @property
    def name(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "") -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        where = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{where}/{self.plural}" + (f"/{name}" if name else "")


RESOURCES = (
    Resource("", "v1", "pods", "Pod"),
    Resource("", "v1", "events", "Event", status=False),
    Resource("", "v1", "services", "Service"),
    Resource("", "v1", "nodes", "Node", namespaced=False),
    Resource("", "v1", "namespaces", "Namespace", namespaced=False),
    Resource("", "v1", "resourcequotas", "ResourceQuota"),
    Resource("", "v1", "limitranges", "LimitRange", status=False),
    Resource("coordination.k8s.io", "v1", "leases", "Lease", status=False),
    Resource("batch", "v1", "jobs", "Job"),
    Resource("apps", "v1", "deployments", "Deployment"),
    Resource("kubeflow.org", "v1", "pytorchjobs", "PyTorchJob", crd=True),
    Resource("trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob", crd=True),
    Resource("trainer.kubeflow.org", "v1alpha1", "trainingruntimes", "TrainingRuntime", status=False, crd=True),
    Resource(
        "trainer.kubeflow.org", "v1alpha1", "clustertrainingruntimes", "ClusterTrainingRuntime",
        namespaced=False, status=False, crd=True,
    ),
    Resource("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet", crd=True),
    Resource("kubernetes.dask.org", "v1", "daskjobs", "DaskJob", crd=True),
    Resource("kubernetes.dask.org", "v1", "daskclusters", "DaskCluster", status=False, crd=True),
    Resource("kubernetes.dask.org", "v1", "daskworkergroups", "DaskWorkerGroup", status=False, crd=True),
    Resource("kueue.x-k8s.io", "v1beta2", "workloads", "Workload", crd=True),
    Resource("kueue.x-k8s.io", "v1beta2", "localqueues", "LocalQueue", crd=True),
    Resource("kueue.x-k8s.io", "v1beta2", "clusterqueues", "ClusterQueue", namespaced=False, crd=True),
    Resource("kueue.x-k8s.io", "v1beta2", "resourceflavors", "ResourceFlavor", namespaced=False, status=False, crd=True),
    Resource(
        "kueue.x-k8s.io", "v1beta2", "workloadpriorityclasses", "WorkloadPriorityClass",
        namespaced=False, status=False, crd=True,
    ),
    Resource("kueue.x-k8s.io", "v1beta2", "cohorts", "Cohort", namespaced=False, crd=True),
    Resource("kueue.x-k8s.io", "v1beta2", "topologies", "Topology", namespaced=False, status=False, crd=True),
    Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False, status=False),
)  # fmt: skip
BY_NAME = {resource.name: resource for resource in RESOURCES}
BY_KIND = {(resource.api_version, resource.kind): resource for resource in RESOURCES}
