"""What a Dask worker does before its first task (Dask's ``--preload``): it listens to its nanny alone.

A signal to the group of a stage (Ctrl-C, a pod's agent) would end its workers before the stage has stopped in order; their
nanny stops them when it is time. A worker that is told so says that it was asked: what ends it from then on is nobody's fault.
"""

import contextlib
import os
from typing import Any

from wfm import caches, stopping


def dask_setup(worker: Any) -> None:
    """Called by Dask in the worker's process, before it takes tasks."""
    caches.prepare()
    if worker.nanny:  # without one, the process is its own nanny, and hears the signals of its pod
        with contextlib.suppress(PermissionError):  # it leads a session already
            os.setpgid(0, 0)
        stopping.listen(then=True)


def dask_teardown(worker: Any) -> None:
    """Called when the worker begins to close."""
    stopping.ask()
