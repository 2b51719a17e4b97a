"""A stage's output on its way into the store: appended to the attempt's log as it comes."""

import threading
import time
from typing import TYPE_CHECKING

from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts.runs import Run

_SECONDS_BETWEEN_UPLOADS = 5.0


class LogWriter:
    """The log of one attempt; each line gets the time it came (UTC). On a remote store it is uploaded every few seconds."""

    def __init__(self, run: "Run", node: str, attempt: int) -> None:
        self._run, self._node, self._attempt = run, node, attempt
        self._file = run.log_path(node, attempt).open("a", encoding="utf-8", errors="replace")
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._upload_often, name=f"log-{node}", daemon=True)

    def __enter__(self) -> "LogWriter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=30.0)
        with self._lock:
            self._file.close()
        self._upload()

    def write(self, line: str) -> None:
        """Add one line. A disk that is full loses the line, not the stage."""
        with self._lock:
            if self._file.closed:
                return
            try:
                self._file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n")
                self._file.flush()
            except OSError as error:
                get_logger(__name__).warning("the log of %s could not be written: %s", self._node, error)

    def _upload_often(self) -> None:
        while not self._over.wait(_SECONDS_BETWEEN_UPLOADS):
            self._upload()

    def _upload(self) -> None:
        try:
            self._run.write_log(self._node, self._attempt)
        except Exception as error:
            get_logger(__name__).warning("the log of %s could not be written: %s", self._node, error)
