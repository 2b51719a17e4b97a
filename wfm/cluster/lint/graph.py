"""The graph of a workflow: what is named is there, and what may be skipped leaves no hole.

Argo finds both only when it comes to the task.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.seen import WORKFLOWS, Seen, at, rows, table, texts, word
from wfm.cluster.lint.workflows import flows, handlers, tasks

_FEW = 20
"""Of the choices that are told."""
_TYPES = ("container", "script", "containerSet", "dag", "steps", "suspend", "http", "plugin", "data", "resource")
_OUTPUT = re.compile(r"(?:tasks|steps)\.([A-Za-z0-9][-\w]{0,127})\.outputs\.parameters\.([A-Za-z0-9][-\w]{0,127})")
_SUCCESS = re.compile(r"(?<![-\w])([A-Za-z0-9][-\w]{0,127})\.(?:Succeeded|Failed|Errored|AnySucceeded|AllFailed)")
_OF_THE_RUN = re.compile(r"workflow\.parameters\.([A-Za-z0-9][-\w]{0,127})")
_INPUT = re.compile(r"inputs\.parameters\.([A-Za-z0-9][-\w]*)")


@rule("skipped-output", "what a skipped task would have said has a default")
def skipped_output(seen: Seen) -> Iterator[Found]:
    """Outputs of a task with ``when`` (or after one): ``valueFrom.default`` or ``??``, else the run ends in an error."""
    for thing, base, flow in flows(seen):
        numbered = {word(each, "name"): (place, each) for place, each in rows(flow, "templates")}
        for template in (each for _, each in rows(flow, "templates")):
            skippable = _skippable(template)
            for _, task in tasks(template):
                place, called = numbered.get(word(task, "template"), (0, {}))
                if word(task, "name") not in skippable:
                    continue
                for number, output in rows(called, "outputs.parameters"):
                    if (
                        at(output, "valueFrom.default") is None
                        and at(output, "default") is None
                        and not _guarded(output)
                    ):
                        path = f"{base}.templates.{place}.outputs.parameters.{number}.valueFrom.default"
                        says = f"task {word(task, 'name')} may be skipped, and then this output is an error: give a default"
                        yield Found(thing.where(path), None, says)
            for path, source, argument in _artifacts(template):
                if source in skippable and not argument.get("optional"):
                    says = f"task {source} may be skipped: optional: true"
                    yield Found(thing.where(f"{base} … {path}.optional"), argument.get("optional"), says)


@rule("graph", "templates, tasks and dependencies that are named are there")
def graph(seen: Seen) -> Iterator[Found]:
    """The entry point, each task's template, each dependency; and one way to name them."""
    for thing in seen.of(*WORKFLOWS):
        flow = table(thing.content, WORKFLOWS[thing.kind])
        if not rows(flow, "templates") and not word(flow, "workflowTemplateRef.name"):
            says = "give templates, or the workflowTemplateRef that has them"
            yield Found(thing.where(f"{WORKFLOWS[thing.kind]}.templates"), flow.get("templates"), says)
    libraries = {
        (thing.name, word(each, "name")) for thing, _, flow in flows(seen) for _, each in rows(flow, "templates")
    }
    for thing, base, flow in flows(seen):
        names = {word(each, "name") for _, each in rows(flow, "templates")}
        choices = f"choices: {', '.join(sorted(names)[:_FEW])}"
        for path, name in [("entrypoint", word(flow, "entrypoint")), *handlers(flow)]:
            if name not in names and (name or thing.kind in ("Workflow", "CronWorkflow")):
                yield Found(thing.where(f"{base}.{path}"), name or None, f"there is no such template; {choices}")
        for place, template in rows(flow, "templates"):
            several = {word(task, "name") for _, task in tasks(template)}
            if not any(kind in template for kind in _TYPES):
                says = f"it does nothing; choices: {', '.join(_TYPES)}"
                yield Found(thing.where(f"{base}.templates.{place}"), word(template, "name"), says)
            for path, task in tasks(template):
                where = thing.where(f"{base}.templates.{place}.{path}")
                if "template" in task and word(task, "template") not in names:
                    yield Found(f"{where}.template", task["template"], f"there is no such template; {choices}")
                if "templateRef" in task and not _is_known(task, libraries):
                    says = "nobody looks into it: hand that WorkflowTemplate along, or take the template in here"
                    yield Found(f"{where}.templateRef", task["templateRef"], says)
                if "inline" in task:
                    yield Found(
                        f"{where}.inline", task["inline"], "nobody looks into it: give it a name among the templates"
                    )
                if "depends" in task and ("dependencies" in task or "continueOn" in task):
                    says = "depends says all of it: leave out dependencies and continueOn"
                    yield Found(f"{where}.depends", task["depends"], says)
                unknown = sorted(_needs(task) - several)
                if unknown:
                    says = f"there is no task {', '.join(unknown[:_FEW])}; choices: {', '.join(sorted(several)[:_FEW])}"
                    yield Found(f"{where}.depends", task.get("depends") or task.get("dependencies"), says)


def _is_known(task: dict[str, Any], libraries: set[tuple[str, str]]) -> bool:
    return (word(task, "templateRef.name"), word(task, "templateRef.template")) in libraries


@rule("order", "tasks come in an order that has a beginning")
def order(seen: Seen) -> Iterator[Found]:
    """No circle, no name twice; nothing goes on as if what failed had not."""
    for thing, base, flow in flows(seen):
        called = Counter(word(each, "name") for _, each in rows(flow, "templates"))
        for name in (name for name, count in called.items() if count > 1):
            yield Found(thing.where(f"{base}.templates"), name, "two templates have this name: Argo takes one of them")
        if flow.get("shutdown"):
            yield Found(
                thing.where(f"{base}.shutdown"), flow["shutdown"], "nothing of it would ever start: leave it out"
            )
        for place, template in rows(flow, "templates"):
            several = tasks(template)
            where = f"{base}.templates.{place}"
            if template.get("daemon"):
                says = "it counts as through as soon as it runs, and what needs its work begins: leave it out"
                yield Found(thing.where(f"{where}.daemon"), template["daemon"], says)
            counted = Counter(word(task, "name") for _, task in several)
            for name in (name for name, count in counted.items() if count > 1):
                yield Found(thing.where(where), name, "two tasks have this name: give each its own")
            if "dag" in template and (circle := _circle({word(task, "name"): _needs(task) for _, task in several})):
                says = f"they wait for each other for ever: {', '.join(circle[:_FEW])}"
                yield Found(thing.where(f"{where}.dag.tasks"), circle[:_FEW], says)
            for path, task in several:
                if "continueOn" in task and "depends" not in task:
                    says = "what failed would count as made: leave it out"
                    yield Found(thing.where(f"{where}.{path}.continueOn"), task["continueOn"], says)


def _circle(needs: dict[str, set[str]]) -> list[str]:
    """Tasks that can never begin, since they wait for each other (or for such a task); empty when all can."""
    left = {name: needed & set(needs) for name, needed in needs.items()}
    while ready := {name for name, needed in left.items() if not needed}:
        left = {name: needed - ready for name, needed in left.items() if name not in ready}
    return sorted(left)


@rule("reference", "parameters that are used are declared")
def reference(seen: Seen) -> Iterator[Found]:
    """``{{tasks.a.outputs.parameters.b}}``: the template of task a has an output b; and inputs likewise."""
    for thing, base, flow in flows(seen):
        outputs = {word(each, "name"): _declared(each, "outputs") for _, each in rows(flow, "templates")}
        given = _declared(flow, "arguments")
        for place, template in rows(flow, "templates"):
            called = {
                word(task, "name"): word(task, "template") for _, task in tasks(template) if "templateRef" not in task
            }
            text = " ".join(each for _, each in texts(template))
            for task, name in sorted(set(_OUTPUT.findall(text))):
                known = outputs.get(called.get(task, ""))
                if known is not None and name not in known:
                    says = (
                        f"template {called[task]} has no output {name}; choices: {', '.join(sorted(known)) or 'none'}"
                    )
                    yield Found(
                        thing.where(f"{base}.templates.{place}"), f"tasks.{task}.outputs.parameters.{name}", says
                    )
            missing = sorted(set(_OF_THE_RUN.findall(text)) - given)
            if missing:
                says = f"the workflow has no parameter {missing[0]}; choices: {', '.join(sorted(given)) or 'none'}"
                yield Found(thing.where(f"{base}.templates.{place}"), f"workflow.parameters.{missing[0]}", says)
            known = _declared(template, "inputs")
            for name in sorted(set(_INPUT.findall(text)) - known):
                says = f"the template has no input {name}; choices: {', '.join(sorted(known)) or 'none'}"
                yield Found(thing.where(f"{base}.templates.{place}"), f"inputs.parameters.{name}", says)


@rule("handed-on", "a task gets what it asks for, from tasks that it waits for")
def handed_on(seen: Seen) -> Iterator[Found]:
    """Each input without a default is given; an output that is read is that of a task before, and comes from a file."""
    for thing, base, flow in flows(seen):
        asked = {word(each, "name"): _required(each) for _, each in rows(flow, "templates")}
        for place, template in rows(flow, "templates"):
            where, several = f"{base}.templates.{place}", tasks(template)
            needs = {word(task, "name"): _needs(task) for _, task in several}
            ordered = "dag" in template and not _circle(needs) and set().union(*needs.values()) <= set(needs)
            for path, task in several:
                missing = sorted(asked.get(word(task, "template"), set()) - _given(task))
                if missing:
                    says = (
                        f"template {word(task, 'template')} asks for {', '.join(missing[:_FEW])}: give a value of each"
                    )
                    yield Found(thing.where(f"{where}.{path}.arguments"), at(task, "arguments"), says)
                read = {name for name, _ in _OUTPUT.findall(" ".join(each for _, each in texts(task)))}
                read &= set(needs)
                early = sorted(read - _before(word(task, "name"), needs)) if read and ordered else []
                if early:
                    says = f"it reads what {early[0]} says and does not wait for it: name it in depends"
                    yield Found(thing.where(f"{where}.{path}.depends"), task.get("depends"), says)
            pod = "container" in template or "script" in template
            for number, output in rows(template, "outputs.parameters") if pod else ():
                if not at(output, "valueFrom.path"):
                    says = "it comes from nowhere: name the file that the pod writes"
                    path = f"{where}.outputs.parameters.{number}.valueFrom.path"
                    yield Found(thing.where(path), at(output, "valueFrom.path"), says)


def _required(template: dict[str, Any]) -> set[str]:
    """Inputs of a template that have nothing of their own."""
    several = [each for _, each in rows(template, "inputs.parameters")]
    return {word(each, "name") for each in several if not {"value", "valueFrom", "default"} & set(each)}


def _given(task: dict[str, Any]) -> set[str]:
    several = [each for _, each in rows(task, "arguments.parameters")]
    return {word(each, "name") for each in several if each.get("value") not in (None, "") or "valueFrom" in each}


def _before(name: str, needs: dict[str, set[str]]) -> set[str]:
    """All tasks that are through when a task begins."""
    found, todo = set(), list(needs.get(name, ()))
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += needs.get(one, ())
    return found


def _needs(task: dict[str, Any]) -> set[str]:
    """Tasks that a task waits for."""
    given = task.get("dependencies")
    listed = {each for each in given if isinstance(each, str)} if isinstance(given, list) else set()
    return listed | {
        each.partition(".")[0] for each in re.findall(r"[A-Za-z0-9][-\w]*(?:\.\w+)?", word(task, "depends"))
    }


def _skippable(template: dict[str, Any]) -> set[str]:
    """Tasks that may never run: those with ``when``, and those that ask for the success of one. (A name alone in ``depends``
    is content with a task that was skipped.)"""
    several = [task for _, task in tasks(template)]
    found = {word(task, "name") for task in several if word(task, "when").strip()}
    ask = {
        word(task, "name"): set(_SUCCESS.findall(word(task, "depends")))
        for task in several
        if not re.search(r"\.(Skipped|Omitted)", word(task, "depends"))
    }
    more = found
    while more:
        more = {name for name, needed in ask.items() if name not in found and needed & found}
        found |= more
    return found


def _guarded(output: dict[str, Any]) -> bool:
    """Whether an output of a DAG says itself what to do where there is nothing."""
    return "?" in word(output, "valueFrom.expression")  # ?? or ? :


def _artifacts(template: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(path, task that it comes from, argument) of each artifact that a task takes from another."""
    for path, task in tasks(template):
        for place, each in rows(task, "arguments.artifacts"):
            found = re.search(r"(?:tasks|steps)\.([A-Za-z0-9][-\w]{0,127})\.outputs", word(each, "from"))
            if found:
                yield f"{path}.arguments.artifacts.{place}", found[1], each


def _declared(template: dict[str, Any], kind: str) -> set[str]:
    return {word(each, "name") for _, each in rows(template, f"{kind}.parameters")}
