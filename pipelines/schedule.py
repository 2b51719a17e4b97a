"""``wfm schedule``: a pipeline that starts when the clock says so.

A full Prefect server (scheduler and UI) keeps the time, a served flow (`scheduled_flow.py`) waits for it, and each due run
is one ``wfm run`` in a process of its own, under the same guard as a stage. Runs never overlap: one that is due while
another is at work waits.
"""

import sys
from typing import TYPE_CHECKING

from pipelines.prefect_server import apply_settings, full_server, import_prefect
from wfm.errors import InputError

if TYPE_CHECKING:
    from pipelines.start_run import Request
    from wfm.artifacts import Store

_POLL_SECONDS = 5


def serve(request: "Request", cron: str, store: "Store") -> None:
    """Serve until SIGINT or SIGTERM. Raises `ConfigError` for an unknown pipeline, `InputError` for a wrong cron line."""
    request.plan(store)  # a wrong name must be said now, not at three in the morning
    serve_command(command_of(request, store), f"{request.pipeline}-{request.profile}", cron)


def serve_command(command: list[str], name: str, cron: str) -> None:
    """Run a command line whenever ``cron`` says so, until SIGINT or SIGTERM."""
    check_cron(cron)
    with full_server() as address:
        apply_settings(PREFECT_API_URL=address, PREFECT_RUNNER_POLL_FREQUENCY=str(_POLL_SECONDS))
        import_prefect()
        from prefect.types.entrypoint import EntrypointType

        from pipelines.scheduled_flow import due_run

        print(f"{name} runs at {cron!r}; UI at {address.removesuffix('/api')}; Ctrl-C ends this", flush=True)
        due_run.serve(
            name=name,
            cron=cron,
            parameters={"command": command},
            limit=1,
            global_limit=1,
            paused=False,
            print_starting_message=False,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )


def command_of(request: "Request", store: "Store") -> list[str]:
    """The command line of one due run."""
    command = [sys.executable, "-m", "pipelines.cli", "run", request.pipeline, "--profile", request.profile]
    command += ["--store", store.url, "--quiet"]
    for name, value in (("--videos", request.videos), ("--dataset", request.dataset)):
        command += [name, value] if value else []
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
