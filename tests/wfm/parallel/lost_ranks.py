"""Ranks that lose one of theirs (see test_ranks.py): by `HOW`, rank 1 of two is killed, stops, or exits between two calls.

    python -m tests.wfm.parallel.lost_ranks OUT

OUT gets a line for each: how, seconds until rank 0 knew, what it was told.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tests.wfm.parallel.forked import fork_ranks
from wfm.parallel.ranks import RankLost, Ranks

SECONDS = 4.0
"""For each call."""
HOW = ("SIGKILL", "SIGSTOP", "exit")


def losing(how: str, out: Path) -> Callable[[Ranks], None]:
    """What a rank does."""

    def work(ranks: Ranks) -> None:
        model = nn.Linear(3, 2)
        ranks.begin_alike(model)
        ranks.require_alike(model, label="start")
        assert ranks.gather(ranks.rank) == [0, 1]
        ranks.barrier("before")
        if ranks.rank == 1:
            (out / "pid").write_text(str(os.getpid()))
            if how == "exit":
                os._exit(0)
            os.kill(os.getpid(), signal.Signals[how])
        began = time.monotonic()
        try:
            for _ in range(3):
                model.zero_grad()
                loss = model(torch.ones(1, 3)).sum()
                loss.backward()
                ranks.add_up(model, loss.detach(), label="step 5")
        except RankLost as error:
            told = {"how": how, "seconds": time.monotonic() - began, "words": str(error)}
            (out / f"{how}.json").write_text(json.dumps(told))
        finally:
            os.kill(int((out / "pid").read_text()), signal.SIGKILL)  # one that was stopped would never end

    return work


def main() -> None:
    out = Path(sys.argv[1])
    for how in HOW:
        fork_ranks(2, losing(how, out), SECONDS)


if __name__ == "__main__":
    main()
