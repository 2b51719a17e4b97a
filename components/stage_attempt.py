"""The record of one try at a node, which the stage keeps itself, whoever started it.

    attempt = StageAttempt(stop)    # its output is caught from here on (`stage_log.py`)
    attempt.open(spec)              # attempt.json is there before any work: a kill leaves it
    attempt.makes(key)
    attempt.leave_if_final()        # earlier tries of this run at this key, which ended for good, are not redone
    attempt.close("done", "", 0)    # outcome.json

While it is open a thread replaces ``usage.json`` every `BEAT_SECONDS`: what the try has used until now, so that one that is
killed costs too, and the last progress. The same thread looks whether somebody asked the run to stop, and then stops the
stage as SIGTERM does: so `wfm cancel` works with no engine alive. A try that cannot be noted does not begin: the store is
asked for `PATIENCE_SECONDS`, then the stage ends as try_again.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from components.stage_log import StageLog, open_store
from components.usage import StageUsage
from wfm.artifacts.address import new_id
from wfm.artifacts.lease import this_process
from wfm.crash_points import crash_point
from wfm.errors import Cancelled, InputError, TryAgain, WfmError, exit_code_of, is_final
from wfm.log import get_logger, last_progress

if TYPE_CHECKING:
    from wfm.artifacts.runs import Run

TOKEN = "WFM_ATTEMPT"
"""What whoever starts a stage may give it: a token by which to find the attempt that the stage opens."""
ENGINE = "WFM_ENGINE"
POD = "POD_NAME"
BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 150.0
"""How long the store is asked to take the beginning or the end of a try [s]: longer than a minute's absence, and than the
store's own patience with one request."""
_LONGEST_WAIT = 10.0

Answer = TypeVar("Answer")


class EndedBefore(WfmError):
    """An earlier try of this run at the same key ended for good; so does this one."""

    def __init__(self, number: int, outcome: str, reason: str) -> None:
        super().__init__(f"try {number} of this run ended for good, so this one does not begin: {reason}")
        self.outcome, self.exit_code = outcome, exit_code_of(outcome)  # type: ignore[misc]
        self.number, self.reason = number, reason


class StageAttempt:
    """One try at the node of a spec; `stop` is set when the stage is to end."""

    def __init__(self, stop: threading.Event, ranks: int = 1) -> None:
        self._stop, self._ranks = stop, ranks
        self._started = time.time()
        self._log = StageLog.begin()
        self._run: Run | None = None
        self._node, self._key = "", ""
        self.number = 0
        self._over = threading.Event()
        self._beats: threading.Thread | None = None
        self.usage = StageUsage(ranks)

    def open(self, spec: Mapping[str, Any]) -> None:
        """Note that this try begins. Raises TryAgain when the store does not take it, InputError when there is no such run."""
        record = {
            **this_process(), "pod": os.environ.get(POD, ""), "engine": os.environ.get(ENGINE, ""), "ranks": self._ranks,
            "token": os.environ.get(TOKEN) or new_id(), "started": self._started,
        }  # fmt: skip

        def note() -> tuple["Run", int]:
            run = open_store(spec["store"]).runs.open(spec["run_id"])
            return run, run.append_attempt(spec["node"], record)

        self._run, self.number = patiently(note, self._stop, "the beginning of this try cannot be noted")
        self._node = spec["node"]
        self._log.ship_to(spec["store"], spec["run_id"], self._node, self.number)
        crash_point("after_attempt_open")
        self._beat()
        self._beats = threading.Thread(target=self._keep_beating, name="attempt", daemon=True)
        self._beats.start()

    def makes(self, key: str) -> None:
        """Say what this try is to make: its outcome names it."""
        self._key = key

    def leave_if_final(self) -> None:
        """Raises `EndedBefore` when earlier tries of this run at the same key ended so that another cannot help, whatever an
        engine thinks; those of other code had another key."""
        if self._run is None:
            return
        earlier = [
            (number, outcome)
            for number in self._run.attempts(self._node)
            if number < self.number and (outcome := self._run.read_outcome(self._node, number)) is not None
        ]
        same = [(number, outcome) for number, outcome in earlier if outcome.get("key") == self._key]
        if is_final([str(outcome.get("outcome", "")) for _, outcome in same]):
            number, last = same[-1]
            repeated = last.get("repeats")
            number = repeated if isinstance(repeated, int) else number
            raise EndedBefore(number, str(last["outcome"]), str(last.get("first_reason") or last.get("reason", "")))

    def close(self, outcome: str, reason: str, code: int, error: BaseException | None = None) -> None:
        """Note how it ended, with all it printed and used. On a store that stays broken the exit code still tells."""
        self._over.set()
        crash_point("before_outcome")
        if self._run is not None:
            seconds = time.time() - self._started
            answer = {"outcome": outcome, "reason": reason, "key": self._key, "seconds": seconds, "exit_code": code}
            if isinstance(error, EndedBefore):
                answer |= {"repeats": error.number, "first_reason": error.reason}
            answer |= self.usage.read()
            self._log.flush()  # whoever sees the outcome finds the whole log
            run = self._run
            try:
                patiently(lambda: run.write_outcome(self._node, self.number, answer), threading.Event(), "the outcome")
            except Exception as trouble:
                get_logger("wfm.stage").error("outcome could not be written: %s: %s", type(trouble).__name__, trouble)
        crash_point("after_outcome")
        self._log.end()

    def _keep_beating(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        """Write the usage, look for a wish to stop. What a store does not take now it takes ten seconds later."""
        assert self._run is not None
        try:
            usage = {"every": BEAT_SECONDS, "seconds": time.time() - self._started, "progress": last_progress()}
            self._run.write_usage(self._node, self.number, usage | self.usage.read())
            by = "" if self._stop.is_set() else self._run.cancelled_by()
        except Exception as error:
            get_logger("wfm.stage").debug("no beat: %s: %s", type(error).__name__, error)
            return
        if by:
            get_logger("wfm.stage").info("%s: %s asked this run to stop", self._node, by)
            self._stop.set()


def patiently(ask: Callable[[], Answer], stop: threading.Event, what: str) -> Answer:
    """Ask the store until it answers, at most `PATIENCE_SECONDS`; wrong input is raised at once. Raises TryAgain, Cancelled."""
    began, wait = time.monotonic(), 0.5
    while True:
        try:
            return ask()
        except InputError:
            raise
        except (TryAgain, OSError) as error:
            if time.monotonic() - began + wait > PATIENCE_SECONDS:
                raise TryAgain(f"{what}: {type(error).__name__}: {error}") from error
            get_logger("wfm.stage").warning("%s; asking again in %.1f s: %s", what, wait, error)
        if stop.wait(wait):
            raise Cancelled(f"stopped while waiting for the store: {what}")
        wait = min(wait * 2, _LONGEST_WAIT)
