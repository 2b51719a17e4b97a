"""``wfm schedule``: a pipeline that starts when the clock says so.

A full Prefect server (scheduler and UI) keeps the time, this process waits for it (`due_runs.py`), and each due run is one
``wfm run`` in a process of its own, under the same guard as a stage. Runs never overlap: one that is due while another is at
work waits.
"""

import dataclasses
import fcntl
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from pipelines import background
from pipelines.engines.prefect_package import import_prefect
from pipelines.engines.prefect_server import apply_settings, full_server, stopped_by_signals
from pipelines.engines.schedule_book import keep
from pipelines.runs.untold import tell_untold_until
from pipelines.ticks import at_time, next_time
from pipelines.wfm_home import home
from wfm.errors import InputError
from wfm.process import python

if TYPE_CHECKING:
    from pipelines.request import Request
    from wfm.artifacts import Store


def serve(request: "Request", cron: str, store: "Store") -> None:
    """Serve until SIGINT or SIGTERM. Raises `ConfigError` for an unknown pipeline, `InputError` for a wrong cron line.

    The run of each time has the id that a backfill gives it (`pipelines.ticks`), so that a time that was missed is noticed.
    """
    check_cron(cron)
    # a wrong name must be said now, not at three in the morning
    at_time(request, datetime.now(UTC)).request.plan(store)

    def at(when: datetime | None) -> list[str]:
        """The command of a run for a time of the line; None: of one that somebody asked for in between."""
        point = at_time(request, when or datetime.now(UTC).replace(second=0, microsecond=0))
        given = ["--run-id", point.run_id, "--scheduled-at", point.scheduled_at] if when is not None else []
        return [*command_of(point.request, store), *given]

    serve_command(
        command_of(request, store), f"{request.pipeline}-{request.profile}", cron, at,
        lambda name: keep(name, cron, store.url, dataclasses.asdict(request)), partial(tell_untold_until, store),
    )  # fmt: skip


def serve_command(
    command: list[str],
    name: str,
    cron: str,
    at: Callable[[datetime | None], list[str]] | None = None,
    served: Callable[[str], None] = lambda name: None,
    beside: Callable[[threading.Event], None] = lambda stop: None,
) -> None:
    """Run a command line whenever ``cron`` says so, until SIGINT or SIGTERM. The command never leaves this process. ``at``:
    what it is for each time; ``served`` is told the schedule's name once it is served; ``beside`` works in a thread of its own
    until then."""
    check_cron(cron)
    unique = f"{name}-{hashlib.sha256(json.dumps(command).encode()).hexdigest()[:8]}"  # two folders, two schedules
    stop = threading.Event()
    with stopped_by_signals(stop), _served_once(unique), full_server() as address:
        apply_settings(PREFECT_API_URL=address)
        import_prefect()
        from prefect.client.orchestration import get_client

        from pipelines.engines.due_runs import DueRuns

        with get_client(sync_client=True) as client:
            due = DueRuns(client, unique, cron, at or (lambda when: command))
            served(unique)
            threading.Thread(target=beside, args=(stop,), name="beside the schedule", daemon=True).start()
            where = address.removesuffix("/api")
            print(f"{name} runs at {cron!r}; UI at {where} (`wfm password` opens it); Ctrl-C ends this", flush=True)
            try:
                due.serve(stop)
            finally:
                due.pause()


@contextmanager
def _served_once(name: str) -> Iterator[None]:
    """Raises `InputError` when another process of this user serves the same."""
    with open(home() / f"schedule-{name}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another `wfm schedule` serves {name} already: stop it first") from None
        yield


def command_of(request: "Request", store: "Store") -> list[str]:
    """The command line of one due run."""
    command = python("-m", background.MODULE, "run", request.pipeline, "--profile", request.profile)
    command += ["--store", store.url, "--quiet"]
    for name, value in (("--videos", request.videos), ("--dataset", request.dataset), ("--name", request.name)):
        command += [name, value] if value else []
    command += [] if request.promote else ["--no-promote"]
    for override in request.overrides:
        command += ["--set", override]
    return command


def check_cron(cron: str) -> None:
    """Raise `InputError` for a line that is not cron's five fields."""
    from importlib import import_module

    import_prefect()
    croniter = import_module("prefect._vendor.croniter").croniter
    if len(cron.split()) != 5 or not croniter.is_valid(cron):
        raise InputError(
            f"{cron!r} is not a cron line: five fields (minute hour day month weekday), such as '0 3 * * *'"
        )
    next_time(cron, datetime.now(UTC))  # what is missed is told by the other reader of such lines
