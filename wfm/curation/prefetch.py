"""Making things ahead of whoever uses them, by at most so many bytes.

The bound is in bytes, not in items: ten pictures of 8K weigh what a thousand small ones do, and a bound by count is how
pipelines run out of memory.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import av

Item = TypeVar("Item")


def frame_bytes(frame: "av.VideoFrame") -> int:
    """What a decoded frame weighs."""
    return sum(plane.buffer_size for plane in frame.planes)


@contextlib.contextmanager
def ahead(source: Iterator[Item], maximum_bytes: int, size_of: Callable[[Item], int]) -> Iterator[Iterator[Item]]:
    """The items of ``source``, in order, made in a thread that runs ahead by at most ``maximum_bytes`` (0: no thread).

    One item may always wait, however large. An error of the source is raised where its item would have come. Leaving the
    block ends the thread; the source is not used any more after that.
    """
    if maximum_bytes <= 0:
        yield source
        return
    queue = _Queue(source, maximum_bytes, size_of)
    thread = threading.Thread(target=queue.fill, name="wfm-prefetch", daemon=True)
    thread.start()
    try:
        yield queue.drain()
    finally:
        queue.stop()
        thread.join()


class _Queue(Generic[Item]):
    def __init__(self, source: Iterator[Item], maximum_bytes: int, size_of: Callable[[Item], int]) -> None:
        self._source, self._maximum, self._size_of = source, maximum_bytes, size_of
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def fill(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._source:
                if not self._put(item, self._size_of(item)):
                    break
                del item  # or it would be held, uncounted, while the next one is made
        except BaseException as found:  # raised again by whoever drains
            error = found
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def _put(self, item: Item, size: int) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._items or self._bytes + size <= self._maximum)
            self._items.append((item, size))
            self._bytes += size
            self._changed.notify_all()
            return not self._stopped

    def drain(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._items) or self._ended)
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item, size = self._items.popleft()
                self._bytes -= size
                self._changed.notify_all()
            yield item

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
