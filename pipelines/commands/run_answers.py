"""``--json`` of ``wfm runs`` and ``wfm status``: runs as published models.

Times are UTC in ISO 8601, empty where there is none.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pydantic

if TYPE_CHECKING:
    from pipelines.runs.seen import Try
    from pipelines.runs.state import NodeState
    from pipelines.verbs import Standing


class RunRow(pydantic.BaseModel):
    """A line of ``wfm runs``."""

    run: str
    "Its id."
    pipeline: str = ""
    "What is run."
    profile: str = ""
    "The recipe."
    state: str
    "pending | planned | waiting | running | suspended | done | failed | cancelled | dead | never began | cannot be read"
    reason: str = ""
    "Why it stands so, where there is more to say than its stages do."
    engine: str = ""
    "prefect | local | argo | kubeflow; empty: unknown."
    team: str = ""
    "Who it counts for."
    scheduled_at: str = ""
    "The time that it stands for, of a cron line or a backfill."
    rerun_of: str = ""
    "The run whose request it repeats."
    started: str = ""
    "When (UTC, ISO 8601); empty: not yet."
    ended: str = ""
    "Likewise."
    seconds: float = 0.0
    "From its start to its end, or its last word [s]."
    made: int = 0
    "Stages that it made."
    there: int = 0
    "Stages that were there already."
    failed: int = 0
    "Stages that failed."


class RunList(pydantic.BaseModel):
    """``wfm runs --json``: newest first."""

    runs: list[RunRow]


class StageRow(pydantic.BaseModel):
    """A stage of a run."""

    stage: str
    "Its name in the run."
    state: str
    "waiting | running | retrying | done | cached | failed | cancelled | not_run | silent | lost"
    reason: str
    "What went wrong, or what it waits for."
    note: str
    "The last progress that it told; once it is done, what it counted."
    key: str
    "Key of its artifact, as far as it is known."
    tries: int
    "In this run."
    started: str
    "When its first try began (UTC, ISO 8601); empty: not yet."
    ended: str
    "Likewise."
    seconds: float
    "From its first try to its end, or until now [s]."
    cpu_seconds: float
    "Of all tries [s]."
    gpu_seconds: float
    "Of all tries and devices [s]."
    peak_bytes: int
    "Resident memory of its largest process [bytes]."


class Spent(pydantic.BaseModel):
    """What tries have used."""

    tries: int
    cpu_seconds: float
    gpu_seconds: float


class RunStatus(RunRow):
    """``wfm status --json``."""

    stages: list[StageRow]
    "In the order of the flow."
    spent: Spent
    "By all tries."
    wasted: Spent
    "By those that made nothing."
    stopped: Spent
    "By those that a suspend stopped: the next goes on from what they saved."
    engine_phase: str = ""
    "What an engine on a cluster says."
    engine_words: str = ""
    "Likewise, for people."
    address: str = ""
    "Its page in the engine's UI."
    trouble: str = ""
    "Why its engine could not be asked."


def run_row(run_id: str, standing: "Standing | None", trouble: str = "") -> RunRow:
    """A run for a list; without a `standing`: one that cannot be read, and why."""
    if standing is None:
        return RunRow(run=run_id, state="cannot be read", reason=trouble)
    submission, state = standing.submission, standing.state
    said = submission is not None or state is not None  # so there is a run, with a plan or not
    spec = (standing.run.record("spec.json") or {}) if said else standing.run.spec()
    row = RunRow(
        run=run_id, state=standing.word, engine=standing.engine, pipeline=str(spec.get("pipeline", "")),
        profile=str(spec.get("profile", "")), team=str(spec.get("team") or ""), rerun_of=str(spec.get("rerun_of") or ""),
    )  # fmt: skip
    if submission is not None:
        row.team, row.scheduled_at = submission.team or row.team, submission.scheduled_at
        row.rerun_of = submission.rerun_of or row.rerun_of
    if state is not None:
        row.pipeline, row.profile, row.reason = state.pipeline, state.profile, state.reason
        row.started, row.ended = iso(state.started), iso(state.ended)
        row.seconds = max((state.ended or state.updated) - state.started, 0.0) if state.started else 0.0
        counts = [sum(node.state == of for node in state.nodes.values()) for of in ("done", "cached", "failed")]
        row.made, row.there, row.failed = counts
    return row


def run_status(standing: "Standing", tries: "Iterable[Try]") -> RunStatus:
    """All that is known of a run."""
    found, state, looked = list(tries), standing.state, standing.looked
    return RunStatus(
        **run_row(standing.run.id, standing).model_dump(),
        stages=[_stage(name, node) for name, node in state.nodes.items()] if state is not None else [],
        spent=_spent(found),
        wasted=_spent([one for one in found if one.wasted]),
        stopped=_spent([one for one in found if one.stopped]),
        engine_phase=looked.phase if looked is not None else "",
        engine_words=looked.words if looked is not None else "",
        address=looked.address if looked is not None else "",
        trouble=standing.trouble,
    )


def _stage(name: str, node: "NodeState") -> StageRow:
    return StageRow(
        stage=name, state=node.state, reason=node.reason, note=node.note, key=node.key, tries=node.attempts,
        started=iso(node.started), ended=iso(node.ended), seconds=node.seconds(), cpu_seconds=node.cpu_seconds,
        gpu_seconds=node.gpu_seconds, peak_bytes=node.peak_bytes,
    )  # fmt: skip


def _spent(tries: "list[Try]") -> Spent:
    return Spent(
        tries=len(tries),
        cpu_seconds=sum(one.cpu_seconds for one in tries),
        gpu_seconds=sum(one.gpu_seconds for one in tries),
    )


def iso(unix_seconds: float) -> str:
    """``2026-11-22T12:30:05Z``; empty for 0."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_seconds)) if unix_seconds else ""
