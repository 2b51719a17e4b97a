"""Where curation's work runs: in this process, or on the workers of a Dask scheduler.

    with local_cluster(workers=2) as address:
        for name, result in map_tasks(function, {"00": payload, …}, scheduler=address):
            …

A task is a module-level function and a plain payload; what it makes it commits itself, so a result is small, and a task that
runs twice (its worker died after the commit) does no harm.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeVar

from wfm.errors import Cancelled, InputError, MissingPackage, TryAgain, WfmError
from wfm.log import Progress, get_logger
from wfm.parts.dask_settings import local_settings, variable

Payload = TypeVar("Payload")
Answer = TypeVar("Answer")

_CONNECT_SECONDS = 30
_RECOUNT_SECONDS = 5.0  # between looks at how many workers there are

_KEYS = {
    "tls_ca_file": "distributed.comm.tls.ca-file",
    **{
        f"tls_{role}_{part}": f"distributed.comm.tls.{role}.{part}"
        for role in ("client", "scheduler", "worker")
        for part in ("key", "cert")
    },
}
"""Where Dask's settings keep what `Security` holds."""
_VARIABLES = [f"DASK_DISTRIBUTED__COMM__TLS__{name}" for name in ("CA_FILE", "CLIENT__CERT", "CLIENT__KEY")]


def map_tasks(
    function: Callable[[Payload], Answer],
    tasks: Mapping[str, Payload],
    *,
    scheduler: str = "",
    progress: Progress | None = None,
    max_in_flight: int = 0,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[str, Answer]]:
    """(name, result) of every task, as they finish.

    ``scheduler`` is the address of a running Dask scheduler; empty runs the tasks here, in order. At most ``max_in_flight``
    tasks are handed out at a time (0: two for each worker thread). A task whose worker is lost is given to another one, as
    often as its scheduler allows (`dask_settings`), then `TryAgain` names it. Any error of a task is raised here with its name,
    and the tasks that wait are cancelled. Raises `TryAgain` when the scheduler cannot be reached, `Cancelled` when
    ``stopping()`` turns true while workers are at work: what they have committed stays.
    """
    done = (
        _in_process(function, tasks) if not scheduler else _on_dask(function, tasks, scheduler, max_in_flight, stopping)
    )
    with contextlib.closing(done):
        for name, answer in done:
            if progress is not None:
                progress.advance()
            yield name, answer


@contextlib.contextmanager
def local_cluster(workers: int = 2, memory: str | int = "auto") -> Iterator[str]:
    """A Dask cluster on this machine: ``workers`` processes of one thread each; yields its scheduler's address.

    ``memory`` is the limit of each worker (bytes, ``"1GiB"``, or ``"auto"``: an even share). The workers end with this
    process, even when it is killed: each watches its parent. Whoever reaches a Dask scheduler runs code on it, so it speaks
    TLS with keys made for it, which are in this process's settings of Dask for as long as it lives; another process of the
    run gets them by `keys_environment`. What a user set for Dask by its own variables holds (`dask_settings`).
    """
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    import dask
    from distributed import LocalCluster
    from distributed.security import Security

    try:
        security = Security.temporary()
    except ImportError as error:
        raise MissingPackage("cryptography", extra="curate", purpose="curation side by side") from error
    settings = local_settings()
    place = dask.config.get("temporary-directory", None, config=dask.config.collect())
    keys = {setting: getattr(security, field) for field, setting in _KEYS.items()}
    with (
        # Its own folder: Dask imports from its scratch folder too, and /tmp/dask-scratch-space may be another user's.
        tempfile.TemporaryDirectory(prefix="wfm-dask-", dir=place, ignore_cleanup_errors=True) as scratch,
        dask.config.set({**settings, **keys, "temporary-directory": scratch}),
    ):
        cluster = LocalCluster(
            security=security,
            protocol="tls://",
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=memory,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # a server without pages, on this machine only
            worker_dashboard_address=None,
            silence_logs=40,
        )
        try:
            yield cluster.scheduler_address
        finally:
            cluster.close(timeout=10)


def own_memory() -> int | None:
    """The limit of the Dask worker that this process is [bytes], at which its nanny stops it; None where there is none."""
    if "distributed.worker" not in sys.modules:
        return None
    from distributed import get_worker

    try:
        limit: int | None = get_worker().memory_manager.memory_limit
    except ValueError:  # not inside one
        return None
    return limit or None


def keys_environment() -> dict[str, str]:
    """Environment by which another process of this user can reach the cluster that is up here; empty when none is.

    These are Dask's own variables, so they serve for a cluster that somebody else has set up, too.
    """
    import dask

    found = {name: dask.config.get(name, None) for name in _KEYS.values()}
    return {variable(name): value for name, value in found.items() if value}


def _in_process(
    function: Callable[[Payload], Answer], tasks: Mapping[str, Payload]
) -> Generator[tuple[str, Answer], None, None]:
    for name, payload in tasks.items():
        try:
            answer = function(payload)
        except Exception as error:
            raise _named(name, error) from error
        yield name, answer


def _on_dask(
    function: Callable[[Payload], Answer],
    tasks: Mapping[str, Payload],
    scheduler: str,
    max_in_flight: int,
    stopping: Callable[[], bool],
) -> Generator[tuple[str, Answer], None, None]:
    import dask
    from distributed import Client, as_completed

    if scheduler.startswith("tls://") and not dask.config.get("distributed.comm.tls.ca-file", None):
        raise InputError(f"the Dask scheduler at {scheduler} asks for keys: set {', '.join(_VARIABLES)}")
    try:
        client = Client(scheduler, timeout=_patience(), set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise TryAgain(f"the Dask scheduler at {scheduler} cannot be reached: {error}") from error
    waiting = iter(tasks.items())
    names: dict[Any, str] = {}
    finished = as_completed(loop=client.loop)
    try:
        limit = _Limit(client, max_in_flight)

        def hand_out() -> None:
            for name, payload in waiting:
                # pure=False: a payload that ran before in this cluster is run again, its result is never remembered.
                future = client.submit(function, payload, pure=False, retries=0)
                names[future.key] = name
                finished.add(future)
                if len(names) >= limit():
                    return

        hand_out()
        for future in _each(finished, stopping):
            name = names.pop(future.key)
            yield name, _answer(name, future)
            hand_out()
    finally:
        finished.clear()
        with contextlib.suppress(Exception):
            client.close(timeout=5)


def _patience() -> float:
    """How long to look for the scheduler [s]; where a cluster starts it together with the runner, it says so by Dask's own
    variable."""
    import dask
    from dask.utils import parse_timedelta

    return max(_CONNECT_SECONDS, parse_timedelta(dask.config.get("distributed.comm.timeouts.connect", 0)))


def _each(finished: Any, stopping: Callable[[], bool]) -> Iterator[Any]:
    """The futures of Dask's `as_completed`, while nobody asks to stop: a part may take longer than a stage is given to end."""
    while True:
        while not finished.has_ready() and not finished.is_empty():
            if stopping():
                raise Cancelled("asked to stop while workers were at work; what they have made is kept")
            with finished.thread_condition:
                finished.thread_condition.wait(timeout=0.1)
        try:
            future = next(finished)
        except StopIteration:
            return
        yield future


class _Limit:
    """How many tasks may be out: as asked for, or two for each thread that there is now (workers of a cluster come late)."""

    def __init__(self, client: Any, asked: int) -> None:
        self._client, self._asked = client, asked
        self._looked, self._found = float("-inf"), 0

    def __call__(self) -> int:
        if self._asked:
            return self._asked
        if time.monotonic() - self._looked > _RECOUNT_SECONDS:
            self._found = 2 * max(1, sum(self._client.nthreads().values()))
            self._looked = time.monotonic()
        return self._found


def _answer(name: str, future: Any) -> Any:
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        words = (
            f"lost its worker {error.allowed_failures + 1} times (evictions, spot machines, memory or crashes; the last one at "
            f"{error.last_worker.address}). Where many are lost, give the scheduler a higher "
            f"{variable('distributed.scheduler.allowed-failures')}: it is {error.allowed_failures}"
        )
        raise TryAgain(f"task {name!r}: {words}") from error
    except (FutureCancelledError, CommClosedError) as error:  # before the answer was asked for, or while
        raise TryAgain(f"task {name!r}: the Dask scheduler went away") from error
    except Exception as error:
        raise _named(name, error) from error


def _named(name: str, error: Exception) -> Exception:
    """The same kind of error with the task's name in its message, so that whoever decides about a retry still can."""
    get_logger(__name__).error("task %r failed: %s: %s", name, type(error).__name__, error)
    if isinstance(error, WfmError):
        named = type(error).__new__(type(error))  # not its __init__: an error may take arguments of its own
        named.__dict__.update(error.__dict__)
        named.args = (f"task {name!r}: {error}",)
        return named
    if isinstance(error, OSError) and error.errno is not None:
        return type(error)(error.errno, f"task {name!r}: {error.strerror}", error.filename)
    error.add_note(f"in task {name!r}")
    return error
