"""What runs on a cluster beside the API server, as tables (`table`): state, event, next state, and the source that says so.

`pytorchjob`, `trainjob`, `jobset`, `indexed_job`, `dask`, `kueue`, `kueue_workloads`, `nodes` (scheduler, node lifecycle, pod
garbage collector), `garbage` (garbage collector, TTL, deployments). `ALL` are all of them.
"""

from tests.cluster.controllers import (
    dask,
    garbage,
    indexed_job,
    jobset,
    kueue,
    kueue_workloads,
    nodes,
    pytorchjob,
    trainjob,
)
from tests.cluster.controllers.table import Controllers, Options, Row, Table

ALL: tuple[Table, ...] = (
    kueue.JOBS, kueue.PODS, kueue_workloads.TABLE, trainjob.TABLE, jobset.TABLE, pytorchjob.TABLE, indexed_job.TABLE,
    indexed_job.PODS, dask.JOBS, dask.CLUSTER, dask.WORKERS, garbage.DEPLOYMENTS, nodes.SCHEDULER, nodes.NODES, nodes.POD_GC,
    garbage.TTL, garbage.GARBAGE,
)  # fmt: skip

__all__ = ["ALL", "Controllers", "Options", "Row", "Table"]
