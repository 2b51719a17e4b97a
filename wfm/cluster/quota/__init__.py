"""Quota: what jobs will ask a cluster's queues for, whether that can ever be admitted, and what it waits for.

    cluster = read_cluster(objects)                # manifests, or what `online.read` fetched
    for gang in gangs(jobs, settings):
        print(judge(gang, cluster).state)

`amounts`     whole units, as Kueue counts; `matching` labels, taints, selectors
`gangs`       jobs -> what is admitted together; `cluster` manifests -> queues, cohorts, flavours, machines
`capacity`    what a queue could get of its tree of cohorts
`namespace`   LimitRange and ResourceQuota: the other way, without Kueue; `machines` where pods could lie
`admission`   all of it: the verdict on a gang
`packing`     whether several sets of pods find room beside each other
`workloads`   who holds quota and who waits; `wish` for quota, and what makes room for it: `preemption` whom Kueue would put
              out, `fair_sharing` where shares are weighed; `waiting` both, for one gang
`online`      the objects of a cluster's API

Nothing here changes anything. The semantics are Kueue's 0.19; each file names the source or page that it follows, of
github.com/kubernetes-sigs/kueue (pages below site/content/en/docs).
"""

from wfm.cluster.quota.admission import FAILED, Verdict, judge
from wfm.cluster.quota.cluster import Cluster, read_cluster
from wfm.cluster.quota.gangs import Gang, PodSet, gangs

__all__ = ["FAILED", "Cluster", "Gang", "PodSet", "Verdict", "gangs", "judge", "read_cluster"]
