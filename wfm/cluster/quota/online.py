"""The same objects from the API server: read, nothing else."""

from typing import Any

from wfm.cluster.api import Api
from wfm.cluster.kinds import WORKLOAD, Resource
from wfm.cluster.refusals import Forbidden, NoSuchResource

_KUEUE = ("kueue.x-k8s.io", "v1beta2")
OF_THE_CLUSTER = (
    Resource(*_KUEUE, "clusterqueues", "ClusterQueue", everywhere=True),
    Resource(*_KUEUE, "cohorts", "Cohort", everywhere=True),
    Resource(*_KUEUE, "resourceflavors", "ResourceFlavor", everywhere=True),
    Resource(*_KUEUE, "topologies", "Topology", everywhere=True),
    Resource(*_KUEUE, "admissionchecks", "AdmissionCheck", everywhere=True),
    Resource(*_KUEUE, "workloadpriorityclasses", "WorkloadPriorityClass", everywhere=True),
    Resource("", "v1", "nodes", "Node", everywhere=True),
    Resource("", "v1", "namespaces", "Namespace", everywhere=True),
)
EVERYWHERE_OR_HERE = (
    WORKLOAD,
    Resource(*_KUEUE, "localqueues", "LocalQueue"),
)
"""Of all namespaces where the account may, for others of the cohort hold what is waited for; else of its own."""
HERE = (
    Resource("", "v1", "limitranges", "LimitRange"),
    Resource("", "v1", "resourcequotas", "ResourceQuota"),
)


def read_objects(api: Api) -> tuple[list[dict[str, Any]], list[str], bool]:
    """(everything that decides about quota, what could not be read and is left out, whether workloads were read)."""
    workloads = False
    found: list[dict[str, Any]] = []
    notes: list[str] = []
    for resource in (*OF_THE_CLUSTER, *HERE):
        try:
            found += _listed(api, resource)
        except (Forbidden, NoSuchResource) as error:
            notes.append(f"{resource} is left out: {error}")
    for resource in EVERYWHERE_OR_HERE:
        try:
            found += _listed(api, resource.of_all_namespaces())
            workloads |= resource is WORKLOAD
        except (Forbidden, NoSuchResource):
            try:
                found += _listed(api, resource)
                workloads |= resource is WORKLOAD
                notes.append(f"{resource} of other namespaces are left out: this account may not list them")
            except (Forbidden, NoSuchResource) as error:
                notes.append(f"{resource} is left out: {error}")
    return found, notes, workloads


def _listed(api: Api, resource: Resource) -> list[dict[str, Any]]:
    """Items of a list say neither kind nor version."""
    version = f"{resource.group}/{resource.version}" if resource.group else resource.version
    return [{**each, "apiVersion": version, "kind": resource.kind} for each in api.list(resource).objects]
