"""One Dask cluster for a run, there only while a stage needs it.

It starts with the first ``daskjob`` stage that has work and goes when the last one is through, so that training has the
memory. Stages get its address in their spec and its keys in their environment; where there is none they work in their own
process.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pipelines.stages import StageRow
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
    def user(self, row: StageRow, stop: threading.Event) -> Iterator[str]:
        """The scheduler's address for a stage of this row; empty for one that does not use Dask."""
        if row.kind != "daskjob":
            yield ""
            return
        with self._lock:
            if stop.is_set():
                raise Cancelled("stopped before the cluster was started")
            address = self._address or self._start()
        yield address

    def keys(self) -> dict[str, str]:
        """Environment by which a stage proves that it may use the workers; in no file and on no command line."""
        from wfm.parts.workers import keys_environment

        return keys_environment()

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
