"""What a queue's quota is made of: flavours that name their machines, cohorts without a circle; and budgets of disruption."""

from collections.abc import Iterator
from typing import Any

from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.seen import WORKFLOWS, Pod, Seen, Thing, at, rows, table, word, words
from wfm.cluster.names import LABEL_ROLE

_UNCOUNTED = ("Job", "JobSet", "TrainJob", "TrainingRuntime", "ClusterTrainingRuntime", "CronJob", "Pod", *WORKFLOWS)
"""Kinds whose pods have no controller with a scale: a budget in shares, or of unavailable ones, lets none of them go."""
_PASSING = ("stage", "launcher", "pipeline", "planner", "notice")
"""Roles of pods that come and go, of such kinds."""


@rule("flavor", "a flavour is a kind of machine that can be told from others")
def flavor(seen: Seen) -> Iterator[Found]:
    """With devices, or beside another flavour of its group, it has labels of machines: else its quota is spent on any."""
    flavors = {thing.name: thing for thing in seen.of("ResourceFlavor")}
    bare: dict[str, str] = {}
    for thing in seen.of("ClusterQueue"):
        for place, group in rows(thing.content, "spec.resourceGroups"):
            several = [(number, word(each, "name")) for number, each in rows(group, "flavors")]
            devices = any("/" in each for each in words(group, "coveredResources"))
            for number, name in several:
                if flavors and name not in flavors:
                    path = f"spec.resourceGroups.{place}.flavors.{number}.name"
                    says = f"there is no such ResourceFlavor, and the queue stays shut; choices: {', '.join(sorted(flavors))}"
                    yield Found(thing.where(path), name, says)
                elif name in flavors and (devices or len(several) > 1) and not _labels_of(flavors[name]):
                    bare[name] = thing.name
    for name, queue in bare.items():
        says = f"ClusterQueue {queue} would send its pods to any machine: give labels of the machines that are meant"
        yield Found(flavors[name].where("spec.nodeLabels"), at(flavors[name].content, "spec.nodeLabels"), says)


def _labels_of(thing: Thing) -> dict[str, Any]:
    return table(thing.content, "spec.nodeLabels")


@rule("cohort", "cohorts have an end above, and queues a cohort that is there")
def cohort(seen: Seen) -> Iterator[Found]:
    """``parentName`` in a circle stops every queue below it; a name that is nobody's lends nothing."""
    parents = {thing.name: word(thing.content, "spec.parentName") for thing in seen.of("Cohort")}
    for thing in seen.of("Cohort"):
        above, known = parents[thing.name], [thing.name]
        while above and above not in known:
            known.append(above)
            above = parents.get(above, "")
        if above == thing.name:
            says = (
                f"it is its own ancestor ({' -> '.join([*known, above])}), and nothing below is admitted: leave one out"
            )
            yield Found(thing.where("spec.parentName"), parents[thing.name], says)
    for thing in (*seen.of("ClusterQueue"), *seen.of("Cohort")) if parents else ():
        name = "cohortName" if thing.kind == "ClusterQueue" else "parentName"
        value = word(thing.content, f"spec.{name}")
        if value and value not in parents:
            says = f"there is no such Cohort here; choices: {', '.join(sorted(parents))}"
            yield Found(thing.where(f"spec.{name}"), value, says)


@rule("disruption-budget", "a budget lets a machine be drained")
def disruption_budget(seen: Seen) -> Iterator[Found]:
    """At least one pod may go at any time: else a drain waits for the training to end."""
    for thing in seen.of("PodDisruptionBudget"):
        most, least = at(thing.content, "spec.maxUnavailable"), at(thing.content, "spec.minAvailable")
        if (most is None) == (least is None):
            value = None if most is None else {"maxUnavailable": most, "minAvailable": least}
            says = "exactly one of maxUnavailable and minAvailable: give maxUnavailable: 1, or more"
            yield Found(thing.where("spec.maxUnavailable"), value, says)
            continue
        name, given = ("maxUnavailable", most) if least is None else ("minAvailable", least)
        says = _budget_fault(seen, thing, name, given)
        if says:
            yield Found(thing.where(f"spec.{name}"), given, says)
    for thing in seen.of(*WORKFLOWS):
        path = f"{WORKFLOWS[thing.kind]}.podDisruptionBudget"
        if at(thing.content, path) is not None:
            says = "pods of a workflow have no controller that counts them, so it lets none go: leave it out"
            yield Found(thing.where(path), at(thing.content, path), says)


def _budget_fault(seen: Seen, thing: Thing, name: str, given: Any) -> str:
    """What is wrong with what a budget says; empty where a machine can be drained."""
    cure = "give maxUnavailable: 1, or more"
    selected = _selected(seen, thing)
    share = int(given[:-1]) if isinstance(given, str) and given.endswith("%") and given[:-1].isdecimal() else None
    if name == "maxUnavailable" and str(given).removesuffix("%").strip("0") == "":
        return f"no pod may ever go, so no machine is ever drained: {cure}"
    told = table(thing.content, "spec.selector.matchLabels").get(LABEL_ROLE)
    counted = [pod for pod in selected if pod.owner.kind not in _UNCOUNTED]
    if told in _PASSING or len(counted) < len(selected):
        whose = f"pods of role {told}" if told in _PASSING else f"pods of a {_first(selected).owner.kind}"
        if name == "maxUnavailable" or share is not None or told in _PASSING:
            return f"{whose} have no controller that counts them, so it lets none go: leave the budget out"
    if name == "maxUnavailable":
        return ""
    count = sum(pod.replicas for pod in selected)
    # a share is rounded up: 99 % of few pods is all of them
    if share is not None and (share >= 100 or (count and -(-share * count // 100) >= count)):
        return f"no pod of {count or 'them'} may ever go, so no machine is ever drained: {cure}"
    number = given if isinstance(given, int) and not isinstance(given, bool) else None
    if number is not None and count and number >= count:
        return f"no pod of {count} may ever go, so no machine is ever drained: {cure}"
    return ""


def _first(pods: list[Pod]) -> Pod:
    return next(pod for pod in pods if pod.owner.kind in _UNCOUNTED)


def _selected(seen: Seen, budget: Thing) -> list[Pod]:
    """The pods of the set that a budget speaks of; none where that cannot be told. An empty selector is all of them."""
    wanted = table(budget.content, "spec.selector.matchLabels")
    if at(budget.content, "spec.selector") is None or at(budget.content, "spec.selector.matchExpressions"):
        return []
    return [
        pod
        for pod in seen.pods
        if wanted.items() <= {**table(pod.owner.content, "metadata.labels"), **table(pod.metadata, "labels")}.items()
    ]
