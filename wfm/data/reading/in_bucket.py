"""Ranges of objects: one request each, cut when it stalls or trickles, asked again where that may help.

The client's own limit on silence (botocore's `read_timeout`) holds for each read of a socket, so that a connection that gives a
byte now and then passes it for ever. Here an attempt has one deadline, from waiting for a connection to the last byte:
`stall_seconds` and the time that its bytes take at `least_rate`. What is late is cancelled, which closes its connection, and
the next attempt gets another. Each attempt may take twice as long as the one before, so that a network that is slow for
everybody is not asked the same for ever.
"""

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from wfm.artifacts.trouble import Patience, is_empty_range
from wfm.data.reading.config import Counter, ReadingConfig
from wfm.data.remote import NotThere, remote_file_system, remote_options
from wfm.errors import Cancelled, DataError, InputError

if TYPE_CHECKING:
    from wfm.artifacts import Store

_SILENCE_SECONDS = 10.0
"""Without a byte a connection is cut after so long (or `stall_seconds`, if that is more), however large what was asked for."""
_GRACE_SECONDS = 5.0
"""By which the loop that makes requests may be late in cutting one; then the thread that waits goes on without it."""
_SLOW_SECONDS = 60.0
"""Time that a client may take to find its credentials, and to list a folder."""
_MOST_DOUBLINGS = 6
_RENEWED_SECONDS = 5.0
_CLOSED = "the reader of records was closed"

Request = Callable[[], Coroutine[Any, Any, Any]]


class Bucket:
    """Objects by address, in the buckets of one service."""

    def __init__(self, config: ReadingConfig, store: "Store | None", counter: Counter) -> None:
        self._config, self._store, self._counter = config, store, counter
        self._free = threading.BoundedSemaphore(config.connections)
        self._closed = threading.Event()
        self._lock, self._opening, self._renewing = threading.Lock(), threading.Lock(), threading.Lock()
        self._renewed = float("-inf")
        self._clients: dict[tuple[int, str], tuple[Any, Patience]] = {}
        self._running: set[Future[Any]] = set()

    def begin(self, url: str, offset: int, size: int) -> "Future[bytes]":
        """The first request for a range, under way once a connection is free: for `read`, or to be cancelled."""
        file_system, _ = self._client(url)
        return self._start(file_system, partial(_range_of, file_system, url, offset, size), self._allowed(size, 0))

    def read(self, url: str, offset: int, size: int, begun: "Future[bytes] | None" = None) -> bytes:
        """Exactly `size` bytes; `begun` is the first request for them, if it is under way. Raises `DataError` where the object
        ends before, `NotThere`, `InputError` for a bucket or credentials that are wrong, `TryAgain` when it kept failing,
        `Cancelled` once the reader is closed."""
        file_system, patience = self._client(url)
        request = partial(_range_of, file_system, url, offset, size)
        attempts = itertools.count()

        def attempt() -> bytes:
            number = next(attempts)
            allowed = self._allowed(size, number)
            self._counter.add(requests=1, retries=min(number, 1))
            future = begun if begun is not None and not number else self._start(file_system, request, allowed)
            data: bytes = self._result(future, allowed)
            self._counter.add(bytes=len(data))
            return data

        what = f"read {size} bytes at {offset} of {url}"
        try:
            return patience.call(what, attempt, partial(self._renew, file_system))
        except FileNotFoundError:
            raise NotThere(f"{url} is not there: the table of records names this shard") from None

    def sizes(self, urls: list[str]) -> list[int]:
        """Of objects [bytes], by a listing of each folder that they lie in. Raises as `read` does."""
        found: dict[str, int] = {}
        folders = sorted({url.rpartition("/")[0] for url in urls})  # of an artifact's parts, each its own
        with ThreadPoolExecutor(self._config.connections) as threads:
            for sizes in threads.map(self._sizes_in, folders):
                found |= sizes
        for url in urls:
            if url not in found:
                raise NotThere(f"{url} is not there: the table of records names this shard")
        return [found[url] for url in urls]

    def _sizes_in(self, folder: str) -> dict[str, int]:
        file_system, patience = self._client(folder)
        look = partial(file_system._ls, str(file_system._strip_protocol(folder)), detail=True)
        listed = partial(self._await, file_system, look, _SLOW_SECONDS)
        try:
            entries = patience.call(f"list {folder}", listed, partial(self._renew, file_system))
        except FileNotFoundError:
            raise NotThere(f"{folder} is not there: the table of records names shards in it") from None
        return {f"{folder}/{entry['name'].rpartition('/')[2]}": int(entry["size"]) for entry in entries}

    def close(self) -> None:
        """What runs is cancelled, what waits is woken: both raise `Cancelled` in their threads."""
        self._closed.set()
        with self._lock:
            running = list(self._running)
        for future in running:
            future.cancel()

    def _client(self, url: str) -> tuple[Any, Patience]:
        """(file system, how errors of its bucket are met), of this process: a connection does not survive a fork."""
        scheme, _, rest = url.partition("://")
        bucket = f"{scheme}://{rest.partition('/')[0]}"
        known = os.getpid(), bucket
        if known not in self._clients:
            with self._opening:
                if known not in self._clients:
                    self._clients[known] = self._open_client(url, scheme, bucket)
        return self._clients[known]

    def _open_client(self, url: str, scheme: str, bucket: str) -> tuple[Any, Patience]:
        options = remote_options(self._store, url)
        if scheme == "s3":
            silence = max(self._config.stall_seconds, _SILENCE_SECONDS)
            own = {
                "connect_timeout": silence,
                "read_timeout": silence,
                "retries": {"total_max_attempts": 1},
                "max_pool_connections": 0,  # no limit of its own: a wait for it would count as a stall
            }
            options = {**options, "config_kwargs": {**options.get("config_kwargs", {}), **own}}
        file_system, _ = remote_file_system(url, options)
        patience = Patience(
            bucket, options, self._config.retry_seconds, most_tries=self._config.retries + 1, rest=self._rest
        )
        if scheme == "s3":
            file_system.retries = 1  # `Patience` is the only loop that asks again
            patience.call(f"open {bucket}", lambda: self._await(file_system, file_system.set_session, _SLOW_SECONDS))
        return file_system, patience

    def _allowed(self, size: int, number: int) -> float:
        """Seconds that attempt `number` may take, from when it has a connection."""
        return (self._config.stall_seconds + size / self._config.least_rate) * 2 ** min(number, _MOST_DOUBLINGS)

    def _start(self, file_system: Any, request: Request, seconds: float) -> "Future[bytes]":
        """A request under way, cut after `seconds`; waits until a connection is free."""
        self._free.acquire()
        try:
            future = self._submit(file_system, request, seconds)
        except BaseException:
            self._free.release()
            raise
        future.add_done_callback(lambda _: self._free.release())
        return future

    def _result(self, future: "Future[Any]", seconds: float) -> Any:
        """What a request gave. Raises TimeoutError where it was cut, `Cancelled` where the reader was closed meanwhile."""
        try:
            return future.result(seconds + _GRACE_SECONDS)
        except FutureCancelled:
            raise Cancelled(_CLOSED) from None
        except Exception as error:
            if _was_cut(error):
                self._counter.add(cut=1)
            raise
        finally:
            future.cancel()

    def _await(self, file_system: Any, request: Request, seconds: float) -> Any:
        """What a request that is for no range gives. Raises as `_result` does."""
        return self._result(self._submit(file_system, request, seconds), seconds)

    def _submit(self, file_system: Any, request: Request, seconds: float) -> "Future[Any]":
        with self._lock:
            self._refuse_closed()
            future = asyncio.run_coroutine_threadsafe(_within(seconds, request), file_system.loop)
            self._running.add(future)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: "Future[Any]") -> None:
        with self._lock:
            self._running.discard(future)

    def _rest(self, seconds: float) -> None:
        self._closed.wait(seconds)
        self._refuse_closed()

    def _refuse_closed(self) -> None:
        if self._closed.is_set():
            raise Cancelled(_CLOSED)

    def _renew(self, file_system: Any) -> str:
        if "s3" not in file_system.protocol:
            return "renew GOOGLE_APPLICATION_CREDENTIALS"
        with self._renewing:
            if time.monotonic() - self._renewed > _RENEWED_SECONDS:  # else another thread did so, a moment ago
                self._await(file_system, partial(file_system.set_session, refresh=True), _SLOW_SECONDS)
                self._renewed = time.monotonic()
        return "fresh ones were asked for, and have expired, too: renew what AWS_PROFILE or the environment names"


async def _within(seconds: float, request: Request) -> Any:
    async with asyncio.timeout(seconds):
        return await request()


async def _range_of(file_system: Any, url: str, offset: int, size: int) -> bytes:
    path = str(file_system._strip_protocol(url))
    try:
        if "s3" in file_system.protocol:
            return await _range_of_s3(file_system, path, url, offset, size)
        data: bytes = await file_system._cat_file(path, start=offset, end=offset + size)
    except Exception as error:
        if is_empty_range(error):
            raise DataError(_too_short(url, "ends before", offset, size)) from None
        raise
    if len(data) != size:
        raise DataError(_too_short(url, f"ends at byte {offset + len(data)}", offset, size))
    return data


async def _range_of_s3(file_system: Any, path: str, url: str, offset: int, size: int) -> bytes:
    bucket, key, _ = file_system.split_path(path)
    span = f"bytes={offset}-{offset + size - 1}"
    answer = await file_system._call_s3("get_object", Bucket=bucket, Key=key, Range=span)
    body = answer["Body"]
    try:
        whole = str(answer.get("ContentRange", "")).rpartition("/")[2]
        if whole.isdigit() and int(whole) < offset + size:
            raise DataError(_too_short(url, f"ends at byte {whole}", offset, size))
        if answer["ContentLength"] != size:
            raise InputError(
                f"{url}: {size} bytes at {offset} were asked for, and the service gives {answer['ContentLength']}: a gateway "
                "before the bucket drops the header Range, without which records cannot be read"
            )
        data: bytes = await body.read()
        return data
    finally:
        body.close()  # of a body that was not read to its end: its connection, too


def _too_short(url: str, how: str, offset: int, size: int) -> str:
    words = "the shard is cut short, or the table of records is of another"
    return f"{url} {how}, {size} bytes at {offset} were asked for: {words}"


def _was_cut(error: BaseException) -> bool:
    """Whether a request ended by its deadline, or by the client's own limit on silence."""
    return any(
        base.__name__ in ("TimeoutError", "ReadTimeoutError", "ConnectTimeoutError") for base in type(error).__mro__
    )
