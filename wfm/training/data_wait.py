"""Several ranks wait for data together: one that waits cannot leave alone, and nobody goes into a step before all have theirs.

A rank whose batch is there waits with the others, a short look at a time, in which all say whether they were asked to stop: so
a wish that reached any of them ends the wait of all within `LOOK_SECONDS`, before the step, where a checkpoint can be made.
"""

import time
from collections.abc import Callable

from wfm.data.loader.loading import Loader
from wfm.errors import TryAgain
from wfm.parallel.ranks import Ranks

LOOK_SECONDS = 0.2
"""Between two questions whether to stop, while some rank waits."""


def await_data(data: Loader, ranks: Ranks, stopping: Callable[[], bool], patience: float) -> bool:
    """Wait until every rank has its next batch; returns whether one was asked to stop meanwhile. All ranks call it.

    Raises TryAgain, on the rank that waits, when nothing was read for `patience` seconds: talking with the others is a sign of
    life, and whoever watches this process would not see that it hangs.
    """
    seen, since = data.got_on, time.monotonic()
    while True:
        late = not data.ready(LOOK_SECONDS)
        if data.got_on != seen:
            seen, since = data.got_on, time.monotonic()
        if late and (seconds := time.monotonic() - since) > patience:
            raise TryAgain(f"data: rank {ranks.rank} waits for a batch, and nothing was read for {seconds:.0f} s")
        waits = ranks.any(late, label="data")
        if not waits:
            return False
        if ranks.any(stopping(), label="stop in the wait for data"):
            return True
