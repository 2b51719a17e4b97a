"""What ranks that are processes train (see test_ranks.py).

    python -m tests.wfm.training.ranks_of_training OUT

Two ranks and four go on in OUT/2 and OUT/4: the runs named in `EXACT`, each from the beginning, and what two do besides. Every
rank writes what it saw and how each of its runs ended, rank 0 the weights.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.wfm.parallel.forked import fork_ranks
from tests.wfm.training.rank_runs import PLANTED, STRICT, Done, planted, run
from tests.wfm.training.whole_fit import fit
from wfm.artifacts import Store
from wfm.models.folder import save_tensors
from wfm.parallel.ranks import ProcessRanks, Ranks
from wfm.training.objective import Objective

EXACT = {
    2: ("diffusion", "autoregressive", "adversarial"),
    4: ("diffusion", "autoregressive", "tokenizer"),
}
STOPPED_AT, BEGUN_BY_ONE = 7, 9


class Spoilt:
    """An objective whose loss is not a number at one step on one rank."""

    def __init__(self, objective: Objective, ranks: Ranks) -> None:
        self.objective, self.ranks = objective, ranks

    def loss(self, model: Any, batch: Mapping[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        loss, values = self.objective.loss(model, batch, step)
        return (loss * torch.nan if step == 3 and self.ranks.rank == 1 else loss), values


def work(out: Path) -> Callable[[Ranks], None]:
    """What a rank does."""

    def ranks_work(ranks: Ranks) -> None:
        folder = out / str(ranks.size)
        ends: dict[str, dict[str, Any]] = {}

        def note(name: str, of: str, **values: Any) -> None:
            again = ProcessRanks(ranks.rank, ranks.size, 60.0)  # those of a run that failed have parted
            try:
                done: Done = run(of, folder / name, again, **values)
            except Exception as error:
                ends[name] = {"error": f"{type(error).__name__}: {error}"}
                return
            ends[name] = {"seen": done.seen, "final": done.result.final, "resumed_from": done.result.resumed_from}
            ends[name]["left_out"] = done.result.left_out
            if again.leads:
                save_tensors(done.weights(), folder / f"{name}.safetensors")

        for name in EXACT[ranks.size]:
            note(name, name, validate=lambda model: {"rank": float(ranks.rank)})
        if ranks.size == 2:
            asked = iter(range(100))
            note("stopped", "diffusion", stopping=lambda: next(asked) == STOPPED_AT and ranks.rank == 1)
            note("begun_by_one", "diffusion")
            note("spoilt", "counted", change=planted(ranks), guard=STRICT)
            note("without", "counted", omitted=PLANTED, guard=STRICT)
            note("nan", "tokenizer", change=lambda objective: Spoilt(objective, ranks))
            mine, again = folder / f"fit{ranks.rank}", ProcessRanks(ranks.rank, ranks.size, 60.0)
            ends["fit"] = fit(Store.open(out / "store"), mine / "out", mine / "scratch", again)
        (folder / f"rank{ranks.rank}.json").write_text(json.dumps(ends))

    return ranks_work


def main() -> None:
    out = Path(sys.argv[1])
    for size in EXACT:
        (out / str(size)).mkdir(exist_ok=True)
        codes = fork_ranks(size, work(out), 60.0)
        assert codes == [0] * size, codes


if __name__ == "__main__":
    main()
