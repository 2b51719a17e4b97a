"""What a plan would do, for people: ``wfm run --dry-run``."""

from typing import TYPE_CHECKING

import pydantic

from pipelines.commands.console import say, show_table, table
from pipelines.runs.display import duration

if TYPE_CHECKING:
    from pipelines.nodes import Plan
    from wfm.artifacts import Store

_FEW = 3


class PlannedStage(pydantic.BaseModel):
    """A stage of a plan."""

    stage: str
    runs: bool
    key: str
    seconds: float | None
    "What it would take at the rate of earlier runs; null: not measured."
    cpu_seconds: float | None
    other: list[str]
    "Options that were others when that was measured."
    why: str


class Planned(pydantic.BaseModel):
    """``wfm run --dry-run --json``."""

    pipeline: str
    profile: str
    to_run: int
    stages: list[PlannedStage]
    notes: list[str]
    questions: list[str]


def planned(plan: "Plan", store: "Store") -> Planned:
    """The plan for scripts."""
    from pipelines.estimate import estimate, questions
    from pipelines.explain import reasons

    costs, why = estimate(plan, store), reasons(plan, store)
    stages = []
    for node in plan.nodes:
        cost = costs.get(node.name)
        seconds, cpu = (cost.seconds, cost.cpu_seconds) if cost is not None else (None, None)
        other = list(cost.other) if cost is not None else []
        stages.append(
            PlannedStage(
                stage=node.name, runs=not node.done, key=node.key or "", seconds=seconds, cpu_seconds=cpu, other=other,
                why=why.get(node.name, node.why),
            )
        )  # fmt: skip
    return Planned(
        pipeline=plan.pipeline, profile=plan.profile, to_run=len(plan.missing), stages=stages, notes=plan.notes,
        questions=list(questions(plan, store)),
    )  # fmt: skip


def show_plan(plan: "Plan", store: "Store") -> None:
    """A table of the stages, with what each would take and why it runs; then the sums, and what people should know."""
    from pipelines.estimate import estimate, questions
    from pipelines.explain import reasons

    made = table("stage", "runs", "key", "estimate", prose="why", title=f"{plan.pipeline} ({plan.profile})")
    costs = estimate(plan, store)
    why = reasons(plan, store)
    known = [cost.seconds for cost in costs.values() if cost.seconds is not None]
    for node in plan.nodes:
        seconds = costs[node.name].seconds if node.name in costs else None
        rough = "~" if node.name in costs and costs[node.name].other else ""
        shown = "" if node.done else "not measured yet" if seconds is None else f"{rough}{duration(seconds)}"
        runs = "no" if node.done else "yes"
        made.row(node.name, runs, (node.key or "")[:12], shown, why.get(node.name, node.why))
    show_table(made)
    say(f"{len(plan.missing)} of {len(plan.nodes)} stages would run")
    for note in plan.notes:
        say(note)
    if known:
        cpu = sum(cost.cpu_seconds or 0.0 for cost in costs.values())
        files = next(iter(costs.values())).files
        of = f" for {files} videos" if files is not None else ""
        say(
            f"about {duration(sum(known))} one after the other and {cpu / 3600:.2f} processor hours{of}, at the "
            f"rates of earlier runs here; {len(costs) - len(known)} stages have no figure"
        )
        for name, cost in costs.items():
            if cost.other and cost.seconds is not None:
                more = f" and {len(cost.other) - _FEW} more" if len(cost.other) > _FEW else ""
                say(f"~ {name} was measured with other options: {', '.join(cost.other[:_FEW])}{more}")
    elif costs:
        say("no estimate: no stage of these has run on this store before, or the videos are not there yet")
    for line in questions(plan, store):
        say(line)
