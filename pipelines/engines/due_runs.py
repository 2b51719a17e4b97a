"""The runs of `schedule.py`: Prefect keeps the time, this process does the work.

What is run is one command line that only this process holds. Who may use the API can ask for a run, cancel one, or move the
schedule, and nothing else: neither a parameter, nor what stands in the deployment (a path to code, steps, variables), is
looked at to decide what runs. A run that brings parameters fails without being begun.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pipelines.engines.subprocess_stage import Ended, run_process
from pipelines.ticks import times
from wfm.errors import TryAgain
from wfm.log import get_logger
from wfm.process import safe_environment, signal_name

if TYPE_CHECKING:
    from uuid import UUID

_FLOW = "scheduled"
_GRACE_SECONDS = 60.0
_POLL_SECONDS = 5.0
_PATIENCE_SECONDS = 120.0
"""How long a server may be silent before serving ends [s]."""
_NO_PARAMETERS = {"title": "Parameters", "type": "object", "properties": {}, "additionalProperties": False}


class DueRuns:
    """One deployment of an API, and the command that its due runs stand for."""

    def __init__(self, client: Any, name: str, cron: str, at: Callable[[datetime | None], Sequence[str]]) -> None:
        from prefect.client.schemas.actions import DeploymentScheduleCreate
        from prefect.client.schemas.schedules import CronSchedule

        self._client, self._cron, self._at = client, cron, at
        self._deployment = client.create_deployment(
            client.create_flow_from_name(_FLOW),
            name,
            schedules=[DeploymentScheduleCreate(schedule=CronSchedule(cron=cron), active=True)],
            parameter_openapi_schema=_NO_PARAMETERS,
            enforce_parameter_schema=True,
            paused=False,
        )

    def serve(self, stop: threading.Event) -> None:
        """Run what is due, one after the other, until ``stop``. Raises `TryAgain` when the server stays away."""
        import httpx

        silent_since = 0.0
        while not stop.is_set():
            try:
                for run in self._due():
                    if not stop.is_set():
                        self._attempt(run, stop)
                silent_since = 0.0
            except httpx.HTTPError as error:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > _PATIENCE_SECONDS:
                    raise TryAgain(f"the Prefect server went away: {type(error).__name__}: {error}") from error
            stop.wait(_POLL_SECONDS)

    def pause(self) -> None:
        """Let the clock stand still while nobody serves."""
        import httpx
        from prefect.exceptions import ObjectNotFound

        try:
            self._client.pause_deployment(self._deployment)
        except (httpx.HTTPError, ObjectNotFound) as error:
            get_logger(__name__).warning("the schedule could not be paused: %s: %s", type(error).__name__, error)

    def _due(self) -> list[Any]:
        now = datetime.now(UTC)
        found = self._client.get_scheduled_flow_runs_for_deployments([self._deployment], now)
        return sorted(found, key=lambda run: run.next_scheduled_start_time or now)

    def _attempt(self, run: Any, stop: threading.Event) -> None:
        """Take one due run, if nobody else does, and see it through."""
        from prefect.exceptions import ObjectNotFound
        from prefect.states import Cancelled, Completed, Failed, Pending, Running

        if not self._propose(run.id, Pending()):
            return
        if run.parameters:
            names = ", ".join(repr(name)[:40] for name in list(run.parameters)[:5])
            self._propose(
                run.id, Failed(message=f"refused: a scheduled run takes no parameters, and this one has {names}")
            )
            return
        if not self._propose(run.id, Running()):
            return
        ended = self._run(run, stop)
        how = f"exit code {ended.exit_code}" if ended.exit_code is not None else signal_name(ended.signal or 9)
        state: Any = Failed(message=f"the run ended with {how}: `wfm status` tells more")
        if ended.exit_code == 0:
            state = Completed()
        elif ended.stopped_by == "cancel":
            state = Cancelled(message="stopped on request")
        try:
            self._client.set_flow_run_state(run.id, state, force=True)
        except ObjectNotFound:
            get_logger(__name__).warning("the run was deleted while it was at work")

    def _propose(self, run: "UUID", state: Any) -> bool:
        return bool(self._client.set_flow_run_state(run, state).status == "ACCEPT")

    def _command(self, run: Any) -> list[str]:
        """The command of a run. That it stands for a time of the line is believed only where the line has that time, and it is
        past: the API lets one write any."""
        when = run.expected_start_time
        genuine = bool(run.auto_scheduled and when and when <= datetime.now(UTC)) and bool(
            times(self._cron, when, when + timedelta(seconds=1))
        )
        return list(self._at(when if genuine else None))

    def _run(self, run: Any, stop: threading.Event) -> Ended:
        """The command to its end, which comes early on ``stop``, or when somebody cancels the run."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        over, end = threading.Event(), threading.Event()
        watcher = threading.Thread(target=self._watch, args=(run.id, stop, over, end), daemon=True)
        watcher.start()
        try:
            return run_process(
                self._command(run),
                environment=safe_environment(environment),
                on_line=lambda line: print(line, flush=True),
                stop=end,
                grace_seconds=_GRACE_SECONDS,
            )
        finally:
            over.set()
            watcher.join()

    def _watch(self, run: "UUID", stop: threading.Event, over: threading.Event, end: threading.Event) -> None:
        """Set ``end`` when serving stops or the run is cancelled; returns when the run is ``over``."""
        import httpx
        from prefect.exceptions import ObjectNotFound

        looked = time.monotonic()
        while not over.wait(0.2):
            if stop.is_set():
                end.set()
            if time.monotonic() - looked > _POLL_SECONDS:
                looked = time.monotonic()
                try:
                    state = self._client.read_flow_run(run).state
                except (httpx.HTTPError, ObjectNotFound):  # asked again soon; a run that was deleted goes on
                    continue
                if state is not None and (state.is_cancelling() or state.is_cancelled()):
                    end.set()
