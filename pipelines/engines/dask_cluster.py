"""One Dask cluster for a run, there only while a stage needs it.

It starts with the first ``daskjob`` stage that has work and goes when the last one is through, so that training has the
memory. Stages get its address and its keys in their environment, as a runner of a DaskJob does; where there is none they work
in their own process.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from components.entrypoint import SCHEDULER
from pipelines.stages import Kind
from wfm.errors import Cancelled, MissingPackage
from wfm.log import get_logger


class Cluster:
    """Starts on first use; whoever knows that nobody will ask any more closes it."""

    def __init__(self, workers: int, memory_gib: float) -> None:
        self._workers, self._memory_gib = workers, memory_gib
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._address = ""

    @contextmanager
    def user(self, kind: Kind, stop: threading.Event) -> Iterator[str]:
        """The scheduler's address for a stage of this kind; empty for one that does not use Dask."""
        if kind != "daskjob":
            yield ""
            return
        with self._lock:
            if stop.is_set():
                raise Cancelled("stopped before the cluster was started")
            address = self._address or self._start()
        yield address

    def environment(self, scheduler: str) -> dict[str, str]:
        """By which a stage finds the scheduler and proves that it may use the workers; in no file and on no command line."""
        if not scheduler:
            return {}
        from wfm.parts.workers import keys_environment

        return {SCHEDULER: scheduler, **keys_environment()}

    def close(self) -> None:
        """Stop the workers; the next user starts new ones."""
        with self._lock:
            try:
                self._stack.close()
            except Exception as error:  # the workers die with this process in any case
                get_logger(__name__).info("the Dask cluster did not close in order: %s", error or type(error).__name__)
            self._stack, self._address = ExitStack(), ""

    def _start(self) -> str:
        try:
            import distributed  # noqa: F401  (sets the levels of its loggers, which `_hush` then changes)

            from wfm.parts.workers import local_cluster
        except ImportError as error:
            raise MissingPackage("dask", extra="curate", purpose="curation") from error
        _hush()
        self._address = self._stack.enter_context(
            local_cluster(self._workers, int(self._memory_gib * 2**30 / self._workers))
        )
        get_logger(__name__).info("Dask cluster of %d workers at %s", self._workers, self._address)
        return self._address


def _hush() -> None:
    """Dask tells of every worker that comes and goes; only errors matter here."""
    for name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]:
        logging.getLogger(name).setLevel(logging.ERROR)
