"""The record of one try at a node: opened before any work, so that a kill leaves one, and closed with its outcome."""

import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.context import store_options
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts.runs import Run


class StageAttempt:
    """One try at the node of a spec."""

    def __init__(self, spec: Mapping[str, Any], parts: str | None = None, *, opens: bool = True) -> None:
        """`opens`: not for a rank that only follows; its `number` is what rank 0 tells it."""
        self._spec = spec
        self.notes: dict[str, Any] = {} if parts is None else {"parts": parts[:100]}
        "What record and outcome say besides: the range of parts that this is a try at."
        self.number = int(os.environ.get("WFM_ATTEMPT") or 0) or (self._open() if opens else 0)

    def _open(self) -> int:
        """A number for this try where whoever started it took none; before any work, so that a kill leaves a record. 0 when
        the store does not take it now."""
        try:
            return self._run().append_attempt(self._spec["node"], {"host": socket.gethostname(), **self.notes})
        except Exception as error:
            get_logger("wfm.stage").error("attempt could not be noted: %s: %s", type(error).__name__, error)
            return 0

    def close(self, outcome: Mapping[str, Any]) -> None:
        """Write how it ended. Best effort on a broken store: the exit code still tells."""
        try:
            run, node = self._run(), self._spec["node"]
            run.write_outcome(node, self.number or run.append_attempt(node), {**outcome, **self.notes})
        except Exception as error:
            get_logger("wfm.stage").error("outcome could not be written: %s: %s", type(error).__name__, error)

    def _run(self) -> "Run":
        from wfm.artifacts import Store

        return Store.open(self._spec["store"], store_options()).runs.open(self._spec["run_id"])
