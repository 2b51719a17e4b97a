"""The record of one try at a node, which the stage keeps itself, whoever started it.

    log = StageLog.begin()                  # its output is caught from here on (`stage_log.py`)
    attempt = StageAttempt(spec, log)
    attempt.open()                          # attempt.json is there before any work: a kill leaves it
    attempt.makes(key)
    attempt.leave_if_final()                # earlier tries of this run at this key, which ended for good, are not redone
    attempt.close({"outcome": "done", …})   # outcome.json

While it is open a thread replaces ``usage.json`` every `BEAT_SECONDS`: what the try has used until now, so that one that is
killed costs too, and the last progress. The same thread looks whether somebody asked the run to stop, and then stops the
stage as SIGTERM does: so `wfm cancel` works with no engine alive. A try that cannot be noted does not begin: the store is
asked for `PATIENCE_SECONDS`, then the stage ends as try_again.

Of a stage of several processes rank 0 opens and closes the attempt; each other `joins` it with a log and a usage of its own.
Where rank 0 is gone before it told the others, one of them `stands_in`: it takes up rank 0's attempt, or opens one.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from components.board import FOLDER
from components.stage_log import StageLog, open_store
from components.usage import StageUsage
from wfm import stopping
from wfm.artifacts import schema
from wfm.artifacts.address import new_id
from wfm.artifacts.lease import this_process
from wfm.artifacts.runs import SCHEMA_VERSION
from wfm.crash_points import crash_point
from wfm.errors import Cancelled, InputError, Outcome, TryAgain, WfmError, exit_code_of, is_final
from wfm.log import get_logger, last_progress

if TYPE_CHECKING:
    from wfm.artifacts.runs import Run

TOKEN = "WFM_ATTEMPT"
"""What whoever starts a stage may give it: a token by which to find the attempt that the stage opens."""
ENGINE = "WFM_ENGINE"
POD = "POD_NAME"
LEASE_HELD = "lease_held"
"""What an outcome says besides when the try ended because another process works on the key: nothing failed."""
_ON_A_CLUSTER = "kubernetes"
"""The engine of pods that a launcher watches (`wfm.cluster.pod`)."""
LAUNCHER_SECONDS = 120.0
"""How long a launcher may take to stop what somebody wants stopped [s]."""
BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 150.0
"""How long the store is asked to take the beginning or the end of a try [s]: longer than a minute's absence, and than the
store's own patience with one request."""
_LONGEST_WAIT = 10.0
_log = get_logger("wfm.stage")

Answer = TypeVar("Answer")


class EndedBefore(WfmError):
    """An earlier try of this run at the same key ended for good; so does this one, with the same outcome."""

    def __init__(self, number: int, outcome: Outcome, reason: str) -> None:
        super().__init__(f"try {number} of this run ended for good, so this one does not begin: {reason}")
        self.outcome, self.exit_code = outcome, exit_code_of(outcome)  # type: ignore[misc]


class StageAttempt:
    """One try at the node of a spec, as one of its processes sees it."""

    def __init__(
        self, spec: Mapping[str, Any], log: StageLog, parts: str | None = None, *, rank: int = 0, size: int = 1
    ) -> None:
        self._spec, self._log, self._rank, self._size = spec, log, rank, size
        self.notes: dict[str, Any] = {} if parts is None else {"parts": parts[:100]}
        "What record and outcome say besides: the range of parts that this is a try at."
        self.number = 0
        "As in the store; 0 as long as this try is not noted there."
        self.cancelled = False
        "Whether it stops since somebody asked its run to."
        self.usage = StageUsage()
        self._started = time.time()
        self._key = ""
        self._run: Run | None = None
        self._earlier = 0
        self._over = threading.Event()
        self._beating = threading.Lock()
        self._heard = 0.0

    def open(self) -> None:
        """Note that this try begins. Raises TryAgain when the store does not take it, InputError when there is no such run."""

        def note() -> int:
            return self._checked_run().append_attempt(self._spec["node"], record)

        record = self._record()
        self._noted(patiently(note, "the beginning of this try cannot be noted"))
        crash_point("after_attempt_open")

    def _record(self) -> dict[str, Any]:
        return {
            **this_process(), "pod": os.environ.get(POD, ""), "engine": os.environ.get(ENGINE, ""), "ranks": self._size,
            "token": _token(self._size), "started": self._started, **self.notes,
        }  # fmt: skip

    def look_around(self) -> None:
        """As another rank, before it looks for rank 0: see which attempts are of earlier starts, so that `stands_in` takes none
        of them for this one's. A store that does not answer now is none of this rank's business yet."""
        try:
            newest = max(self._its_run().attempts(self._spec["node"]), default=0)
            ended = newest and self._its_run().read_outcome(self._spec["node"], newest) is not None
        except (WfmError, OSError) as error:
            _log.debug("the attempts before this one cannot be seen: %s", error)
            return
        self._earlier = newest if ended else max(newest - 1, 0)

    def stands_in(self) -> str:
        """As another rank: belong to the attempt that rank 0 opened in this start, or open it in its stead, once for all ranks;
        returns in words when rank 0 was last heard. Raises TryAgain when the store does not take it."""
        node, record = self._spec["node"], {**self._record(), "opened_by": f"rank {self._rank}"}

        def note() -> str:
            run = self._checked_run()
            number = run.append_attempt(node, record, unless_after=self._earlier)
            there, usage = run.read_attempt(node, number) or {}, run.read_usage(node, number) or {}
            self.joins(number)
            if "opened_by" in there:
                return "rank 0 opened no attempt"
            heard = usage.get("at") or there.get("started_at")
            return f"rank 0 opened this attempt on host {there.get('host')} and was last heard at {heard}"

        return patiently(note, "the end of rank 0 cannot be noted", whatever_is_asked=True)

    def joins(self, number: int) -> None:
        """Belong to the attempt that rank 0 has opened. A second call does nothing."""
        if number and not self.number:
            self._noted(number)

    def _noted(self, number: int) -> None:
        self.number = number
        self._log.ship_to(self._spec["store"], self._spec["run_id"], self._spec["node"], number, self._rank)
        if not self._rank:
            self._beat()  # a wish to stop is heard before work begins
        threading.Thread(target=self._keep_beating, name="attempt", daemon=True).start()

    def makes(self, key: str) -> None:
        """Say what this try is to make: its outcome names it."""
        self._key = key

    def leave_if_final(self) -> None:
        """Raises `EndedBefore` when earlier tries of this run at the same key (and range of parts) ended so that another cannot
        help, whatever an engine thinks; those of other code had another key."""
        if self._run is None:
            return
        node, same = self._spec["node"], []
        for number in self._run.attempts(node):
            ended = self._run.read_outcome(node, number) if number != self.number else None
            if ended is not None and (ended.get("key"), ended.get("parts")) == (self._key, self.notes.get("parts")):
                same.append((number, ended))
        if is_final([str(ended.get("outcome", "")) for _, ended in same]):
            number, last = next((one for one in reversed(same) if "repeats" not in one[1]), same[-1])
            self.notes["repeats"] = number
            outcome: Outcome = "wrong_input" if last["outcome"] == "wrong_input" else "bug"
            raise EndedBefore(number, outcome, str(last.get("reason", "")))

    def close(self, answer: Mapping[str, Any]) -> None:
        """Note how it ended, with all it printed and used, if nobody did yet. On a store that stays broken the exit code still
        tells."""
        self._over.set()
        crash_point("before_outcome")
        if self.number:
            outcome = {**answer, "key": answer.get("key") or self._key, **self.notes}
            if not self._rank:
                outcome |= self.usage.read()
            self._log.flush()  # whoever sees the outcome finds the whole log

            def write() -> None:
                self._its_run().write_outcome(self._spec["node"], self.number, outcome)

            try:
                patiently(write, "the outcome cannot be written", whatever_is_asked=True)
            except Exception as error:
                _log.error("outcome could not be written: %s: %s", type(error).__name__, error)

    def leave(self) -> None:
        """The last of it before the process ends: what a rank that only worked along has used, and the rest of the log."""
        self._over.set()
        if self._rank and self.number:
            self._beat()
        self._log.end()

    def _checked_run(self) -> "Run":
        """Raises InputError when there is no such run."""
        run = open_store(self._spec["store"]).runs.open(self._spec["run_id"])
        if run.id != self._spec["run_id"]:  # one whose id begins so
            raise InputError(f"there is no run {self._spec['run_id']} in {self._spec['store']}")
        self._run = run
        return run

    def _its_run(self) -> "Run":
        if self._run is None:
            self._run = open_store(self._spec["store"]).runs.of(self._spec["run_id"])
        return self._run

    def _keep_beating(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        """Write the usage, look for a wish to stop. What a store does not take now it takes ten seconds later."""
        if not self._beating.acquire(blocking=False):
            return  # the store is slow, and the other thread at it
        try:
            usage = {"every": BEAT_SECONDS, "seconds": time.time() - self._started, "progress": last_progress()}
            usage |= self.usage.read()
            self._its_run().write_usage(self._spec["node"], self.number, usage, self._rank)
            by = "" if self._rank or stopping.asked.is_set() else self._its_run().cancelled_by()
            if by and self._is_its_launchers():
                by = ""
        except Exception as error:
            _log.debug("no beat: %s: %s", type(error).__name__, error)
            return
        finally:
            self._beating.release()
        if by:
            _log.info("%s: %s asked this run to stop", self._spec["node"], by)
            self.cancelled = True
            stopping.ask()

    def _is_its_launchers(self) -> bool:
        """Whether a wish to stop is the launcher's to fulfil, on a cluster: it ends the job unless another run needs it, and
        says so in the run (`wfm.cluster.records`). One that does neither for long is not there: the stage stops itself."""
        if os.environ.get(ENGINE) != _ON_A_CLUSTER:
            return False
        self._heard = self._heard or time.monotonic()
        return self._leaves_it_to_others() or time.monotonic() - self._heard < LAUNCHER_SECONDS

    def _leaves_it_to_others(self) -> bool:
        """Whether the launcher says that it is through with the node on this run's part."""
        path = f"launcher/{self._spec['node']}.json"
        said = self._its_run().read(path)
        try:
            return said is not None and schema.decode(said, path, SCHEMA_VERSION).get("ended") == Cancelled.outcome
        except InputError:  # nothing that a launcher wrote: the wish to stop still stands
            return False


def _token(size: int) -> str:
    """By which to find the attempt: as given, else one that the ranks of a job have in common, for they meet in one place."""
    given = os.environ.get(TOKEN, "")
    if size > 1 and not given:
        meeting = [os.environ.get(name, "") for name in (FOLDER, "MASTER_ADDR", "MASTER_PORT")]
        return f"ranks at {':'.join(filter(None, meeting))}"
    return given or new_id()


def patiently(ask: Callable[[], Answer], what: str, *, whatever_is_asked: bool = False) -> Answer:
    """Ask the store until it answers, at most `PATIENCE_SECONDS`; wrong input is raised at once. Raises TryAgain, and Cancelled
    when the stage is asked to stop meanwhile (unless it is at its end anyway: `whatever_is_asked`)."""
    began, wait = time.monotonic(), 0.5
    while True:
        try:
            return ask()
        except InputError:
            raise
        except (TryAgain, OSError) as error:
            if time.monotonic() - began + wait > PATIENCE_SECONDS:
                raise TryAgain(f"{what}: {type(error).__name__}: {error}") from error
            _log.warning("%s; asking again in %.1f s: %s", what, wait, error)
        if whatever_is_asked:
            time.sleep(wait)
        elif stopping.asked.wait(wait):
            raise Cancelled(f"stopped while waiting for the store: {what}")
        wait = min(wait * 2, _LONGEST_WAIT)
