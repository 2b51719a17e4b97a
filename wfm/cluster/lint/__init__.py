"""Lint: what the schemas of Kubernetes let pass and a cluster punishes later, found before anything is made.

    faults = lint(objects, settings)      # all of them, in the order of the rules
    check(objects, settings)              # raises ConfigError that lists them

A rule is one small function in the file of what it looks at, entered in `RULES` by its name:

`seen`        what rules look at: objects and the pods they would make, which `templates` finds;
              `fault` a rule and what it finds
`stages`      the container that works, its command line, account and priority
`roles`       pods by what they are for: probes, servers
`security`    what a pod may do: root, rights, host, tokens, secrets; `rights` what an account may, who reaches whom
`volumes`     where it writes: /dev/shm, home and caches, claims; `demand` what it asks for, quota
`images`      digests, one set, no code from elsewhere; `naming` names, labels, annotations, namespaces;
              `fields` what no schema knows
`queues`      Kueue's labels, suspend; `flavors` what quota is made of, cohorts, budgets of disruption
`placement`   machines, tolerations, names of peers, owners and finalizers
`training`    ranks, rendezvous, restarts; `dask` workers and idle clusters
`retries`     exit codes, tries, deadlines, grace of jobs
`workflows`   Argo: tries (`expression` evaluates them), time; `graph` what tasks name and leave out; `conditions` when
              and how often they run; `cron` times (`times` reads them)

Objects are plain dicts and may come from outside: a rule never fails on one, whatever it holds.
"""

from collections.abc import Sequence
from typing import Any

from wfm.cluster.lint import (
    conditions,
    cron,
    dask,
    demand,
    fields,
    flavors,
    graph,
    images,
    naming,
    placement,
    queues,
    retries,
    rights,
    roles,
    security,
    stages,
    training,
    volumes,
    workflows,
)
from wfm.cluster.lint.fault import RULES, Fault, Rule, shown
from wfm.cluster.lint.templates import look
from wfm.cluster.settings import ClusterSettings
from wfm.errors import ConfigError
from wfm.log import printable

__all__ = ["FILES", "RULES", "Fault", "Rule", "check", "lint"]

FILES = (
    naming,
    fields,
    roles,
    stages,
    images,
    security,
    rights,
    volumes,
    demand,
    placement,
    queues,
    flavors,
    training,
    dask,
    retries,
    workflows,
    graph,
    conditions,
    cron,
)
"""The files that hold rules."""
_MOST_TOLD = 50


def lint(objects: Sequence[Any], settings: ClusterSettings | None) -> list[Fault]:
    """All faults of objects that belong together (a job; a workflow with its templates, queues and claims). Without settings
    nothing is checked against a cluster's: namespace, queue, images, quota."""
    seen = look(objects, settings)
    faults = [
        Fault(rule.name, printable(found.where), printable(shown(found.value)), printable(found.says))
        for rule in RULES.values()
        for found in rule.look(seen)
    ]
    return list(dict.fromkeys(faults))


def check(objects: Sequence[Any], settings: ClusterSettings | None) -> None:
    """Raises ConfigError that lists every fault: the field, the value, what is wrong and what to do."""
    faults = lint(objects, settings)
    if faults:
        more = f"\n  … and {len(faults) - _MOST_TOLD} more" if len(faults) > _MOST_TOLD else ""
        listed = "\n".join(f"  {fault}" for fault in faults[:_MOST_TOLD])
        raise ConfigError(f"{len(faults)} faults that a cluster would punish later:\n{listed}{more}")
