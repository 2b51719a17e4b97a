"""How far a training runs ahead of the store: never more than one interval past what is committed there.

Checkpoints travel behind the training's back (`wfm.artifacts.uploads`). A step that would be more than `checkpoint_every` steps
past the newest one in the store waits until a newer one is there: so whoever loses the machine at any moment, scratch and all,
makes at most `checkpoint_every` steps again, however slow the store is. (With `checkpoint_store_seconds` those are the steps of
so many seconds, and up to the next save.)

A quick store costs that moment. Where the training had to wait for long, checkpoints are made earlier from then on, by up to
half an interval, so that the next one travels while the steps go on: then only a store that takes more than half an interval
for a checkpoint holds up the training. When steps are saved changes nothing that is computed.
"""

import time
from collections.abc import Callable

from wfm.artifacts.uploads import Uploads
from wfm.errors import TryAgain
from wfm.log import get_logger
from wfm.parallel.ranks import Ranks
from wfm.pulse import beat
from wfm.training.config import TrainingConfig

LONG_SECONDS = 2.0
"""A wait that is worth an earlier checkpoint."""
_LOOK_SECONDS = 1.0
"""Between two questions whether to stop, while the training waits."""
_log = get_logger(__name__)


class Pace:
    """When to save, and when to wait for the store. All ranks have one and make the same calls; rank 0 alone has `uploads`,
    which are None where there is no store."""

    def __init__(self, config: TrainingConfig, ranks: Ranks, uploads: Uploads | None, first: int) -> None:
        self.waited = 0.0
        "For the store, in all [s]."
        self._every, self._seconds = config.checkpoint_every, config.checkpoint_store_seconds
        self._patience = config.stall_seconds
        self._ranks, self._uploads = ranks, uploads
        self._earlier = 0
        "Steps by which checkpoints are made before their interval is over."
        self._kept = first
        self._made = {first: time.monotonic()}
        "When the state of a checkpoint was taken, by step."

    def due(self, done: int) -> bool:
        """Whether to save after so many steps."""
        if not self._earlier:
            return done % self._every == 0
        return done - self._kept >= self._every - self._earlier

    def kept(self, step: int) -> None:
        """A checkpoint of this step was made."""
        self._kept = step
        self._made[step] = time.monotonic()

    def behind(self, done: int) -> bool:
        """Whether the store is too far behind for another step after so many. Asked of rank 0, whose answer is for all."""
        if self._uploads is None or not self._uploads.busy:
            return False
        safe = self._uploads.safe or 0
        self._made = {step: when for step, when in self._made.items() if step >= safe}
        ago = time.monotonic() - self._made.get(safe, 0.0)
        return done - safe >= self._every and ago >= self._seconds

    def await_store(self, done: int, stopping: Callable[[], bool]) -> bool:
        """Wait until the store is no longer `behind`; all ranks. Returns whether one of them was asked to stop meanwhile.
        Raises TryAgain when all that the store did for `stall_seconds` was to fail."""
        began, long, stop = time.monotonic(), False, False
        had = 0 if self._uploads is None else self._uploads.safe or 0
        while True:
            beat("save")
            if self._uploads is not None:
                self._uploads.wait(lambda: not self.behind(done), _LOOK_SECONDS)
                self._refuse_a_store_that_fails(done)
            late = time.monotonic() - began >= LONG_SECONDS
            behind, late = self._ranks.any_of(self.behind(done), late, label="the store")
            if late and not long:
                long = True
                self._say("step %d waits for the store, which has step %d", done + 1, had)
            if not behind or (stop := self._ranks.any(stopping(), label="stop in the wait for the store")):
                break
        seconds = time.monotonic() - began
        self.waited += seconds
        if long:
            self._earlier = min(max(2 * self._earlier, 1), self._every // 2)
            self._say("waited %.1f s for the store (%.1f s in all)", seconds, self.waited)
        return stop

    def _refuse_a_store_that_fails(self, done: int) -> None:
        assert self._uploads is not None
        seconds, why = self._uploads.failing
        if seconds > self._patience:
            raise TryAgain(
                f"the store has taken no checkpoint for {seconds:.0f} s ({why}): the training ends at step {done}, which this "
                "machine keeps, and does not run further ahead of what is safe"
            )

    def _say(self, words: str, *values: float) -> None:
        if self._ranks.leads:
            _log.warning(words, *values)

    def words(self) -> str:
        """For the line of progress; empty as long as nobody waited."""
        return f", waited {self.waited:.0f} s for the store" if self.waited >= 1 else ""
