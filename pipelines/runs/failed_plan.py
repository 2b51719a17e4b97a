"""How the plan of a run failed on a cluster: ``runs/<id>/plan.json``, written by the step that plans (`pipelines.plan_step`).

Of a run that a cluster began by itself (a cron line) this is all there is then: no spec, and nobody wrote down that it was
asked for. Once a plan stands nobody reads it.
"""

import time
import traceback
from typing import TYPE_CHECKING

import pydantic

from pipelines.runs.state import RunState, Seconds
from wfm.artifacts import schema
from wfm.artifacts.address import utc_now
from wfm.artifacts.runs import FAILED_PLAN
from wfm.errors import WfmError, is_final, outcome_of

if TYPE_CHECKING:
    from wfm.artifacts.runs import Run

SCHEMA_VERSION = 1
_REASON, _TRACE, _TRIES = 2_000, 8_000, 32
_QUIET_SECONDS = 1800.0
"""A plan that may be tried again, and was not for so long, is given up."""


class FailedPlan(pydantic.BaseModel):
    """What the last try at a plan ended with."""

    model_config = pydantic.ConfigDict(extra="ignore")

    schema_version: int = SCHEMA_VERSION
    run_id: schema.Word
    pipeline: schema.Short = ""
    profile: schema.Short = ""
    began_at: schema.Short = ""
    "When the first try failed (UTC, ISO 8601)."
    began: Seconds = 0.0
    "The same [unix s]."
    last: Seconds = 0.0
    "When the last one did [unix s]."
    outcomes: list[schema.Word] = []
    "Of the tries, as of `wfm.errors`."
    reason: str = pydantic.Field("", max_length=_REASON)
    trace: str = pydantic.Field("", max_length=_TRACE)
    "Where a bug is."


def note_failed_plan(run: "Run", pipeline: str, profile: str, error: BaseException) -> None:
    """Write down what a try ended with. A record of before that cannot be read gives way."""
    try:
        before = failed_plan_of(run)
    except WfmError:
        before = None
    now, outcome = time.time(), outcome_of(error)
    trace = "".join(traceback.format_exception(error))[-_TRACE:] if outcome == "bug" else ""
    found = FailedPlan(
        run_id=run.id, pipeline=pipeline[:200], profile=profile[:200], began_at=before.began_at if before else utc_now(),
        began=before.began if before else now, last=now,
        outcomes=[*(before.outcomes if before else ()), outcome][-_TRIES:],
        reason=f"{type(error).__name__}: {error}"[:_REASON], trace=trace,
    )  # fmt: skip
    run.write(FAILED_PLAN, schema.encode(found.model_dump(mode="json")))


def failed_plan_of(run: "Run") -> FailedPlan | None:
    """What is written of it; None where no try failed. Raises DataError for what cannot be read."""
    data = run.read(FAILED_PLAN)
    return (
        None if data is None else schema.read(FailedPlan, data, run.path_of(FAILED_PLAN), SCHEMA_VERSION, run_id=run.id)
    )


def tell_failed_plan(state: RunState, failed: FailedPlan) -> None:
    """Into the state of a run without a plan that is neither cancelled nor suspended: it failed, or waits for another try."""
    over = is_final(failed.outcomes) or time.time() - failed.last > _QUIET_SECONDS
    state.started, state.updated = state.started or failed.began, failed.last
    state.state, state.ended = ("failed", failed.last) if over else ("pending", 0.0)
    tries = f" ({len(failed.outcomes)} tries)" if len(failed.outcomes) > 1 else ""
    state.reason = f"its plan failed{tries}{'' if over else ', and may be tried again'}: {failed.reason}"
