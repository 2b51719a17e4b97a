"""A run as a Python object. What it says stands in the store: any process may ask, whoever started the stages."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.runs.seen import see
from pipelines.runs.state import NodeState, RunState
from wfm.artifacts import environment
from wfm.errors import ConfigError, InputError, TryAgain, WfmError

if TYPE_CHECKING:
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run as RunBook

Overrides = Sequence[str] | Mapping[str, Any]
"""Options by dotted name, ``{"train_diffusion.training.learning_rate": 1e-3}``, or as the command takes them,
``["train_diffusion.training.learning_rate=0.001"]``."""


@dataclass(frozen=True)
class StageStatus:
    """Where one stage of a run stands."""

    stage: str
    "Its name in the run, as `wfm status` shows it."
    state: str
    "waiting | running | retrying | done | cached | failed | cancelled | not_run | silent | lost"
    key: str
    "Key of its artifact, as far as it is known."
    why: str
    "Why it has to run, or why not."
    reason: str
    "What went wrong, if something did."
    outcome: str
    "How its last try ended: done | wrong_input | try_again | cancelled | bug; empty while it has none."
    note: str
    "The last progress that it told."
    tries: int
    "In this run."
    seconds: float
    "From its first try to its end, or until now [s]."
    cpu_seconds: float
    "Of all tries [s]."
    gpu_seconds: float
    "Of all tries and devices [s]."
    peak_bytes: int
    "Resident memory of its largest process [bytes]."


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands."""

    run: str
    "Its id."
    pipeline: str
    "What was run: `curate`, `world_model` or `decoder`."
    profile: str
    "The recipe."
    state: str
    "planned | running | waiting | done | failed | cancelled | suspended | dead (its engine is gone) | never began"
    reason: str
    "Why it stands so, where there is more to say than its stages do."
    started: float
    "Unix time [s]; 0: not yet."
    seconds: float
    "Until its end, its last word, or now [s]."
    stages: tuple[StageStatus, ...]
    "In the order of the flow."

    def stage(self, name: str) -> StageStatus:
        """One stage. Raises InputError, with the choices, for a name that the run has not."""
        for one in self.stages:
            if one.stage == name:
                return one
        raise InputError(
            f"run {self.run} has no stage {name!r}. Choices: {', '.join(one.stage for one in self.stages)}"
        )


class RunFailed(WfmError):
    """A run that did not come to its end; what it made stays, and `wfm.run` with the same arguments goes on from there."""

    def __init__(self, run: "Run", status: RunStatus) -> None:
        failed = [one for one in status.stages if one.state == "failed"]
        told = (
            "; ".join(f"{one.stage} ({one.outcome}): {one.reason}" for one in failed)
            or status.reason
            or "no stage failed"
        )
        logs = f"; its log: run.logs({failed[0].stage!r}), or wfm logs {run.id} {failed[0].stage}" if failed else ""
        super().__init__(f"run {run.id} is {status.state}: {told}{logs}")
        self.run, self.status = run, status

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return WfmError, (str(self),)  # a run is bound to its store


class Run:
    """One run of a pipeline."""

    def __init__(self, book: "RunBook") -> None:
        self._book = book

    def __repr__(self) -> str:
        return f"Run({self.id})"

    @property
    def id(self) -> str:
        """Its id."""
        return self._book.id

    def asked(self) -> dict[str, Any]:
        """What was asked: pipeline, profile, overrides, videos, dataset. Raises InputError for a run that never was whole."""
        asked = self._book.spec().get("request")
        return dict(asked) if isinstance(asked, dict) else {}

    def status(self, *, patient: bool = False) -> RunStatus:
        """Where it stands. patient: watch a try whose beat looks old instead of calling it silent, for up to half a minute.
        Raises InputError when what stands in the store cannot be read."""
        return _status(self.id, see(self._book, patient=patient))

    def stages(self) -> tuple[str, ...]:
        """The names of its stages."""
        return tuple(one.stage for one in self.status().stages)

    def logs(self, stage: str, attempt: int | None = None, *, rank: int = 0) -> str:
        """What a stage wrote, in its last try or in `attempt` (1, 2 ...); rank: of a stage of several processes, whose log.
        Raises InputError for a stage that the run has not, and for one that was never tried."""
        self.status().stage(stage)
        tries = self._book.attempts(stage)
        if not tries:
            raise InputError(f"stage {stage} of run {self.id} has no log: it was not tried in this run")
        if attempt is not None and attempt not in tries:
            raise InputError(
                f"attempt {attempt}: stage {stage} of run {self.id} has the tries {', '.join(map(str, tries))}"
            )
        return self._book.read_log(stage, attempt, rank)

    def cancel(self) -> None:
        """Ask whoever works on it to stop in order; returns at once. What is made stays."""
        self._book.request_cancel()

    def wait(
        self, timeout_seconds: float | None = None, *, check: bool = True, every_seconds: float = 2.0
    ) -> RunStatus:
        """Wait until nothing more comes of it. Raises TryAgain when `timeout_seconds` are over first, and with `check`
        RunFailed for one that is not done."""
        until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while (status := self.status(patient=True)).state in ("planned", "running", "waiting", "suspended", "pending"):
            if until is not None and time.monotonic() >= until:
                raise TryAgain(f"run {self.id} is still {status.state} after {timeout_seconds:g} s")
            time.sleep(every_seconds)
        if check and status.state != "done":
            raise RunFailed(self, status)
        return status


def start_run(
    pipeline: str,
    *,
    profile: str = "demo",
    videos: str | os.PathLike[str] = "",
    dataset: str = "",
    overrides: Overrides = (),
    limit: int = 0,
    run_id: str = "",
    engine: str = "local",
    cpu: float | None = None,
    memory_gib: float | None = None,
    quiet: bool = True,
    check: bool = True,
    store: str | os.PathLike[str] = "",
) -> Run:
    """Run a pipeline on this machine, to its end; what is there already is not made again.

    pipeline: ``curate`` (videos to a data set), ``world_model`` (everything) or ``decoder``. profile: the recipe. videos: a
    folder, archive, file, glob, list or URL; empty: simulated. dataset: the name of the new data set with `videos`, the one
    to begin from without. overrides: options of stages (`Overrides`). limit: only the first so many videos. run_id: asked
    for twice, it is one run. engine: ``local`` (needs no package) or ``prefect``. cpu, memory_gib: what stages may share;
    None: this machine's. quiet: do not echo what the stages print; what they are at goes to standard error. store: where all
    of it is kept; empty: ``WFM_STORE``, or ``wfm-store`` in the current folder.

    Ctrl-C and SIGTERM stop the stages in order. Raises InputError for wrong words or options before anything runs; with
    `check` RunFailed (its `run` and `status` say more) where the run does not come to its end.
    """
    return start_in(
        environment.open_store(store), pipeline, profile=profile, videos=videos, dataset=dataset, overrides=overrides,
        limit=limit, run_id=run_id, engine=engine, cpu=cpu, memory_gib=memory_gib, quiet=quiet, check=check,
    )  # fmt: skip


def start_in(
    store: "Store",
    pipeline: str,
    *,
    profile: str = "demo",
    videos: str | os.PathLike[str] = "",
    dataset: str = "",
    overrides: Overrides = (),
    limit: int = 0,
    run_id: str = "",
    engine: str = "local",
    cpu: float | None = None,
    memory_gib: float | None = None,
    quiet: bool = True,
    check: bool = True,
) -> Run:
    """`start_run` in a store that is opened already."""
    from pipelines.start_run import Request, start

    said = (*_words(overrides), *((f"ingest_videos.limit={limit}",) if limit else ()))
    wanted = Request(pipeline, profile=profile, overrides=said, videos=os.fspath(videos), dataset=dataset)
    summary, _ = start(
        wanted, store, run_id=run_id, cpu=cpu, memory_gib=memory_gib, quiet=quiet, engine=engine,
    )  # fmt: skip
    run = Run(store.runs.of(summary.run_id))
    if check and summary.exit_code:
        raise RunFailed(run, run.status())
    return run


def _words(overrides: Overrides) -> tuple[str, ...]:
    if isinstance(overrides, str):
        raise ConfigError(f"overrides is the text {overrides!r}: give a dict, or a list of STAGE.FIELD=VALUE")
    if not isinstance(overrides, Mapping):
        return tuple(overrides)
    return tuple(f"{name}={json.dumps(value)}" for name, value in overrides.items())


def _status(run_id: str, state: RunState | None) -> RunStatus:
    if state is None:
        return RunStatus(run_id, "", "", "never began", "", 0.0, 0.0, ())
    last = state.ended or (state.updated if state.state == "dead" else time.time())
    seconds = max(last - state.started, 0.0) if state.started else 0.0
    stages = tuple(_stage(name, node) for name, node in state.nodes.items())
    return RunStatus(run_id, state.pipeline, state.profile, state.state, state.reason, state.started, seconds, stages)


def _stage(name: str, node: NodeState) -> StageStatus:
    return StageStatus(
        name, node.state, node.key, node.why, node.reason, node.outcome, node.note, node.attempts,
        node.seconds() if node.state not in ("waiting", "cached") else 0.0, node.cpu_seconds, node.gpu_seconds,
        node.peak_bytes,
    )  # fmt: skip
