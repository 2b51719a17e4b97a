"""Who was asked to run a run, and with what: ``runs/<id>/engine.json``, so that later verbs find its engine without being told.

It is there before anything else of a run that an engine on a cluster plans. Written whole by whoever submits or resumes.
"""

import getpass
import os
import socket
import time
from typing import TYPE_CHECKING, Annotated, Any

import pydantic

from pipelines.runs.state import lives
from wfm.artifacts import schema
from wfm.artifacts.address import utc_now
from wfm.artifacts.runs import SUBMISSION
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts.runs import Run

SCHEMA_VERSION = 1
WORKFLOW = "workflow.json"
"""In a run that a workflow of a cluster plans: for which (`pipelines.plan_step`)."""
TEAM = "WFM_TEAM"
"""Whose work a run is, where nobody says it."""
HERE = ("prefect", "local")
"""Engines whose process is on the machine that was asked."""
_BEGINS_SECONDS = 60.0
"""How long a process that was noted but not named yet is waited for."""


class Submission(pydantic.BaseModel):
    """What an engine was asked for."""

    model_config = pydantic.ConfigDict(extra="ignore")

    schema_version: int = SCHEMA_VERSION
    run_id: schema.Word
    engine: schema.Word
    name: schema.Short = ""
    "The engine's name of the run, on a cluster."
    template: schema.Short = ""
    team: schema.Short = ""
    scheduled_at: schema.Short = ""
    "The time that it stands for, of a cron line or a backfill (UTC, ISO 8601)."
    submitted_at: schema.Short = ""
    by: schema.Short = ""
    "user@host"
    request: dict[str, Any] = {}
    rerun_of: schema.Short = ""
    refused: schema.Short = ""
    "Why the engine did not take it."
    suspension: schema.Short = ""
    "What became of its jobs on a cluster when it was suspended. Empty: it is not suspended, or nobody knows."
    background: bool = False
    "Whether it goes on by itself, in a process that nobody waits for."
    host: schema.Short = ""
    pid: Annotated[int, pydantic.Field(ge=0, lt=2**31)] = 0
    process_started: Annotated[float, pydantic.Field(ge=0, lt=1e11, allow_inf_nan=False)] = 0.0
    begun_at: Annotated[float, pydantic.Field(ge=0, lt=1e11, allow_inf_nan=False)] = 0.0
    "When that process was started last [unix s]."
    cpu: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)] | None = None
    memory_gib: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)] | None = None

    @property
    def here(self) -> bool:
        """Whether its engine is a process of a machine, and not on a cluster."""
        return self.engine in HERE

    def begins(self) -> bool:
        """Whether its process is there, as far as can be seen, before it has written anything itself."""
        if self.pid and self.host == socket.gethostname():
            return lives(self.pid, self.process_started)
        return time.time() - self.begun_at < _BEGINS_SECONDS


def submission_of(run: "Run") -> Submission | None:
    """What is written of it; None for a run of an engine that said nothing. Raises DataError for what cannot be read."""
    data = run.read(SUBMISSION)
    if data is None:
        return None
    return schema.read(Submission, data, run.path_of(SUBMISSION), SCHEMA_VERSION, run_id=run.id)


def write_submission(run: "Run", submission: Submission) -> None:
    """Replace it."""
    run.write(SUBMISSION, schema.encode(submission.model_dump(mode="json")))


def create_submission(run: "Run", submission: Submission) -> bool:
    """Write it, if nobody has; False when it is there already."""
    return run.create(SUBMISSION, schema.encode(submission.model_dump(mode="json")))


def asked_now(run: "Run", engine: str, request: dict[str, Any], **more: Any) -> Submission:
    """One of this moment and this user."""
    return Submission(
        run_id=run.id, engine=engine, request=request, submitted_at=utc_now(), by=who(), begun_at=time.time(), **more
    )


def who() -> str:
    """``user@host``, for people."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def team_of(said: str) -> str:
    """The team that is said, else ``WFM_TEAM``. Raises InputError for what is no name."""
    team = said or os.environ.get(TEAM, "")
    if len(team) > 100 or any(ord(letter) < 32 for letter in team):
        raise InputError(f"--team {team[:100]!r}: give a name of at most 100 letters on one line")
    return team
