"""Dask workers of a run, there only while a stage needs them: one cluster for each image, as on Kubernetes.

One starts with the first ``daskjob`` stage of its image that has work and goes when the last one is through, so that training
has the memory. Stages get its address and its keys in their environment, as a runner of a DaskJob does; where there is none
they work in their own process.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from components.entrypoint import SCHEDULER
from pipelines.engines.budget import workers
from pipelines.stages import Image, Kind
from wfm.errors import Cancelled, MissingPackage
from wfm.log import get_logger


@dataclass(frozen=True)
class _Running:
    """A cluster that is up."""

    address: str
    keys: dict[str, str]
    "Environment by which a stage proves that it may use it."
    stack: ExitStack


class Clusters:
    """Start on first use; whoever knows that nobody will ask any more closes them."""

    def __init__(self, cpu: float, memory_gib: float) -> None:
        self._cpu, self._memory_gib = cpu, memory_gib
        self._lock = threading.Lock()
        self._running: dict[Image, _Running] = {}

    @contextmanager
    def user(self, kind: Kind, image: Image, stop: threading.Event) -> Iterator[str]:
        """The scheduler's address for a stage; empty for one that does not use Dask, or where workers would not pay."""
        count = workers(self._cpu, self._memory_gib, image) if kind == "daskjob" else 0
        if not count:
            yield ""
            return
        with self._lock:
            if stop.is_set():
                raise Cancelled("stopped before the cluster was started")
            if image not in self._running:
                self._running[image] = self._start(count)
            address = self._running[image].address
        yield address

    def environment(self, scheduler: str) -> dict[str, str]:
        """By which a stage finds the scheduler and proves that it may use the workers; in no file and on no command line."""
        found = next((one for one in self._running.values() if one.address == scheduler), None)
        return {} if found is None else {SCHEDULER: scheduler, **found.keys}

    def close(self, image: Image | None = None) -> None:
        """Stop the workers of an image, or all; the next user starts new ones."""
        with self._lock:
            for name in [image] if image else list(self._running):
                running = self._running.pop(name, None)
                try:
                    if running is not None:
                        running.stack.close()
                except Exception as error:  # the workers die with this process in any case
                    words = str(error) or type(error).__name__
                    get_logger(__name__).info("the Dask cluster did not close in order: %s", words)

    def _start(self, count: int) -> _Running:
        try:
            import distributed  # noqa: F401  (sets the levels of its loggers, which `_hush` then changes)

            from wfm.parts.workers import keys_environment, local_cluster
        except ImportError as error:
            raise MissingPackage("dask", extra="curate", purpose="curation") from error
        _hush()
        stack = ExitStack()
        address = stack.enter_context(local_cluster(count, int(self._memory_gib * 2**30 / count)))
        get_logger(__name__).info("Dask cluster of %d workers at %s", count, address)
        return _Running(address, keys_environment(), stack)


def _hush() -> None:
    """Dask tells of every worker that comes and goes; only errors matter here."""
    for name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]:
        logging.getLogger(name).setLevel(logging.ERROR)
