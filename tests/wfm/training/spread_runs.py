"""Lives of a training that is spread over ranks, each in processes forked off this one, for `test_sharded.py`.

    python -m tests.wfm.training.spread_runs OUT LIVES

LIVES: JSON, a list of lives one after the other: name, scratch (a folder below OUT; `own`: each rank has one of its own, and
all the store OUT/store), size, shard, and maybe replicate, stop (asked at that step), crash (`wfm.crash_points`), fails (where
rank 1 does: `spread_failures`; each rank says how it ended, in `<name>-<rank>.json`). OUT gets by
life `<name>.json`, what rank 0 says of it, `<name>.loaded.safetensors`, every tensor that it went on from, put together, and
`<name>.safetensors`, its weights. Of one with `fit` it gets `<name>-<rank>`, what a stage writes that learns from the latents
and captions in OUT/store.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tests.wfm.parallel.forked import fork_ranks
from tests.wfm.training.rank_runs import RUNS, run
from tests.wfm.training.spread_failures import BEFORE, plant
from tests.wfm.training.whole_fit import fit
from wfm.artifacts import Store
from wfm.crash_points import VARIABLE
from wfm.errors import Cancelled, WfmError
from wfm.families.diffusion.card import FAMILY
from wfm.models.folder import save_tensors
from wfm.parallel.ranks import Ranks
from wfm.parallel.spread import gathered, gathered_tensors, mesh_over, spread_over
from wfm.training.checkpoint import Keeper, Scratch

PATIENCE = 60.0
"""Of each call [s]."""


def live(life: dict[str, Any], out: Path, ranks: Ranks) -> None:
    """One life, as one rank of it sees it."""
    if life.get("fit"):
        fit(
            Store.open(out / "store"),
            out / f"{life['name']}-{ranks.rank}",
            out / life["scratch"],
            ranks,
            text=True,
            shard=life["shard"],
        )
        return
    if life.get("crash"):
        os.environ[VARIABLE] = life["crash"]
    said: dict[str, Any] = {"resumed_from": 0, "stalls": []}
    resume, keep = Keeper.resume, Keeper.keep

    def noted(self: Keeper) -> Any:
        found = resume(self)
        if found is not None:
            said["resumed_from"] = found.step
            stems = {stem: gathered_tensors(tensors) for stem, tensors in self._learning.stems()}
            tensors = {f"{stem}:{name}": one for stem, some in stems.items() for name, one in some.items()}
            if ranks.leads:
                save_tensors(tensors, out / f"{life['name']}.loaded.safetensors")
        return found

    def timed(self: Keeper, *given: Any, **more: Any) -> None:
        began = time.monotonic()
        keep(self, *given, **more)
        said["stalls"].append(time.monotonic() - began)

    Keeper.resume, Keeper.keep = noted, timed  # type: ignore[method-assign]
    torch.manual_seed(0)
    made, asked = RUNS["diffusion"](ranks), iter(range(10**6))
    scratch: Scratch = out / life["scratch"]
    if life.get("own"):
        places = Store.open(out / "store").checkpoints("c" * 64)
        places.scratch = out / f"{life['scratch']}-{ranks.rank}"
        scratch = places
    validate = plant(life["fails"], made.model, ranks) if "fails" in life else None
    shape = {"shard": life["shard"], "replicate": life.get("replicate", 0)}
    try:
        run(
            "diffusion", scratch, ranks, made=made, checkpoint_every=4, checkpoint_seconds=1e9, guard={"most_left_out": 0},
            stopping=lambda: next(asked) + said["resumed_from"] == life.get("stop", -1), validate=validate,
            validate_every=4 if validate else 0,
            spread=lambda model: spread_over(mesh_over(ranks, **shape), model, FAMILY.blocks(model)),
        )  # fmt: skip
    except Cancelled as error:
        said["cancelled"] = str(error)
    except WfmError as error:
        if "fails" not in life:
            raise
        end = {"kind": type(error).__name__, "words": str(error), "at": time.monotonic()}
        (out / f"{life['name']}-{ranks.rank}.json").write_text(json.dumps(end))
        return
    weights = gathered(made.model)
    if ranks.leads:
        save_tensors(weights, out / f"{life['name']}.safetensors")
        (out / f"{life['name']}.json").write_text(json.dumps(said))


def main() -> None:
    out = Path(sys.argv[1])
    for life in json.loads(sys.argv[2]):
        codes = fork_ranks(life["size"], lambda ranks, life=life: live(life, out, ranks), PATIENCE)
        assert any(codes) == bool(life.get("crash")) or life.get("fails", "").startswith(BEFORE), (life, codes)


if __name__ == "__main__":
    main()
