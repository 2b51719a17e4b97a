"""What a launcher does at the API server for one of its requests. What is done twice, or from a view that is behind, is refused
there and does no harm: names are fixed, deletions name a uid, patches a version."""

from wfm.cluster.api import Api
from wfm.cluster.entry import LOOK_SECONDS, RESOURCES, Entry, object_of, phases
from wfm.cluster.fields import short
from wfm.cluster.kinds import DASKCLUSTER, DEPLOYMENT, EVENT, POD, SERVICE
from wfm.cluster.names import ANNOTATION_RUNS, LABEL_JOB
from wfm.cluster.pod_states import Pod, read_pod
from wfm.cluster.records import Death
from wfm.cluster.refusals import AlreadyExists, Conflict, Gone, NotFound, QuotaExceeded
from wfm.cluster.settings import ClusterSettings
from wfm.cluster.states import Job, read_job, runs_of
from wfm.cluster.view import Decision, View
from wfm.errors import InputError
from wfm.log import get_logger

ASK_WHY_SECONDS = 30.0
"""A job that has no pods by then is asked why [s]."""
_ASK_AGAIN_SECONDS = 20.0
"""What was asked to go is not asked again before [s]: a mirror may be behind."""
_log = get_logger("wfm.launcher")


class Actions:
    """At one server, for any number of requests; all of them raise what `Api` raises."""

    def __init__(self, api: Api, settings: ClusterSettings) -> None:
        self._api, self._settings = api, settings

    def ask_why(self, entry: Entry, now: float, job: Job) -> None:
        """Of a job without pods: whether its controller may make none, for the quota of the namespace. That is told in events
        alone; where this account may not read them, it is not told."""
        waits = now - max(job.created, job.resumed_at)
        if job.suspended or job.deleting or waits < ASK_WHY_SECONDS or now - entry.asked_why < LOOK_SECONDS:
            return
        entry.asked_why, entry.refused = now, ""
        try:
            for page in self._api.pages(EVENT, fields=f"involvedObject.uid={job.uid}"):
                for event in page.objects:
                    said = short(event.get("message"))
                    if "exceeded quota" in said:
                        entry.refused = f"waiting for quota: {said[:400]}"
        except (InputError, Gone) as error:
            _log.debug("%s: its events are not read: %s", entry.whole.node, error)

    def tell(self, entry: Entry, view: View, death: Death) -> bool:
        """Write down how a try ended; False when it is not so, or another is about to."""
        if death.absent:
            try:
                found = read_pod(self._api.get(POD, death.absent))
            except NotFound:
                found = None
            if found is not None and found.live:
                return False
        records = entry.job_records if death.theirs and entry.job_records is not None else entry.records
        return records.tell(death, entry.whole.key, view.now)

    def now(self, view: View, job: Job) -> Job:
        """A job as it is at this moment. Raises NotFound and Conflict when the view of it is behind."""
        found = read_job(self._api.get(RESOURCES[view.kind], job.name))
        if found is None or found.uid != job.uid:
            raise Conflict("the job is another by now")
        return found

    def note(self, job: Job, run_id: str, view: View, *, there: bool) -> None:
        """Note a run on a job, or take it off, unless the job was changed since it was read."""
        found = self.now(view, job)
        runs = [run for run in runs_of(found) if run != run_id] + ([run_id] if there else [])
        notes = {ANNOTATION_RUNS: ",".join(runs)}
        self._api.patch(
            RESOURCES[view.kind], job.name, {"metadata": {"resourceVersion": found.version, "annotations": notes}}
        )

    def remove(self, entry: Entry, view: View, job: Job) -> None:
        """Ask for the job to go, now and then; for a cancel only as it was seen."""
        if not job.deleting and self._may_ask(entry, job.uid, view.now):
            careful = bool(view.cancelled_by) and not view.committed
            gone = self._api.delete(RESOURCES[view.kind], job.name, uid=job.uid, version=job.version if careful else "")
            if not gone:
                entry.asked.pop(job.uid, None)
            elif entry.fresh is not None and entry.fresh.uid == job.uid:
                entry.fresh = None

    def stop(self, entry: Entry, pod: Pod, grace: float | None, now: float) -> None:
        """Ask a pod to go, with this grace (None: its own), now and then."""
        if self._may_ask(entry, f"{pod.uid}/{grace}", now):
            self._api.delete(POD, pod.name, uid=pod.uid, grace=grace)

    def _may_ask(self, entry: Entry, what: str, now: float) -> bool:
        if now - entry.asked.get(what, -1e18) < _ASK_AGAIN_SECONDS:
            return False
        entry.asked = {name: at for name, at in entry.asked.items() if now - at < 10 * _ASK_AGAIN_SECONDS}
        entry.asked[what] = now
        return True

    def sweep(self, name: str) -> bool:
        """Delete what the operator of Dask leaves behind; True when there is nothing."""
        found = False
        for resource in (DASKCLUSTER, DEPLOYMENT, SERVICE):
            for each in self._api.list(resource, f"{LABEL_JOB}={name}").objects:
                found = True
                self._api.delete(resource, each["metadata"]["name"], uid=each["metadata"]["uid"])
        return not found

    def create(self, entry: Entry, view: View, decision: Decision) -> None:
        """Make the job of the next try, or adopt the one that is there."""
        request = view.request
        if view.now < entry.quota.until:
            return
        for phase in phases(entry.whole):  # mirrors may be behind: no try begins beside the pods of the last one
            if next(self._api.pages(POD, f"{LABEL_JOB}={phase.name(self._settings)}", limit=1)).objects:
                return
        body = object_of(request, self._settings, attempt=decision.create, avoid=decision.avoid)
        resource = RESOURCES[view.kind]
        try:
            made = self._api.create(resource, body)
        except AlreadyExists:
            made = self._api.get(resource, view.name)
        except QuotaExceeded as error:
            entry.quota.failed(view.now, error.retry_after)
            entry.say(view.now, str(error))
            return
        entry.quota.worked()
        entry.fresh, entry.fresh_until = read_job(made), view.now + 30.0
        if entry.fresh is None:
            raise InputError(
                f"a {resource.kind} {view.name} is there already, and it is none of ours (no label {LABEL_JOB}): who made it? "
                "Delete it, or use another namespace"
            )
