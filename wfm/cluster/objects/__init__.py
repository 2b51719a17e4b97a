"""Requests -> the objects that Kubernetes is given, as plain dicts: pure functions, no templates.

pytorchjob    a training, by the training operator (v1)
trainjob      a training, by Kubeflow Trainer (2.3) on JobSet: where Kueue no longer takes up PyTorchJob
daskjob       a stage over a corpus: workers, a scheduler, and the stage itself as the runner
indexed_job   ranges of a stage's parts, and every stage of one pod
"""

from collections.abc import Sequence

from wfm.cluster.objects import daskjob, indexed_job, pytorchjob, trainjob
from wfm.cluster.pod import Json
from wfm.cluster.request import JobKind, JobRequest, kind_of
from wfm.cluster.settings import ClusterSettings

__all__ = ["RESOURCES", "build"]

RESOURCES: dict[JobKind, tuple[str, str, str]] = {
    "pytorchjob": ("kubeflow.org", "v1", "pytorchjobs"),
    "trainjob": ("trainer.kubeflow.org", "v1alpha1", "trainjobs"),
    "daskjob": ("kubernetes.dask.org", "v1", "daskjobs"),
    "indexed_job": ("batch", "v1", "jobs"),
}
"""Where the API keeps each kind: (group, version, plural)."""
_BUILDERS = {
    "pytorchjob": pytorchjob.build,
    "trainjob": trainjob.build,
    "daskjob": daskjob.build,
    "indexed_job": indexed_job.build,
}


def build(request: JobRequest, settings: ClusterSettings, *, attempt: int = 1, avoid: Sequence[str] = ()) -> Json:
    """The job of a request. ``attempt`` counts its tries from 1 on; ``avoid`` names machines where it failed. Raises
    ConfigError where the settings of the cluster lack something that it needs."""
    return _BUILDERS[kind_of(request, settings)](request, settings, attempt, avoid)
