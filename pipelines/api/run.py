"""A run as a Python object. What it says stands in the store: any process may ask, whoever started the stages."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines import verbs
from pipelines.commands.run_answers import RunStatus, run_status
from pipelines.runs.seen import read_tries
from wfm.artifacts import environment
from wfm.errors import ConfigError, InputError, TryAgain, WfmError

if TYPE_CHECKING:
    from pipelines.request import Request
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run as RunBook

Overrides = Sequence[str] | Mapping[str, Any]
"""Options by dotted name, ``{"train_diffusion.training.learning_rate": 1e-3}``, or as the command takes them,
``["train_diffusion.training.learning_rate=0.001"]``."""


class RunFailed(WfmError):
    """A run that did not come to its end; `run` and `status` say more. What it made stays: the same asked again goes on from
    there."""

    def __init__(self, run: "Run", status: RunStatus) -> None:
        failed = [one for one in status.stages if one.state == "failed"]
        told = "; ".join(f"{one.stage}: {one.reason}" for one in failed) or status.reason or "no stage says why"
        logs = f"; its log: wfm logs {run.id} {failed[0].stage}, or run.logs({failed[0].stage!r})" if failed else ""
        super().__init__(f"run {run.id} is {status.state}: {told}{logs}")
        self.run, self.status = run, status

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return WfmError, (str(self),)  # a run is bound to its store


class Run:
    """One run of a pipeline, on whatever engine."""

    def __init__(self, book: "RunBook", store: "Store") -> None:
        self._book, self._store = book, store

    def __repr__(self) -> str:
        return f"Run({self.id})"

    @property
    def id(self) -> str:
        """Its id."""
        return self._book.id

    def status(self, *, patient: bool = False) -> RunStatus:
        """Where it stands, as ``wfm status --json`` says it.

        patient: watch a try whose beat looks old instead of calling it silent, for up to half a minute. Raises InputError when
        what stands in the store cannot be read.
        """
        return run_status(verbs.look(self._book, patient=patient), read_tries(self._book))

    def logs(self, stage: str, attempt: int | None = None, *, rank: int = 0) -> str:
        """What a stage wrote.

        attempt: which try (1, 2 ...); None: the last. rank: of a stage of several processes, whose. Raises InputError, with the
        choices, for a stage that the run has not, and for a try that was never made.
        """
        stages = [one.stage for one in self.status().stages]
        if stage not in stages:
            raise InputError(f"run {self.id} has no stage {stage!r}. Choices: {', '.join(stages) or 'none'}")
        tries = self._book.attempts(stage)
        if not tries:
            raise InputError(f"stage {stage} of run {self.id} has no log: it was not tried in this run")
        if attempt is not None and attempt not in tries:
            raise InputError(
                f"attempt {attempt}: stage {stage} of run {self.id} has the tries {', '.join(map(str, tries))}"
            )
        return self._book.read_log(stage, attempt, rank)

    def cancel(self) -> str:
        """Stop it in order, also while it is suspended; says what was done. Raises InputError for one that is over."""
        return verbs.cancel(self._book)

    def suspend(self) -> str:
        """Begin no further stage, have those that run save and stop; says what was done and what that frees."""
        return verbs.suspend(self._book)

    def resume(self) -> str:
        """Let a suspended one go on, or one whose process is gone; says what was done."""
        return verbs.resume(self._book, self._store)

    def wait(
        self, timeout_seconds: float | None = None, *, check: bool = True, every_seconds: float = 2.0
    ) -> RunStatus:
        """Wait until nothing more comes of it.

        timeout_seconds: how long at most [s]; None: without end. every_seconds: how often it is looked at [s]. check: raise
        RunFailed where it does not come to its end. Raises TryAgain when the time is over first.
        """
        until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while (status := self.status(patient=True)).state not in (*verbs.OVER, "dead", "never began"):
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
    folder, archive, file, glob, list or URL; empty: simulated. dataset: the name of the new data set with `videos`, the one to
    begin from without. overrides: options of stages (`Overrides`). limit: only the first so many videos. run_id: asked for
    twice, it is one run. engine: ``local`` (needs no package) or ``prefect``. cpu, memory_gib: what stages may share; None:
    this machine's. quiet: do not echo what the stages print; what they are at goes to standard error. check: raise RunFailed
    where the run does not come to its end. store: where all of it is kept; empty: ``WFM_STORE``, or ``wfm-store`` in the
    current folder.

    Ctrl-C and SIGTERM stop the stages in order. Raises InputError for wrong words or options before anything runs, RunFailed as
    `check` has it.
    """
    return start_in(
        environment.open_store(store), pipeline, profile=profile, videos=videos, dataset=dataset, overrides=overrides,
        limit=limit, run_id=run_id, engine=engine, cpu=cpu, memory_gib=memory_gib, quiet=quiet, check=check,
    )  # fmt: skip


def submit_run(
    pipeline: str,
    *,
    profile: str = "demo",
    videos: str | os.PathLike[str] = "",
    dataset: str = "",
    overrides: Overrides = (),
    limit: int = 0,
    run_id: str = "",
    engine: str = "local",
    template: str = "",
    team: str = "",
    store: str | os.PathLike[str] = "",
) -> Run:
    """Ask for a run that goes on by itself, and return at once: `Run.status`, `Run.wait`.

    engine: ``local`` or ``prefect``, a process of this machine; ``argo`` or ``kubeflow``, on a cluster, of a template that
    ``wfm compile`` wrote. template: its name; empty: pipeline-profile. team: who it counts for. The rest: as `wfm.run`.

    Raises InputError for what can never work, before anything is written; TryAgain for an engine that does not answer.
    """
    opened = environment.open_store(store)
    wanted = _request(pipeline, profile, videos, dataset, overrides, limit)
    standing = verbs.submit(wanted, opened, engine=engine, run_id=run_id, template=template, team=team)
    return Run(standing.run, opened)


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
    from pipelines.start_run import start

    wanted = _request(pipeline, profile, videos, dataset, overrides, limit)
    summary, _ = start(wanted, store, run_id=run_id, cpu=cpu, memory_gib=memory_gib, quiet=quiet, engine=engine)
    run = Run(store.runs.of(summary.run_id), store)
    if check and summary.exit_code:
        raise RunFailed(run, run.status())
    return run


def _request(
    pipeline: str, profile: str, videos: str | os.PathLike[str], dataset: str, overrides: Overrides, limit: int
) -> "Request":
    from pipelines.request import Request

    if isinstance(overrides, str):
        raise ConfigError(f"overrides is the text {overrides!r}: give a dict, or a list of STAGE.FIELD=VALUE")
    if isinstance(overrides, Mapping):
        overrides = [f"{name}={_written(name, value)}" for name, value in overrides.items()]
    for at, text in enumerate(overrides):
        if not isinstance(text, str):
            raise ConfigError(
                f"overrides[{at}] is {text!r}: give a text, STAGE.FIELD=VALUE, or a dict of values by name"
            )
    said = (*overrides, *((f"ingest_videos.limit={limit}",) if limit else ()))
    return Request(pipeline, profile=profile, overrides=said, videos=os.fspath(videos), dataset=dataset)


def _written(name: str, value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"overrides[{name!r}] is {value!r}: give a number, a text, True, False, None, a list or a dict of them"
        ) from None
