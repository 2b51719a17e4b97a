"""Argo's workflows: their tries, their time, their graph, and what they keep."""

import re
from collections.abc import Iterator
from typing import Any

from wfm.cluster.lint.expression import evaluate
from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.quantity import seconds, whole
from wfm.cluster.lint.seen import FOLLOWERS, WORKFLOWS, Pod, Seen, Thing, at, rows, table, word
from wfm.cluster.lint.templates import patched
from wfm.errors import InputError

_OURS = re.compile(r"(^|[\s/.;&|('\"])(wfm|components|pipelines)\b")
_MOST_TRIES = 100
_LEAST_DAY = 86400
"""A workflow with a launcher may wait for the queue for days; what ends sooner counts that as run time [s]."""
_LEAST_DELAY = 60
_PATCHABLE = {"terminationGracePeriodSeconds", "enableServiceLinks", "runtimeClassName", "topologySpreadConstraints"}
_ENDS: tuple[tuple[str, str, str, str, bool], ...] = (
    ("wrong input", "Failed", str(InputError.exit_code), "Error (exit code 78)", False),
    ("a passing trouble", "Failed", "75", "Error (exit code 75)", True),
    ("SIGTERM", "Failed", "143", "Error (exit code 143)", True),
    ("SIGKILL", "Failed", "137", "Error (exit code 137)", True),
    ("an eviction", "Failed", "-1", "The node was low on resource: memory.", True),
    ("a deleted pod", "Error", "-1", "pod deleted", True),
)
"""(what happened, status, exit code, message, whether it is tried again)."""


def flows(seen: Seen) -> Iterator[tuple[Thing, str, dict[str, Any]]]:
    """Each workflow that has templates of its own: the object, where the workflow stands in it, the workflow."""
    for thing in seen.of(*WORKFLOWS):
        base = WORKFLOWS[thing.kind]
        flow = table(thing.content, base)
        if rows(flow, "templates"):
            yield thing, base, flow


@rule("retry-limit", "tries are counted and bounded")
def retry_limit(seen: Seen) -> Iterator[Found]:
    """Each ``retryStrategy`` has a ``limit``, a whole number; each pod of a workflow has a strategy."""
    for thing, path, strategy in _strategies(seen):
        number = whole(strategy.get("limit"))
        if number is None or not 0 <= number <= _MOST_TRIES:
            says = f"give the tries after the first, 0 to {_MOST_TRIES}: without it there is no end to them"
            yield Found(thing.where(f"{path}.limit"), strategy.get("limit"), says)
    for pod in _pods(seen):
        flow = table(pod.owner.content, WORKFLOWS[pod.owner.kind])
        if not (table(pod.content, "retryStrategy") or table(flow, "retryStrategy")):
            says = "an evicted pod ends the run: give limit, expression and backoff"
            yield Found(pod.where("retryStrategy"), None, says)


@rule("retry-policy", "one thing decides about a try: the expression")
def retry_policy(seen: Seen) -> Iterator[Found]:
    """A policy beside an expression must hold too: with OnFailure a lost machine (Error) is never tried again."""
    for thing, path, strategy in _strategies(seen):
        if strategy.get("retryPolicy") is not None:
            says = "leave it out: beside an expression both must hold, and alone it knows no exit codes"
            yield Found(thing.where(f"{path}.retryPolicy"), strategy["retryPolicy"], says)


@rule("retry-expression", "what is final is never tried again, what passes is")
def retry_expression(seen: Seen) -> Iterator[Found]:
    """The expression is evaluated for each way that a pod may end."""
    for thing, path, strategy in _strategies(seen):
        where, text = thing.where(f"{path}.expression"), strategy.get("expression")
        if not isinstance(text, str) or not text.strip():
            says = "give one over lastRetry.status, .exitCode and .message: without it wrong input is tried again"
            yield Found(where, text, says)
            continue
        for what, status, code, message, wanted in _ENDS:
            names = {"lastRetry.status": status, "lastRetry.exitCode": code, "lastRetry.message": message}
            try:
                given = evaluate(text, {**names, "lastRetry.duration": "60", "retries": "0"})
            except ValueError as error:
                yield Found(where, text, f"it cannot be vouched for: {error}")
                break
            if given is not wanted:
                not_ = "tried again, and may never be" if not wanted else "not tried again, though it may go through"
                yield Found(where, text, f"{what} (status {status}, exit code {code}) is {not_}")
                break


@rule("retry-backoff", "tries keep a distance")
def retry_backoff(seen: Seen) -> Iterator[Found]:
    """``backoff.duration``, and a factor of 1 or more."""
    for thing, path, strategy in _strategies(seen):
        backoff = table(strategy, "backoff")
        if not seconds(backoff.get("duration")):
            says = "give a span such as 30s: a trouble that passes has not passed at once"
            yield Found(thing.where(f"{path}.backoff.duration"), backoff.get("duration"), says)
        factor = backoff.get("factor")
        if factor is not None and (whole(factor) or 0) < 1:
            yield Found(thing.where(f"{path}.backoff.factor"), factor, "give a whole number, 1 or more")
        span, tries = seconds(backoff.get("duration")) or 0, min(whole(strategy.get("limit")) or 0, _MOST_TRIES)
        if not {"maxDuration", "cap"} & set(backoff) and span * float(whole(factor) or 1) ** (tries - 1) > _LEAST_DAY:
            says = "give one, such as 10m: with this factor and limit the last waits take days"
            yield Found(thing.where(f"{path}.backoff.cap"), None, says)
        for name in ("maxDuration", "cap"):
            longest = seconds(backoff.get(name))
            if name in backoff and (longest is None or longest < (seconds(backoff.get("duration")) or 0)):
                says = "it ends before the first wait does: give a longer span, or leave it out"
                yield Found(thing.where(f"{path}.backoff.{name}"), backoff[name], says)


@rule("pending-timeout", "a pod that cannot start does not wait for ever")
def pending_timeout(seen: Seen) -> Iterator[Found]:
    """Argo never fails ImagePullBackOff, nor a pod without room."""
    for pod in _pods(seen):
        if not seconds(pod.content.get("pendingTimeout")):
            says = "give a span such as 15m: a pod whose image is not there waits for ever"
            yield Found(pod.where("pendingTimeout"), pod.content.get("pendingTimeout"), says)


@rule("launcher-deadline", "time in the queue is no run time")
def launcher_deadline(seen: Seen) -> Iterator[Found]:
    """A launcher has bounds of its own; the workflow as a whole has a last stop of a day or more."""
    for pod in seen.pods:
        for name in ("activeDeadlineSeconds", "timeout") if pod.role in FOLLOWERS else ():
            if pod.content.get(name) is not None:
                says = "leave it out: the launcher bounds attempts itself, and this counts the time in the queue"
                yield Found(pod.where(name), pod.content[name], says)
        if pod.role == "stage" and pod.content.get("timeout") is not None:
            says = "activeDeadlineSeconds: this one counts from before the pod has a machine"
            yield Found(pod.where("timeout"), pod.content["timeout"], says)
        if pod.role == "stage" and pod.owner.kind in WORKFLOWS:
            given = pod.content.get("activeDeadlineSeconds")
            if not (isinstance(given, str) and "{{" in given) and not seconds(given):
                says = (
                    "give what an attempt may take: a pod whose machine hangs is else there until the whole is given up"
                )
                yield Found(pod.where("activeDeadlineSeconds"), given, says)
    for thing in seen.of("Job"):
        given = at(thing.content, "spec.activeDeadlineSeconds")
        waits = any(pod.role in FOLLOWERS for pod in seen.pods_of(thing))
        if waits and given is not None and (seconds(given) or 0) < _LEAST_DAY:
            says = f"give {_LEAST_DAY} s or more, or leave it out: what it follows may wait in the queue for days"
            yield Found(thing.where("spec.activeDeadlineSeconds"), given, says)
    for thing, base, flow in flows(seen):
        pods = seen.pods_of(thing)
        spans = [
            seconds(pod.content.get(name)) or 0.0
            for pod in pods
            for name in ("activeDeadlineSeconds", "timeout")
            if pod.role not in FOLLOWERS
        ]
        least = max([1.0, *spans, *(_LEAST_DAY for pod in pods if pod.role in FOLLOWERS)])
        given = flow.get("activeDeadlineSeconds")
        if given is None and thing.kind != "ClusterWorkflowTemplate" and pods:
            says = "give a last stop, beyond queue and run: a workflow whose machine is gone may be Running for ever"
            yield Found(thing.where(f"{base}.activeDeadlineSeconds"), given, says)
        elif given is not None and (seconds(given) or 0) < least:
            says = f"give {least:.0f} s or more: it must be longer than the queue and the run together"
            yield Found(thing.where(f"{base}.activeDeadlineSeconds"), given, says)


@rule("fail-fast", "a branch that fails leaves the others alone")
def fail_fast(seen: Seen) -> Iterator[Found]:
    """``failFast: false``; Argo's default is true."""
    for thing, base, flow in flows(seen):
        for place, template in rows(flow, "templates"):
            path = f"{base}.templates.{place}"
            if "dag" in template and at(template, "dag.failFast") is not False:
                says = "false: by default one branch that fails stops all the others"
                yield Found(thing.where(f"{path}.dag.failFast"), at(template, "dag.failFast"), says)
            if template.get("failFast"):
                yield Found(thing.where(f"{path}.failFast"), template["failFast"], "false, or leave it out")


@rule("exit-handler", "no bookkeeping in an exit handler")
def exit_handler(seen: Seen) -> Iterator[Found]:
    """It is lost at a deadline and when a workflow is terminated; one that fails turns success into failure."""
    for thing, base, flow in flows(seen):
        templates = {word(each, "name"): each for _, each in rows(flow, "templates")}
        for path, name in handlers(flow):
            todo, known = [name], set()
            while todo:
                called = todo.pop()
                if called in known:
                    continue
                known.add(called)
                template = templates.get(called, {})
                todo += [word(task, "template") for _, task in tasks(template)]
                mine = [pod for pod in seen.pods_of(thing) if word(pod.content, "name") == called]
                if "resource" in template or any(is_ours(seen, pod) for pod in mine):
                    says = "our code runs in it, and it may never run: keep it for a notice, and records to the stage itself"
                    yield Found(thing.where(f"{base}.{path}"), name, says)
                    break


@rule("resource-template", "jobs are made by the launcher")
def resource_template(seen: Seen) -> Iterator[Found]:
    """A ``resource`` template makes a second one when it is tried again, and believes its conditions."""
    for thing, base, flow in flows(seen):
        for path, each in _templates(flow):
            if each.get("resource") is not None:
                says = "start components.launch_job in a container: it makes or adopts the one job of a key, and asks the store"
                yield Found(thing.where(f"{base}.{path}.resource"), at(each, "resource.action"), says)


@rule("memoize", "the store alone remembers")
def memoize(seen: Seen) -> Iterator[Found]:
    """Argo's memory is a ConfigMap of 1 MB that knows nothing of keys that were taken back."""
    for thing, base, flow in flows(seen):
        for path, each in [("templateDefaults", table(flow, "templateDefaults")), *_templates(flow)]:
            if each.get("memoize") is not None:
                says = "leave it out: a key that has a manifest is done, wherever it ran"
                yield Found(thing.where(f"{base}.{path}.memoize"), each["memoize"], says)


@rule("archive-logs", "a stage ships its own log")
def archive_logs(seen: Seen) -> Iterator[Found]:
    """Archived logs race with the collection of pods, and are the second copy."""
    for thing, base, flow in flows(seen):
        found = [("archiveLogs", flow.get("archiveLogs"))]
        for path, each in [("templateDefaults", table(flow, "templateDefaults")), *_templates(flow)]:
            found.append((f"{path}.archiveLocation.archiveLogs", at(each, "archiveLocation.archiveLogs")))
        for path, value in found:
            if value:
                yield Found(
                    thing.where(f"{base}.{path}"), value, "leave it out: logs lie in the store, `wfm logs` shows them"
                )


@rule("pod-collection", "pods stay until their run has succeeded, and a while longer")
def pod_collection(seen: Seen) -> Iterator[Found]:
    """``podGC: {strategy: OnWorkflowSuccess, deleteDelayDuration: 10m}``: a failed pod is evidence."""
    for thing, base, flow in flows(seen):
        strategy = at(flow, "podGC.strategy")
        if strategy != "OnWorkflowSuccess":
            says = "OnWorkflowSuccess: others take failed pods away before anybody has looked, none keeps all for ever"
            yield Found(thing.where(f"{base}.podGC.strategy"), strategy, says)
        elif (seconds(at(flow, "podGC.deleteDelayDuration")) or 0) < _LEAST_DELAY:
            says = f"give a span of {_LEAST_DELAY}s or more: the last lines of logs are still being read"
            yield Found(thing.where(f"{base}.podGC.deleteDelayDuration"), at(flow, "podGC.deleteDelayDuration"), says)


@rule("service-account", "a workflow has an account of its own")
def service_account(seen: Seen) -> Iterator[Found]:
    """The default one of a namespace may do what somebody once needed."""
    for thing, base, flow in flows(seen):
        value = word(flow, "serviceAccountName")
        if value in ("", "default"):
            says = "name one that may create and patch workflowtaskresults, and for launchers jobs, and no more"
            yield Found(thing.where(f"{base}.serviceAccountName"), flow.get("serviceAccountName"), says)


@rule("pod-patch", "what is patched into a pod was looked at")
def pod_patch(seen: Seen) -> Iterator[Found]:
    """``podSpecPatch`` could undo all that is checked here."""
    for thing, base, flow in flows(seen):
        for path, each in [("", flow), ("templateDefaults", table(flow, "templateDefaults")), *_templates(flow)]:
            patch = each.get("podSpecPatch")
            if set(patched(patch)) <= _PATCHABLE:
                continue
            says = f"as JSON it may set {', '.join(sorted(_PATCHABLE))}: everything else has a field of its own"
            yield Found(thing.where(".".join(filter(None, (base, path, "podSpecPatch")))), patch, says)


def _strategies(seen: Seen) -> Iterator[tuple[Thing, str, dict[str, Any]]]:
    for thing, base, flow in flows(seen):
        for path, each in [("", flow), ("templateDefaults", table(flow, "templateDefaults")), *_templates(flow)]:
            if isinstance(each.get("retryStrategy"), dict):
                yield thing, ".".join(filter(None, (base, path, "retryStrategy"))), each["retryStrategy"]


def _templates(flow: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"templates.{place}", each) for place, each in rows(flow, "templates")]


def _pods(seen: Seen) -> list[Pod]:
    """Pods of workflows, without those of exit handlers: a notice that fails is not tried again."""
    notices = {(id(thing), name) for thing, _, flow in flows(seen) for _, name in handlers(flow)}
    return [
        pod
        for pod in seen.pods
        if pod.owner.kind in WORKFLOWS and (id(pod.owner), word(pod.content, "name")) not in notices
    ]


def handlers(flow: dict[str, Any]) -> list[tuple[str, str]]:
    """(path, template) of what runs when the whole, a hook's moment, or a task ends."""
    found = [("onExit", word(flow, "onExit"))] if "onExit" in flow else []
    found += [(f"hooks.{name}.template", word(hook, "template")) for name, hook in table(flow, "hooks").items()]
    for place, template in rows(flow, "templates"):
        for path, task in tasks(template):
            base = f"templates.{place}.{path}"
            found += [(f"{base}.onExit", word(task, "onExit"))] if "onExit" in task else []
            found += [
                (f"{base}.hooks.{name}.template", word(hook, "template")) for name, hook in table(task, "hooks").items()
            ]
    return [(path, name) for path, name in found if name]


def is_ours(seen: Seen, pod: Pod) -> bool:
    """Whether our code runs in a pod, or one of our images."""
    images = {image for image in seen.settings.images.resolved().values() if image}
    return any(_OURS.search(each.command) or each.content.get("image") in images for each in pod.containers)


def tasks(template: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Tasks of a DAG, or steps, with their paths."""
    found = [(f"dag.tasks.{place}", each) for place, each in rows(template, "dag.tasks")]
    groups = template.get("steps")
    for place, group in enumerate(groups if isinstance(groups, list) else ()):
        found += [(f"steps.{place}.{number}", each) for number, each in rows(group)]
    return found
