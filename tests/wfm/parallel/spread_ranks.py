"""What ranks compute of runs spread over them, for `test_spread.py`: every family's network (`tests.wfm.training.rank_runs`),
20 steps in fp64 of what the training loop does.

    python -m tests.wfm.parallel.spread_ranks OUT SIZE CASE...

A case is FAMILY:OPTIMIZER:SHARD:REPLICATE, with `:parts` a broken twin: Muon of each part for itself. OUT gets one JSON line a
case, by rank 0: losses, norms, parameters without a gradient, warnings, bytes held; and `<case>-of-SIZE.safetensors`, the
weights and their averages put together. SIZE 1 is one process.
"""

import gc
import json
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.wfm.parallel.forked import fork_ranks
from tests.wfm.training.rank_runs import BATCH, RUNS, SAMPLES, in_fp64
from wfm.data.loader import ArrayDataset, Loader
from wfm.data.order import one_shape
from wfm.families.autoregressive.card import FAMILY as AUTOREGRESSIVE
from wfm.families.diffusion.card import FAMILY as DIFFUSION
from wfm.models.fast_cpu import fast_cpu
from wfm.models.folder import save_tensors
from wfm.parallel.ranks import ALONE, Ranks
from wfm.parallel.shards import part_of, scale_down, total_norm, whole
from wfm.parallel.spread import gathered, mesh_over, spread_over
from wfm.training import muon
from wfm.training.config import TrainingConfig
from wfm.training.ema import PowerEMA
from wfm.training.optim import Optimizers

STEPS, PARTS, CLIP = 20, 2, 0.05
BLOCKS = {"diffusion": DIFFUSION.blocks, "decoder": DIFFUSION.blocks, "autoregressive": AUTOREGRESSIVE.blocks}


def learn(case: str, ranks: Ranks, out: Path) -> None:
    """One case. Each rank takes its share of every batch in `PARTS` backward passes, the last of which alone communicates."""
    family, optimizer, shard, replicate, *broken = case.split(":")
    if broken:
        muon._together = lambda parts, shape, mesh: (muon.orthogonalise(part[None])[0] for part in parts)
    torch.manual_seed(0)
    made = RUNS[family](ranks)
    model, objective = fast_cpu(made.model), made.objective
    data = ArrayDataset(tuple(f"s{i}" for i in range(SAMPLES)), made.arrays, made.captions)
    loader = Loader(data, one_shape(data.sample_ids, BATCH, 3), transform=in_fp64)
    loader.share_with(ranks.rank, ranks.size)
    config = TrainingConfig.parse({"optimizer": optimizer, "ema_share": 0.1, "learning_rate": 1e-2})
    blocks = BLOCKS.get(family, lambda model: [])(model)
    spread = spread_over(mesh_over(ranks, shard=int(shard), replicate=int(replicate)), model, blocks)
    optimizers, average = Optimizers(model, config), PowerEMA(model, config.ema_share)
    found: dict[str, Any] = {"case": case, "losses": [], "norms": [], "none": [], "warnings": []}
    with loader, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in range(STEPS):
            batch = loader.next()
            number = 0.0
            for part in range(PARTS):
                spread.communicate(part == PARTS - 1)
                loss, _ = spread.run(objective.loss, model, batch, step)
                (loss * (loader.share / PARTS)).backward()
                number += float(loss.detach()) * loader.share / PARTS
            spread.settle(ranks)
            with torch.no_grad():
                gradients = [p.grad for p in model.parameters() if p.grad is not None]
                norm = total_norm(gradients)
                scale_down(gradients, CLIP, norm)
            found["losses"].append(sum(ranks.gather(number)))
            found["norms"].append(float(norm))
            found["none"] = sorted(name for name, p in model.named_parameters() if p.grad is None)
            optimizers.step(1.0)
            average.update(model, step + 1)
    found["warnings"] = sorted({str(one.message)[:200] for one in told if "FSDP" in str(one.message)})
    found["bytes"] = {kind: ranks.gather(size) for kind, size in held(model, optimizers, average).items()}
    averages = {f"average.{name}": whole(tensor) for name, tensor in average.state_dict().items()}
    weights = {**gathered(model), **averages}
    if ranks.leads:
        save_tensors(weights, out / f"{case}-of-{ranks.size}.safetensors")
        with (out / "found.jsonl").open("a") as file:
            file.write(json.dumps({"size": ranks.size, **found}) + "\n")


def held(model: nn.Module, optimizers: Optimizers, average: PowerEMA) -> dict[str, int]:
    """Bytes that this rank holds between two steps, by kind; `all`: of everything that Python knows, whatever it is."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of objects that are only looked at
        there = [part_of(each) for each in gc.get_objects() if isinstance(each, Tensor)]
    kinds = {
        "parameters": model.parameters(), "optimizer": optimizers.tensors().values(), "buffers": model.buffers(),
        "average": average.state_dict().values(), "all": there,
    }  # fmt: skip
    return {kind: sum(storages(map(part_of, tensors)).values()) for kind, tensors in kinds.items()}


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes by address of the memory that tensors hold."""
    return {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}


def main() -> None:
    out, size, cases = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]

    def work(ranks: Ranks) -> None:
        for case in cases:
            learn(case, ranks, out)

    if size == 1:
        torch.set_num_threads(1)
        work(ALONE)
        return
    codes = fork_ranks(size, work, 120.0)
    sys.stderr.flush()
    os._exit(max(map(abs, codes)))


if __name__ == "__main__":
    main()
