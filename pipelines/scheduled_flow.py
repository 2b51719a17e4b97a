"""The flow that `schedule.py` serves. A file of its own, since Prefect's runner imports it by name."""

import os
import signal
import threading

from prefect import flow

from pipelines.subprocess_stage import run_process
from wfm.errors import TryAgain

_GRACE_SECONDS = 60.0


@flow(name="scheduled", flow_run_name="due", validate_parameters=False, log_prints=True)
def due_run(command: list[str]) -> None:
    """Run one command line of `wfm` to its end; raises when it does not end well."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    stop = threading.Event()
    ended = run_process(command, environment=environment, on_line=print, stop=stop, grace_seconds=_GRACE_SECONDS)
    if ended.exit_code != 0:
        how = f"exit code {ended.exit_code}" if ended.exit_code is not None else signal.Signals(ended.signal or 9).name
        raise TryAgain(f"the run ended with {how}: `wfm status` tells more")
