"""A stage's output on its way into the store: lines gathered for a second, then written to the run's log."""

import threading
import time
from typing import TYPE_CHECKING

from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts import Run

_SECONDS_BETWEEN_WRITES = 1.0


class LogWriter:
    """Appends lines to the log of one attempt; each line gets the time it came (UTC)."""

    def __init__(self, run: "Run", node: str, attempt: str) -> None:
        self._run, self._node, self._attempt = run, node, attempt
        self._lines: list[str] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._flush_often, name=f"log-{node}", daemon=True)

    def __enter__(self) -> "LogWriter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=30.0)
        self._flush()

    def write(self, line: str) -> None:
        """Add one line."""
        with self._lock:
            self._lines.append(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n")

    def _flush_often(self) -> None:
        while not self._over.wait(_SECONDS_BETWEEN_WRITES):
            self._flush()

    def _flush(self) -> None:
        """Write what has gathered; a store that does not answer keeps the lines here for the next time."""
        with self._lock:
            lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            self._run.write_log(self._node, self._attempt, "".join(lines))
        except Exception as error:
            get_logger(__name__).warning("the log of %s could not be written: %s", self._node, error)
            with self._lock:
                self._lines = lines + self._lines
