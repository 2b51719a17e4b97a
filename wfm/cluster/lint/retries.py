"""Tries and time of jobs: what an exit code means, how often, how long, and how much notice a pod gets."""

import re
from collections.abc import Iterator
from typing import Any

from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.quantity import seconds, whole
from wfm.cluster.lint.seen import (
    FOLLOWERS,
    SERVERS,
    STAGE_ROLES,
    WORKFLOWS,
    Container,
    Pod,
    Seen,
    Thing,
    at,
    rows,
    table,
    word,
)
from wfm.cluster.names import ANNOTATION_TIMEOUT
from wfm.errors import Cancelled, InputError, TryAgain

_FINAL = InputError.exit_code
_PASSING = (TryAgain.exit_code, Cancelled.exit_code, 137)
"""Codes after which another try may go through: a passing trouble, SIGTERM, SIGKILL."""
_LEAST_KEPT = 3600
"""A launcher may be away for so long [s] (its own machine was drained) and must still find how a job ended."""
_ENDS = ("FailJob", "FailIndex")
_MOST_TRIES, _MOST_RESTARTS = 100, 10
_LEAST_GRACE, _USUAL_GRACE = 10, 30
"""What a launcher needs to let go; what Kubernetes gives, and a stage reckons with, where nobody says otherwise [s]."""
_MOST_SPARE = 60
"""How much longer than the grace that a stage was told a pod may be left [s]: it holds its devices so long."""
_MAX_EXECUTION = "kueue.x-k8s.io/max-exec-time-seconds"
_JOB_TIMES = {"PyTorchJob": "spec.runPolicy", "TrainJob": "spec", "Job": "spec"}


@rule("final-exit-code", "wrong input is final")
def final_exit_code(seen: Seen) -> Iterator[Found]:
    """Exit code 78 ends a job, whatever comes first in its policy; nothing is tried again without a bound."""
    for pod, path, job in _jobs(seen):
        policies = rows(job, "podFailurePolicy.rules")
        verdict = _verdict(pod, policies, _FINAL)
        where = pod.owner.where(f"{path}.podFailurePolicy.rules")
        if verdict not in _ENDS and not (pod.role in FOLLOWERS and job.get("backoffLimit") == 0):
            says = f"exit code {_FINAL} (wrong input) comes to {verdict}: the first rule for it must be FailJob or FailIndex"
            yield Found(where, [_short(each) for _, each in policies] or None, says)
        for place, each in policies:
            if pod.role in FOLLOWERS:
                continue
            if each.get("action") == "Ignore" and "onExitCodes" in each and verdict in _ENDS:
                says = "what is ignored is tried again for ever: Count, FailIndex or FailJob; Ignore is for DisruptionTarget"
                yield Found(f"{where}.{place}", _short(each), says)


@rule("passing-exit-code", "a passing trouble is tried again")
def passing_exit_code(seen: Seen) -> Iterator[Found]:
    """75, 143 and 137 end no range for good, and a machine that was taken away counts for nothing."""
    for pod, path, job in _jobs(seen):
        if pod.role != "index":
            continue
        policies = rows(job, "podFailurePolicy.rules")
        where = pod.owner.where(f"{path}.podFailurePolicy.rules")
        for code in _PASSING:
            if _verdict(pod, policies, code) in _ENDS:
                says = f"exit code {code} may go through at the next try, but is final here: let it be counted"
                yield Found(where, [_short(each) for _, each in policies], says)
                break
        disrupted = next((word(each, "action") for _, each in policies if _is_disruption(each)), "Count")
        if policies and disrupted != "Ignore":
            says = "a drained machine is nobody's fault: {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}"
            yield Found(f"{where}[DisruptionTarget]", disrupted, says)


@rule("job-indices", "an Indexed Job has a pod for each index, and bounds for each")
def job_indices(seen: Seen) -> Iterator[Found]:
    """Indexed, completions, no more side by side than there are, a bound for each index, and all of them to the end."""
    for thing in seen.of("Job"):
        spec = table(thing.content, "spec")
        if not seen.is_of_a_stage(thing):
            continue
        if spec.get("completionMode") != "Indexed":
            says = "Indexed: else no pod knows its range, and one index that fails ends the others"
            yield Found(thing.where("spec.completionMode"), spec.get("completionMode"), says)
        completions, parallelism = whole(spec.get("completions")), whole(spec.get("parallelism"))
        if completions is None or completions < 1:
            yield Found(
                thing.where("spec.completions"), spec.get("completions"), "give the number of ranges, 1 or more"
            )
        elif parallelism is None or not 1 <= parallelism <= completions:
            says = f"give 1 to {completions} (completions): more are asked of the queue and never used, 0 never runs"
            yield Found(thing.where("spec.parallelism"), spec.get("parallelism"), says)
        yield from _ranges(seen, thing, completions)
        limit = whole(spec.get("backoffLimitPerIndex"))
        if limit is None or limit < 0:
            says = "give the further tries of a range, 0 or more: without it one range uses up the tries of all"
            yield Found(thing.where("spec.backoffLimitPerIndex"), spec.get("backoffLimitPerIndex"), says)
        elif limit > (most := _MOST_TRIES if _in_ranges(seen, thing) else 0):
            says = f"give {most} at most: tries of a stage that is no range are made, and counted, by the launcher"
            yield Found(thing.where("spec.backoffLimitPerIndex"), spec.get("backoffLimitPerIndex"), says)
        elif "backoffLimit" in spec and (whole(spec["backoffLimit"]) or 0) < (completions or 1) * (limit + 1):
            says = "it ends the whole job before backoffLimitPerIndex does: leave it out"
            yield Found(thing.where("spec.backoffLimit"), spec["backoffLimit"], says)
        if spec.get("successPolicy") is not None:
            says = "some ranges would be cut off and count as done: leave it out"
            yield Found(thing.where("spec.successPolicy"), spec["successPolicy"], says)


def _in_ranges(seen: Seen, thing: Thing) -> bool:
    """Whether its pods make ranges; also of what is no command line of a stage at all."""
    mains = [pod.main for pod in seen.pods_of(thing) if pod.main]
    return not any("components." in main.command and "--parts" not in main.command for main in mains)


def _ranges(seen: Seen, thing: Thing, completions: int | None) -> Iterator[Found]:
    """An index for each range of ``--parts i/n``: fewer leave ranges undone, and more than one without ranges double it."""
    for pod in seen.pods_of(thing):
        if pod.main is None:
            continue
        asked = re.search(r"--parts[ =]\S*?/(\d{1,9})\b", pod.main.command)
        count = int(asked[1]) if asked else 1
        if completions is not None and completions != count:
            says = f"the command line asks for {count} ranges: give as many"
            yield Found(thing.where("spec.completions"), completions, says)
        elif asked and not re.search(
            r"--parts[ =](JOB_COMPLETION_INDEX|\$\(JOB_COMPLETION_INDEX\))/", pod.main.command
        ):
            says = f"JOB_COMPLETION_INDEX/{count}: else each pod makes the same range, and the others are never made"
            yield Found(f"{pod.main.where}.command[--parts]", asked[0], says)


@rule("job-selector", "a job finds its own pods, and no others")
def job_selector(seen: Seen) -> Iterator[Found]:
    """No selector of one's own: pods of another job with these labels would be counted, and deleted. A Deployment's is that of
    its pods."""
    for thing in seen.of("Job", "CronJob"):
        base = "spec.jobTemplate.spec" if thing.kind == "CronJob" else "spec"
        for name in ("manualSelector", "selector"):
            given = at(thing.content, f"{base}.{name}")
            if given not in (None, False):
                says = "it takes up pods of other jobs: leave it out, the API server makes one"
                yield Found(thing.where(f"{base}.{name}"), given, says)
                break
    for thing in seen.of("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"):
        wanted, labels = (
            table(thing.content, "spec.selector.matchLabels"),
            table(thing.content, "spec.template.metadata.labels"),
        )
        if not wanted.items() <= labels.items():
            says = f"its pods bear {labels or 'no labels'}, and the API server refuses it: name labels of theirs"
            yield Found(thing.where("spec.selector.matchLabels"), wanted, says)


@rule("pod-replacement", "no second pod while the first still ends")
def pod_replacement(seen: Seen) -> Iterator[Found]:
    """``podReplacementPolicy: Failed``: two pods of one index would fight for the lease, and for the devices."""
    for pod, path, job in _jobs(seen):
        if pod.role in FOLLOWERS:
            continue  # two of them share the one job of a key
        value = job.get("podReplacementPolicy")
        if value not in (None, "Failed") or (value is None and "podFailurePolicy" not in job):
            says = (
                "Failed: with TerminatingOrFailed two pods hold devices for one index, and podFailurePolicy is refused"
            )
            yield Found(pod.owner.where(f"{path}.podReplacementPolicy"), value, says)


@rule("job-set-restarts", "a JobSet starts nothing again that is final")
def job_set_restarts(seen: Seen) -> Iterator[Found]:
    """A gang that failed by its policy ends; restarts are few, and success is that of all."""
    bases = {"JobSet": "spec", "TrainingRuntime": "spec.template.spec", "ClusterTrainingRuntime": "spec.template.spec"}
    for pod, path, job in _jobs(seen):
        if pod.owner.kind in bases and whole(job.get("backoffLimit")) != 0:
            says = "0: a rank that comes back alone meets nobody, and nobody counts it as a try"
            yield Found(pod.owner.where(f"{path}.backoffLimit"), job.get("backoffLimit"), says)
    for thing in seen.of(*bases):
        base = bases[thing.kind]
        policy = table(thing.content, f"{base}.failurePolicy")
        path = f"{base}.failurePolicy"
        for place, each in rows(policy, "rules"):
            if word(each, "action").endswith("AndIgnoreMaxRestarts"):
                says = "nothing bounds it: RestartJobSet or RestartJob, which maxRestarts bounds"
                yield Found(thing.where(f"{path}.rules.{place}.action"), each["action"], says)
        fits = (each for _, each in rows(policy, "rules") if _fits_policy(each))
        final = next(
            (word(each, "action") for each in fits), "RestartJobSet" if policy.get("maxRestarts") else "FailJobSet"
        )
        if final != "FailJobSet" and not final.endswith("AndIgnoreMaxRestarts"):
            says = (
                f"what podFailurePolicy ended (wrong input) comes to {final}: put FailJobSet for PodFailurePolicy first"
            )
            yield Found(thing.where(path), policy, says)
        if (whole(policy.get("maxRestarts", 0)) or 0) > _MOST_RESTARTS:
            says = f"give {_MOST_RESTARTS} at most: the launcher counts tries, and these are not counted"
            yield Found(thing.where(f"{path}.maxRestarts"), policy["maxRestarts"], says)
        if at(thing.content, f"{base}.successPolicy.operator") == "Any":
            says = "All: else the first job that is through ends the others"
            yield Found(thing.where(f"{base}.successPolicy.operator"), "Any", says)


@rule("deadline", "the last stop of a job comes after all that it may take")
def deadline(seen: Seen) -> Iterator[Found]:
    """``activeDeadlineSeconds`` covers an attempt and all that comes before it; Kueue's queue counts for nothing there."""
    patience = seen.settings.patience
    before = patience.unschedulable_seconds + patience.image_pull_seconds + patience.start_seconds
    for thing in seen.of(*_JOB_TIMES, "DaskJob"):
        pods = [pod for pod in seen.pods_of(thing) if pod.role in STAGE_ROLES]
        if not pods:
            continue
        told = table(thing.content, "metadata.annotations").get(ANNOTATION_TIMEOUT)
        run = seconds(told)
        if run is None or run <= 0:
            says = "give the seconds that an attempt may take, as text: deadlines are checked against it"
            yield Found(thing.where(f"metadata.annotations[{ANNOTATION_TIMEOUT}]"), told, says)
            continue
        least = run + before
        says = (
            f"give {least:.0f} s or more: {run:.0f} for an attempt and {before:.0f} for machine, image and other pods"
        )
        if thing.kind in _JOB_TIMES:
            path = f"{_JOB_TIMES[thing.kind]}.activeDeadlineSeconds"
            given = seconds(at(thing.content, path))
            if given is None or given < least:
                yield Found(thing.where(path), at(thing.content, path), says)
        for pod in pods:
            given = pod.content.get("activeDeadlineSeconds")
            if given is not None and (seconds(given) or 0) < least:
                yield Found(pod.where("activeDeadlineSeconds"), given, says)
        label = table(thing.content, "metadata.labels").get(_MAX_EXECUTION)
        if label is not None and (seconds(label) or 0) < least:
            yield Found(thing.where(f"metadata.labels[{_MAX_EXECUTION}]"), label, says)


@rule("kept-after-end", "a job that has ended stays until a launcher has seen it")
def kept_after_end(seen: Seen) -> Iterator[Found]:
    """A launcher whose own machine was drained must still find how the job ended."""
    paths: dict[str, tuple[str, ...]] = {
        "PyTorchJob": ("spec.runPolicy.ttlSecondsAfterFinished",),
        "Job": ("spec.ttlSecondsAfterFinished",),
    }
    paths["JobSet"] = paths["Job"]
    for kind, base in WORKFLOWS.items():
        names = ("secondsAfterCompletion", "secondsAfterSuccess", "secondsAfterFailure")
        paths[kind] = tuple(f"{base}.ttlStrategy.{name}" for name in names)
    for thing in seen.of(*paths):
        for path in paths[thing.kind]:
            value = at(thing.content, path)
            if value is not None and (whole(value) or 0) < _LEAST_KEPT:
                says = f"give {_LEAST_KEPT} s or more, or leave it out: a launcher that was away finds nothing"
                yield Found(thing.where(path), value, says)


@rule("grace", "a pod that must go has the time to keep its work")
def grace(seen: Seen) -> Iterator[Found]:
    """``terminationGracePeriodSeconds`` covers what the stage was told it has, after whatever a hook takes."""
    for pod in seen.furnished:
        given = pod.content.get("terminationGracePeriodSeconds")
        if pod.main is None or pod.role in SERVERS:
            continue
        if pod.role not in (*STAGE_ROLES, "stage"):
            if given is not None and (seconds(given) or 0) < _LEAST_GRACE:
                says = f"give {_LEAST_GRACE} or more: it is killed before it has let go of what it holds"
                yield Found(pod.where("terminationGracePeriodSeconds"), given, says)
            continue
        told = seconds(pod.main.value("WFM_GRACE_SECONDS"))
        if pod.role == "stage":  # Argo has no field for it, only a patch
            told, given = told or _USUAL_GRACE, _USUAL_GRACE if given is None else given
        if not told:
            says = "tell the stage how many seconds it has after SIGTERM: what terminationGracePeriodSeconds says"
            yield Found(f"{pod.main.where}.env[WFM_GRACE_SECONDS]", pod.main.value("WFM_GRACE_SECONDS") or None, says)
            continue
        eaten = 0.0
        for each in pod.containers:
            hook = at(each.content, "lifecycle.preStop")
            if hook is None:
                continue
            slept = seconds(at(hook, "sleep.seconds"))
            if slept is None:
                says = "nobody knows how long it takes, and the grace runs meanwhile: leave it out, or sleep for some seconds"
                yield Found(f"{each.where}.lifecycle.preStop", hook, says)
            eaten = max(eaten, slept or 0.0)
        if given is None or (seconds(given) or 0) < told + eaten:
            more = f" and {eaten:.0f} for its preStop hook" if eaten else ""
            says = f"give {told + eaten:.0f} or more: {told:.0f} for a checkpoint (WFM_GRACE_SECONDS){more}"
            yield Found(pod.where("terminationGracePeriodSeconds"), given, says)
        elif (seconds(given) or 0) > told + eaten + _MOST_SPARE:
            says = f"give {told + eaten:.0f}: a stage that does not end holds its devices for so long after a cancel"
            yield Found(pod.where("terminationGracePeriodSeconds"), given, says)


def _jobs(seen: Seen) -> Iterator[tuple[Pod, str, dict[str, Any]]]:
    """Every spec of a batch/v1 Job that runs or launches a stage, by itself or in a JobSet: its pod, its path, itself."""
    for pod in seen.pods:
        owner = pod.owner.kind in ("Job", "JobSet", "TrainingRuntime", "ClusterTrainingRuntime")
        if owner and pod.main and pod.role in ("index", "rank", *FOLLOWERS):
            path = pod.path.removesuffix(".template.spec")
            yield pod, path, table(pod.owner.content, path)


def _verdict(pod: Pod, policies: list[tuple[int, dict[str, Any]]], code: int) -> str:
    """What becomes of a pod whose main container ends so: the first rule that fits holds, else it is counted."""
    main: Container | None = pod.main
    name = word(main.content, "name") if main else ""
    for _, each in policies:
        on = at(each, "onExitCodes")
        if not isinstance(on, dict) or word(on, "containerName") not in ("", name):
            continue
        values = on.get("values")
        listed = isinstance(values, list) and code in values
        if listed if on.get("operator") == "In" else (on.get("operator") == "NotIn" and not listed):
            return word(each, "action") or "Count"
    return "Count"


def _is_disruption(each: dict[str, Any]) -> bool:
    return any(
        word(one, "type") == "DisruptionTarget" and word(one, "status") in ("", "True")
        for _, one in rows(each, "onPodConditions")
    )


def _fits_policy(each: dict[str, Any]) -> bool:
    """Whether a rule of a JobSet is meant for a job that failed by its podFailurePolicy (no reasons mean any)."""
    reasons = each.get("onJobFailureReasons")
    return not reasons or (isinstance(reasons, list) and "PodFailurePolicy" in reasons)


def _short(each: dict[str, Any]) -> dict[str, Any]:
    on = table(each, "onExitCodes")
    return {
        "action": each.get("action"),
        **({"operator": on.get("operator"), "values": on.get("values")} if on else {}),
    }
