"""Indexed Job: the Job controller of Kubernetes itself."""

from collections.abc import Callable

from tests.cluster.controllers.pods import active, annotations, exit_code, finished_at, from_template, phase
from tests.cluster.controllers.table import SAME, Row, See, Table
from tests.cluster.server.api import condition, condition_of, holds, seconds_of, set_condition
from tests.cluster.server.storage import Json

INDEX, TRACKING = "batch.kubernetes.io/job-completion-index", "batch.kubernetes.io/job-tracking"
FAILURES = "batch.kubernetes.io/job-index-failure-count"
_LONGEST_BACKOFF = 600.0
_JOB = "kubernetes/kubernetes pkg/controller/job/job_controller.go "
_INDEXED = "kubernetes/kubernetes pkg/controller/job/indexed_job_utils.go "
_BACKOFF = "kubernetes/kubernetes pkg/controller/job/backoff_utils.go "
_POLICY = "kubernetes/kubernetes pkg/controller/job/pod_failure_policy.go "


def state_of(see: See) -> str:
    if see.deleting:
        return "deleting"
    ends = (("Complete", "complete"), ("Failed", "failed"), ("FailureTarget", "failing"), ("Suspended", "suspended"))
    for kind, state in ends:
        if holds(see.obj, kind):
            return state
    return "active" if "startTime" in see.status else "new"


def indexes(text: str) -> set[int]:
    """``1,3-5`` -> {1, 3, 4, 5}."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def as_text(numbers: set[int]) -> str:
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}{',' if len(p) == 2 else '-'}{p[-1]}" for p in parts)


def _index(pod: Json) -> int:
    return int(annotations(pod).get(INDEX, 0))


def _tracked(pod: Json) -> bool:
    return TRACKING in (pod["metadata"].get("finalizers") or ())


def _ended(see: See, wanted: str) -> list[Json]:
    """Pods that have ended so and are not counted yet."""
    return [pod for pod in see.pods if phase(pod) == wanted and _tracked(pod)]


def _completions(see: See) -> int:
    return int(see.spec.get("completions", 1))


def _done(see: See, field: str) -> set[int]:
    return indexes(see.status.get(field, ""))


def _action(see: See, pod: Json) -> str:
    """What podFailurePolicy says to a failed pod: the first rule that fits."""
    code = exit_code(pod)
    for rule in (see.spec.get("podFailurePolicy") or {}).get("rules", ()):
        wanted = rule.get("onExitCodes")
        if wanted and code and (code in wanted["values"]) == (wanted["operator"] == "In"):
            return rule["action"]
        if any(condition_of(pod, one["type"]).get("status") == one.get("status", "True")
               for one in rule.get("onPodConditions", ())):  # fmt: skip
            return rule["action"]
    return "Count"


def _failed_with(*actions: str) -> Callable[[See], list[Json]]:
    return lambda see: [pod for pod in _ended(see, "Failed") if _action(see, pod) in actions]


def _release(see: See, pods: list[Json]) -> None:
    for pod in pods:
        finalizers = [one for one in pod["metadata"].get("finalizers", ()) if one != TRACKING]
        see.api.patch("pods", see.namespace, pod["metadata"]["name"], {"metadata": {"finalizers": finalizers or None}})


def _start(see: See) -> None:
    see.change(lambda job: job["status"].update(startTime=see.api.time()))


def _suspend(see: See) -> None:
    for pod in see.pods:
        if active(pod):
            see.delete(pod)

    def alter(job: Json) -> None:
        job["status"].pop("startTime", None)
        job["status"]["active"] = 0
        set_condition(job, condition("Suspended", "True", "JobSuspended", "Job suspended"), see.api.time())

    see.change(alter)


def _resume(see: See) -> None:
    def alter(job: Json) -> None:
        set_condition(job, condition("Suspended", "False", "JobResumed", "Job resumed"), see.api.time())
        job["status"]["startTime"] = see.api.time()

    see.change(alter)


def _count_good(see: See) -> None:
    pods = _ended(see, "Succeeded")

    def alter(job: Json) -> None:
        status = job["status"]
        status["completedIndexes"] = as_text(_done(see, "completedIndexes") | {_index(pod) for pod in pods})
        status["succeeded"] = len(indexes(status["completedIndexes"]))

    _release(see, pods)
    see.change(alter)


def _count_bad(see: See) -> None:
    """With backoffLimitPerIndex an index has its own count, which its next pod carries."""
    pods, limit = _failed_with("Count", "FailIndex")(see), see.spec.get("backoffLimitPerIndex")
    lost = {
        _index(pod) for pod in pods
        if limit is not None and (_action(see, pod) == "FailIndex" or int(annotations(pod).get(FAILURES, 0)) + 1 > limit)
    }  # fmt: skip

    def alter(job: Json) -> None:
        job["status"]["failed"] = job["status"].get("failed", 0) + len(pods)
        if lost:
            job["status"]["failedIndexes"] = as_text(_done(see, "failedIndexes") | lost)

    _release(see, pods)
    see.change(alter)


def _failing(reason: str, message: str) -> Callable[[See], None]:
    return lambda see: see.change(
        lambda job: set_condition(job, condition("FailureTarget", "True", reason, message), see.api.time())
    )


def _fail_job(see: See) -> None:
    pod = _failed_with("FailJob")(see)[0]
    message = (
        f"Container {pod['spec']['containers'][0]['name']} for pod {see.namespace}/{pod['metadata']['name']} failed with exit "
        f"code {exit_code(pod)} matching FailJob rule at index 0"
    )
    _failing("PodFailurePolicy", message)(see)


def _end(kind: str) -> Callable[[See], None]:
    def do(see: See) -> None:
        def alter(job: Json) -> None:
            now, why = see.api.time(), condition_of(job, "FailureTarget")
            job["status"]["active"] = 0
            if kind == "Complete":
                job["status"]["completionTime"] = now
                set_condition(job, condition("SuccessCriteriaMet", "True", "CompletionsReached", ""), now)
            set_condition(job, condition(kind, "True", why.get("reason", ""), why.get("message", "")), now)

        see.change(alter)
        see.event("Completed" if kind == "Complete" else "BackoffLimitExceeded", f"Job {kind.lower()}")

    return do


def _holding(see: See) -> list[Json]:
    """Pods that stand in the way of another of their index: with podReplacementPolicy Failed also those that still end."""
    waits = see.spec.get("podReplacementPolicy") == "Failed" or see.spec.get("podFailurePolicy")
    return [pod for pod in see.pods if active(pod) or (waits and phase(pod) not in ("Succeeded", "Failed"))]


def _wanted(see: See) -> list[int]:
    """Indexes that get a pod now, each after its back-off."""
    held = [_index(pod) for pod in _holding(see)]
    there = _done(see, "completedIndexes") | _done(see, "failedIndexes") | set(held)
    room = int(see.spec.get("parallelism", 1)) - len(held)
    found = [index for index in range(_completions(see)) if index not in there and _rested(see, index)]
    return found[: max(room, 0)]


def _rested(see: See, index: int) -> bool:
    counted = [
        pod for pod in see.pods if phase(pod) == "Failed" and _index(pod) == index and _action(see, pod) != "Ignore"
    ]
    if not counted:
        return True
    wait = min(see.options.job_backoff * 2.0 ** (len(counted) - 1), _LONGEST_BACKOFF)
    return see.now - max(seconds_of(finished_at(pod)) for pod in counted) >= wait


def _make_pods(see: See) -> None:
    for index in _wanted(see):
        before = [pod for pod in see.pods if _index(pod) == index and phase(pod) == "Failed"]
        counted = sum(_action(see, pod) != "Ignore" for pod in before)
        labels = {
            "batch.kubernetes.io/job-name": see.name, "job-name": see.name, "batch.kubernetes.io/controller-uid": see.uid,
            INDEX: str(index),
        }  # fmt: skip
        pod = from_template(
            see.spec["template"], f"{see.name}-{index}-", labels=labels, env={"JOB_COMPLETION_INDEX": str(index)},
            finalizers=[TRACKING],
        )  # fmt: skip
        pod["metadata"]["annotations"] |= {INDEX: str(index), FAILURES: str(counted)}
        see.create("pods", pod)


def _over_deadline(see: See) -> bool:
    limit = see.spec.get("activeDeadlineSeconds")
    return limit is not None and see.since(see.status.get("startTime")) >= limit


def _all_in(see: See) -> bool:
    return len(_done(see, "completedIndexes") | _done(see, "failedIndexes")) >= _completions(see)


def _active(see: See) -> int:
    return sum(active(pod) for pod in see.pods)


ROWS = (
    Row("new", "the controller sees it", "active", _JOB + "syncJob", lambda see: not see.spec.get("suspend"), _start),
    Row("new", "the controller sees it, suspended", "suspended", _JOB + "syncJob", lambda see: True, _suspend),
    Row("suspended", "suspend is taken away: StartTime is set anew", "active", _JOB + "syncJob",
        lambda see: not see.spec.get("suspend"), _resume),
    Row("active", "suspend is set: its active pods are deleted", "suspended", _JOB + "manageJob",
        lambda see: see.spec.get("suspend"), _suspend),
    Row("suspended", "a deleted pod has ended", SAME, _JOB + "trackJobStatusAndRemoveFinalizers",
        lambda see: [pod for pod in see.pods if _tracked(pod) and phase(pod) == "Failed"],
        lambda see: _release(see, [pod for pod in see.pods if _tracked(pod) and phase(pod) == "Failed"])),
    Row("active", "a pod succeeded", SAME, _INDEXED + "calculateSucceededIndexes",
        lambda see: _ended(see, "Succeeded"), _count_good),
    Row("active", "a pod failed: rule FailJob", "failing", _POLICY + "matchPodFailurePolicy",
        _failed_with("FailJob"), _fail_job),
    Row("active", "a pod failed: rule Ignore, it counts for nothing", SAME, _POLICY + "matchPodFailurePolicy",
        _failed_with("Ignore"), lambda see: _release(see, _failed_with("Ignore")(see))),
    Row("active", "a pod failed: it counts against its index or the job", SAME, _BACKOFF + "getIndexFailureCount",
        _failed_with("Count", "FailIndex"), _count_bad),
    Row("active", "activeDeadlineSeconds after StartTime", "failing", _JOB + "pastActiveDeadline", _over_deadline,
        _failing("DeadlineExceeded", "Job was active longer than specified deadline")),
    Row("active", "failed pods exceed backoffLimit", "failing", _JOB + "syncJob",
        lambda see: see.spec.get("backoffLimitPerIndex") is None
        and see.status.get("failed", 0) > see.spec.get("backoffLimit", 6),
        _failing("BackoffLimitExceeded", "Job has reached the specified backoff limit")),
    Row("active", "failed indexes exceed maxFailedIndexes", "failing", _JOB + "syncJob",
        lambda see: see.spec.get("maxFailedIndexes") is not None
        and len(_done(see, "failedIndexes")) > see.spec["maxFailedIndexes"],
        _failing("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes")),
    Row("active", "every index has succeeded", "complete", _JOB + "enactJobFinished",
        lambda see: _all_in(see) and not _done(see, "failedIndexes"), _end("Complete")),
    Row("active", "every index is through, some failed", "failing", _JOB + "syncJob", _all_in,
        _failing("FailedIndexes", "Job has failed indexes")),
    Row("active", "an index has no pod", SAME, _INDEXED + "firstPendingIndexes", _wanted, _make_pods),
    Row("active", "pods came or went", SAME, _JOB + "syncJob", lambda see: see.status.get("active", 0) != _active(see),
        lambda see: see.change(lambda job: job["status"].update(active=_active(see)))),
    Row("failing", "a pod is active: it is deleted", SAME, _JOB + "deleteActivePods", _active,
        lambda see: [see.delete(pod) for pod in see.pods if active(pod)]),
    Row("failing", "an ended pod is not released", SAME, _JOB + "trackJobStatusAndRemoveFinalizers",
        lambda see: [pod for pod in see.pods if _tracked(pod) and phase(pod) in ("Succeeded", "Failed")],
        lambda see: _release(see, [pod for pod in see.pods if _tracked(pod) and phase(pod) in ("Succeeded", "Failed")])),
    Row("failing", "no pod is left that runs", "failed", _JOB + "enactJobFinished",
        lambda see: not [pod for pod in see.pods if phase(pod) not in ("Succeeded", "Failed")], _end("Failed")),
)  # fmt: skip
TABLE = Table("indexed job", ("jobs.batch",), state_of, ROWS)


def _orphan_state(see: See) -> str:
    return "tracked" if _tracked(see.obj) else "released"


def _orphaned(see: See) -> bool:
    owners = [one for one in see.meta.get("ownerReferences", ()) if one["kind"] == "Job"]
    jobs = [see.api.find("jobs.batch", see.namespace, one["name"]) for one in owners]
    return not any(
        job and job["metadata"]["uid"] == one["uid"] and "deletionTimestamp" not in job["metadata"]
        for job, one in zip(jobs, owners, strict=True)
    )


PODS = Table(
    "job's orphans",
    ("pods",),
    _orphan_state,
    (
        Row("tracked", "its job is gone or being deleted", "released", _JOB + "syncOrphanPod", _orphaned,
            lambda see: _release(see, [see.obj])),
    ),
)  # fmt: skip
