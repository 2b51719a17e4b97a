"""When a task of a workflow runs, and how often: after what went well, as often as the template says."""

import re
from collections.abc import Iterator

from wfm.cluster.lint.expression import LONGEST, evaluate
from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.quantity import seconds, whole
from wfm.cluster.lint.seen import Seen, at, rows, word
from wfm.cluster.lint.workflows import flows, tasks

_MOST_ITEMS = 200
_STATE = re.compile(r"(?<![-\w.])([A-Za-z0-9_][-\w]{0,127})(?:\.(\w+))?")
_BAD = ("Failed", "Errored", "Omitted")
_TRUE_OF = {
    "": {"Succeeded", "Skipped", "Daemoned"},
    "AnySucceeded": {"Succeeded"},
    "AllFailed": {"Failed"},
}
"""State that ``depends`` asks for -> states of a task that satisfy it, where it is not that state alone."""
_ASKS = re.compile(r"\b(tasks|steps|inputs|workflow|item|node|retries)\b")


@rule("after-failure", "a task runs after what it needs went well")
def after_failure(seen: Seen) -> Iterator[Found]:
    """``depends`` is tried with each task failed in turn: none may begin whose input was never made, and all must begin when
    everything went well."""
    for thing, base, flow in flows(seen):
        for place, template in rows(flow, "templates"):
            for path, task in tasks(template):
                text = word(task, "depends")
                says = _depends_fault(text) if text.strip() else ""
                if says:
                    yield Found(thing.where(f"{base}.templates.{place}.{path}.depends"), text, says)


def _depends_fault(text: str) -> str:
    """What is wrong with a ``depends``; empty where nothing is, or where another rule says that it cannot be read."""
    if len(text) > LONGEST:
        return f"it has {len(text)} characters, and cannot be vouched for: {LONGEST} at most"
    names = sorted({found[1] for found in _STATE.finditer(text)})
    cure = "name the task alone (or .Succeeded); what must run after a failure is no part of what a run makes"
    try:
        if not _begins(text, {}):
            return f"it does not begin when everything went well: {cure}"
        for name in names[:_MOST_ITEMS]:
            for state in _BAD:
                if _begins(text, {name: state}):
                    return f"it begins though {name} is {state}, and what {name} makes is not there: {cure}"
    except ValueError as error:
        return f"it cannot be vouched for: {error}"
    return ""


def _begins(text: str, states: dict[str, str]) -> bool:
    """Whether a task begins, when those named are in these states and all others have succeeded. Raises ValueError."""

    def value(found: re.Match[str]) -> str:
        asked = found[2] or ""
        return str(states.get(found[1], "Succeeded") in _TRUE_OF.get(asked, {asked})).lower()

    return evaluate(_STATE.sub(value, text), {}) is True


@rule("fan-out", "how many times a task runs is known, and small")
def fan_out(seen: Seen) -> Iterator[Found]:
    """Each item is a pod and a line of the status, which has 1 MiB: counted work goes into ranges of parts (``--parts``)."""
    cure = f"make ranges of parts of it (an Indexed Job), or name at most {_MOST_ITEMS} items here"
    for thing, base, flow in flows(seen):
        for place, template in rows(flow, "templates"):
            for path, task in tasks(template):
                where = f"{base}.templates.{place}.{path}"
                if task.get("withParam") is not None:
                    says = f"nobody knows how many there will be: {cure}"
                    yield Found(thing.where(f"{where}.withParam"), task["withParam"], says)
                if task.get("withSequence") is not None:
                    first, last = (whole(at(task, f"withSequence.{name}")) for name in ("start", "end"))
                    count = whole(at(task, "withSequence.count"))
                    count = count if count is not None else None if last is None else abs(last - (first or 0)) + 1
                    if count is None or count > _MOST_ITEMS:
                        yield Found(thing.where(f"{where}.withSequence"), task["withSequence"], cure)
                items = task.get("withItems")
                if isinstance(items, list) and len(items) > _MOST_ITEMS:
                    yield Found(thing.where(f"{where}.withItems"), len(items), cure)


@rule("constant-condition", "what is asked can come out both ways, and nothing waits for a person")
def constant_condition(seen: Seen) -> Iterator[Found]:
    """``when`` names something of the run: a constant switches a task off (or on) for good. No ``suspend`` without an end."""
    for thing, base, flow in flows(seen):
        for place, template in rows(flow, "templates"):
            where = f"{base}.templates.{place}"
            for path, task in tasks(template):
                told = task.get("when")
                if isinstance(told, str) and told.strip() and not _asks(told):
                    says = "it is the same in every run: ask for an output of the plan, or leave it out"
                    yield Found(thing.where(f"{where}.{path}.when"), told, says)
            if "suspend" in template and not seconds(at(template, "suspend.duration")):
                says = "it waits for ever for somebody to resume it: leave the template out"
                yield Found(thing.where(f"{where}.suspend"), template["suspend"], says)


@rule("cached-node", "what is there already starts no pod")
def cached_node(seen: Seen) -> Iterator[Found]:
    """In a graph with a plan step each stage and each launcher has a ``when`` over what the plan says."""
    for thing, base, flow in flows(seen):
        roles = {word(pod.content, "name"): pod.role for pod in seen.pods_of(thing)}
        for place, template in rows(flow, "templates"):
            plans = [
                word(task, "name") for _, task in tasks(template) if roles.get(word(task, "template")) == "planner"
            ]
            for path, task in tasks(template) if plans else ():
                told = word(task, "when")
                if roles.get(word(task, "template")) not in ("stage", "launcher"):
                    continue
                asks = any(f"{kind}.{plan}.outputs" in told for plan in plans for kind in ("tasks", "steps"))
                if not asks and (_asks(told) or not told.strip()):
                    says = (
                        f"a cached node would cost a pod, and its place in the queue: ask for an output of {plans[0]}"
                    )
                    yield Found(thing.where(f"{base}.templates.{place}.{path}.when"), task.get("when"), says)


def _asks(text: str) -> bool:
    """Whether something of the run stands between its braces."""
    return any(_ASKS.search(each) for each in re.findall(r"\{\{([^{}]{0,2000})\}\}", text))
