"""JobSet: jobs that live and die together."""

import re
from collections.abc import Callable

from tests.cluster.controllers.pods import running
from tests.cluster.controllers.table import GONE, SAME, Row, See, Table
from tests.cluster.server.api import condition, condition_of, holds, set_condition
from tests.cluster.server.storage import Json

RESTARTS = "jobset.sigs.k8s.io/restart-attempt"
_SOURCE = "kubernetes-sigs/jobset@v0.12.0 pkg/controllers/jobset_controller.go "
_FAILURE = "kubernetes-sigs/jobset@v0.12.0 pkg/controllers/failure_policy.go "
_TTL = "kubernetes-sigs/jobset@v0.12.0 pkg/controllers/ttl_after_finished.go "


def state_of(see: See) -> str:
    for kind in ("Completed", "Failed", "Suspended"):
        if holds(see.obj, kind):
            return kind.lower()
    return "running"


def _restarts(see: See) -> int:
    return int(see.status.get("restarts", 0))


def _jobs(see: See, *, now: bool = True) -> list[Json]:
    """Its jobs, of this start or of those before it."""
    found = see.owned("jobs.batch")
    return [job for job in found if (int(job["metadata"]["labels"][RESTARTS]) >= _restarts(see)) == now]


def _ended(see: See, kind: str) -> list[Json]:
    return [job for job in _jobs(see) if holds(job, kind)]


def _live(see: See) -> list[Json]:
    return [job for job in _jobs(see) if not holds(job, "Complete") and not holds(job, "Failed")
            and "deletionTimestamp" not in job["metadata"]]  # fmt: skip


def _wanted(see: See) -> list[tuple[Json, int]]:
    there = {job["metadata"]["name"] for job in see.owned("jobs.batch")}
    return [
        (job, index) for job in see.spec["replicatedJobs"] for index in range(job.get("replicas", 1))
        if f"{see.name}-{job['name']}-{index}" not in there
    ]  # fmt: skip


def _make(see: See) -> None:
    for job, index in _wanted(see):
        name = f"{see.name}-{job['name']}-{index}"
        labels = {
            "jobset.sigs.k8s.io/jobset-name": see.name, "jobset.sigs.k8s.io/replicatedjob-name": job["name"],
            "jobset.sigs.k8s.io/job-index": str(index), RESTARTS: str(_restarts(see)),
        }  # fmt: skip
        template = job["template"]
        spec = {**template["spec"], "suspend": bool(see.spec.get("suspend"))}
        pods = spec["template"] = {**spec["template"]}
        metadata = pods["metadata"] = {**(pods.get("metadata") or {})}
        metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
        see.create("jobs.batch", {"metadata": {"name": name, "labels": labels}, "spec": spec})


def _fits(rule: Json, job: Json) -> bool:
    told = condition_of(job, "Failed")
    reasons, patterns = rule.get("onJobFailureReasons") or (), rule.get("onJobFailureMessagePatterns") or ()
    return (not reasons or told.get("reason") in reasons) and (
        not patterns or any(re.search(pattern, told.get("message", "")) for pattern in patterns)
    )


def _action(see: See) -> str:
    """What the failure policy does about the failed jobs: "" for none to act on."""
    failed = _ended(see, "Failed")
    if not failed:
        return ""
    policy = see.spec.get("failurePolicy")
    if not policy:
        return "FailJobSet"
    rules = [rule for rule in policy.get("rules", ()) if any(_fits(rule, job) for job in failed)]
    action = rules[0]["action"] if rules else "RestartJobSet"
    counted = int(see.status.get("restartsCountTowardsMax", 0))
    if action == "RestartJobSet" and counted >= policy.get("maxRestarts", 0):
        return "FailJobSet"
    return action


def _restart(see: See) -> None:
    def alter(found: Json) -> None:
        status = found["status"]
        status["restarts"] = _restarts(see) + 1
        status["restartsCountTowardsMax"] = status.get("restartsCountTowardsMax", 0) + (_action(see) == "RestartJobSet")

    see.change(alter)


def _conclude(kind: str, reason: str) -> Callable[[See], None]:
    def do(see: See) -> None:
        def alter(found: Json) -> None:
            failed = [job["metadata"]["name"] for job in _ended(see, "Failed")]
            message = f"jobset failed due to one or more job failures (first failed job: {failed[0]})" if failed else ""
            found["status"]["replicatedJobsStatus"] = _statuses(see)
            set_condition(found, condition(kind, "True", reason, message), see.api.time())

        see.change(alter)

    return do


def _suspend_jobs(see: See, wish: bool) -> None:
    for job in _live(see):
        see.api.patch("jobs.batch", see.namespace, job["metadata"]["name"], {"spec": {"suspend": wish}})
    told = condition("Suspended", str(wish), "SuspendedJobs" if wish else "ResumeJobs")
    see.change(lambda found: set_condition(found, told, see.api.time()))


def _statuses(see: See) -> list[Json]:
    found = []
    for job in see.spec["replicatedJobs"]:
        name = job["name"]
        mine = [one for one in _jobs(see) if one["metadata"]["labels"]["jobset.sigs.k8s.io/replicatedjob-name"] == name]
        ready = 0
        for one in mine:
            pods = [each.object for each in see.api.storage.owned(one["metadata"]["uid"], "pods")]
            ready += bool(pods) and sum(running(pod) for pod in pods) >= one["spec"].get("completions", 1)
        found.append({
            "name": name, "ready": int(ready), "succeeded": sum(holds(one, "Complete") for one in mine),
            "failed": sum(holds(one, "Failed") for one in mine),
            "active": sum(bool(one.get("status", {}).get("active")) for one in mine),
            "suspended": sum(bool(one["spec"].get("suspend")) for one in mine),
        })  # fmt: skip
    return found


def _ttl_over(see: See) -> bool:
    ttl = see.spec.get("ttlSecondsAfterFinished")
    ended = condition_of(see.obj, "Completed") or condition_of(see.obj, "Failed")
    return ttl is not None and not see.deleting and see.since(ended.get("lastTransitionTime")) > ttl


def _rows() -> tuple[Row, ...]:
    rows = [
        Row("running", "suspend is set", "suspended", _SOURCE + "suspendJobs", lambda see: see.spec.get("suspend"),
            lambda see: _suspend_jobs(see, True)),
        Row("suspended", "suspend is taken away", "running", _SOURCE + "resumeJobsIfNecessary",
            lambda see: not see.spec.get("suspend"), lambda see: _suspend_jobs(see, False)),
        Row("running", "a job of an earlier start is left", SAME, _SOURCE + "deleteJobs",
            lambda see: [job for job in _jobs(see, now=False) if "deletionTimestamp" not in job["metadata"]],
            lambda see: [see.delete(job, "jobs.batch", propagationPolicy="Foreground") for job in _jobs(see, now=False)]),
        Row("running", "a job failed: FailJobSet, or no restart is left", "failed", _FAILURE + "executeFailurePolicy",
            lambda see: _action(see) == "FailJobSet", _conclude("Failed", "FailedJobs")),
        Row("running", "a job failed: RestartJobSet", SAME, _FAILURE + "failurePolicyRecreateAll",
            lambda see: _action(see).startswith("RestartJobSet"), _restart),
        Row("running", "all jobs are complete", "completed", _SOURCE + "executeSuccessPolicy",
            lambda see: _jobs(see) and len(_ended(see, "Complete"))
            == sum(job.get("replicas", 1) for job in see.spec["replicatedJobs"]),
            _conclude("Completed", "AllJobsCompleted")),
    ]  # fmt: skip
    for state in ("running", "suspended"):
        rows += [
            Row(state, "a job is missing", SAME, _SOURCE + "reconcileReplicatedJobs", _wanted, _make),
            Row(state, "jobs came or went", SAME, _SOURCE + "calculateReplicatedJobStatuses",
                lambda see: see.status.get("replicatedJobsStatus") != _statuses(see),
                lambda see: see.change(lambda found: found["status"].update(replicatedJobsStatus=_statuses(see)))),
        ]  # fmt: skip
    for state in ("completed", "failed"):
        rows += [
            Row(state, "ttlSecondsAfterFinished is over", GONE, _TTL + "executeTTLAfterFinishedPolicy", _ttl_over,
                lambda see: see.delete(see.obj, see.resource, propagationPolicy="Background")),
        ]  # fmt: skip
    rows += [
        Row("failed", "a job is still active", SAME, _SOURCE + "deleteJobs", _live,
            lambda see: [see.delete(job, "jobs.batch", propagationPolicy="Foreground") for job in _live(see)]),
    ]  # fmt: skip
    return tuple(rows)


TABLE = Table("jobset", ("jobsets.jobset.x-k8s.io",), state_of, _rows(), wants=lambda see: not see.deleting)
