"""Engines that live on a cluster, as the commands see them: one set of verbs, whoever answers.

`run` starts the stages of a run from this machine (`engine.ENGINES`). An engine on a cluster starts them there, from a
template that `wfm compile` wrote: it is asked by these verbs, and where a run stands is still read from the store
(`pipelines.runs.seen`).
What the engine alone knows (a workflow that no stage of has begun, one that it suspended) is in `Remote.look`.
"""

import importlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from wfm.credentials import carries_credentials
from wfm.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from pipelines.request import Request

REMOTES = {"argo": "pipelines.engines.argo.remote", "kubeflow": "pipelines.engines.kubeflow.remote"}
"""Name, as ``--engine`` takes it -> module with ``connect() -> Remote``."""

PHASES = ("unknown", "pending", "running", "suspended", "done", "failed", "cancelled")
"""What an engine says of a run, in our words; `unknown`: it has none of that name (any more)."""


@dataclass(frozen=True)
class Ask:
    """A run that an engine is asked for."""

    run_id: str
    "Asked for twice, it is one run."
    request: "Request"
    store: str
    "URL that pods can read."
    template: str = ""
    "Name of what `wfm compile` wrote; empty: pipeline-profile."
    scheduled_at: str = ""
    "The time that it stands for, of a backfill (UTC, ISO 8601)."


@dataclass(frozen=True)
class Looked:
    """A run as its engine sees it now."""

    phase: str
    "One of `PHASES`."
    words: str = ""
    "What a person should know: why it waits, what failed; the engine's message, made harmless."
    address: str = ""
    "Page of the run in the engine's UI; empty: unknown."


@dataclass(frozen=True)
class Recurring:
    """Runs by the clock."""

    name: str
    template: str
    lines: tuple[str, ...]
    zone: str
    "Of IANA."
    suspended: bool
    last: str = ""
    "When it last started one (UTC, ISO 8601)."
    words: str = ""


class Remote(Protocol):
    """One engine on a cluster. A wish stands in the store before it is asked for here (`Run.request_suspend`,
    `request_cancel`): what an engine cannot do itself, launchers and the plan step do by that mark. Every verb may be asked
    again; each raises `InputError` for what can never work and `TryAgain` for what may work later, in words that name the run,
    the server's answer and what to do."""

    name: str

    def submit(self, ask: Ask) -> str:
        """Start a run; returns the engine's name of it. One that is there already is that run."""

    def look(self, run_id: str) -> Looked:
        """Where it stands by its engine."""

    def cancel(self, run_id: str) -> str:
        """Stop it in order, also while it is suspended; what was done, in words."""

    def suspend(self, run_id: str) -> str:
        """Begin no further stage; says whether running ones stop and their GPUs are freed."""

    def resume(self, run_id: str) -> str:
        """Take back `suspend`."""

    def recurring(self) -> list[Recurring]:
        """What starts by the clock."""

    def pause(self, name: str, *, paused: bool) -> str:
        """Stop, or let go on, what starts by the clock."""


def template_name(request: "Request") -> str:
    """Of what `wfm compile` writes where nobody names it."""
    return f"{request.pipeline}-{request.profile}".replace("_", "-")


def parameters(ask: Ask) -> dict[str, str]:
    """What a run of a template is given (`Flow.parameters`): what the request says; what it leaves open is what the template
    was compiled with. Raises InputError for addresses with a password."""
    request = ask.request
    for what, text in (("store", ask.store), ("videos", request.videos), ("--set", " ".join(request.overrides))):
        if carries_credentials(text):
            raise InputError(
                f"the address of {what} carries credentials, and an engine shows a run's parameters to everybody: give it "
                "without"
            )
    given = {
        "store": ask.store,
        "videos": request.videos,
        "dataset": request.dataset,
        "overrides": json.dumps(list(request.overrides)) if request.overrides else "",
        "redo": json.dumps(dict(sorted(request.redo.items()))) if request.redo else "",
        "name": request.name,
        "promote": "" if request.promote else "false",
    }
    return {name: value for name, value in given.items() if value}


def connect(name: str) -> Remote:
    """The engine of that name, as this machine's environment says how it is reached. Raises `InputError` with the choices."""
    if name not in REMOTES:
        raise InputError(
            f"unknown engine {name!r} on a cluster.{did_you_mean(name, REMOTES)} Choices: {', '.join(REMOTES)}"
        )
    remote: Remote = importlib.import_module(REMOTES[name]).connect()
    return remote
