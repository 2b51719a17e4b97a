"""What each of two ranks runs under torchrun (see test_plain.py): FSDP2 over a plain model, compared with one process.

    python -m torch.distributed.run --nproc-per-node 2 -m tests.wfm.models.fsdp_ranks OUT MODEL

MODEL is a name of `tiny.MODELS`. Every rank has half of the batch; parameters are spread over both. OUT gets one JSON line: by
rank, the worst difference of outputs and of gradients, relative to the largest, to those of the whole batch in one process.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tests.wfm.models.tiny import MODELS, blocks_of


def compared(name: str, rank: int, world: int) -> dict[str, float]:
    """One model: whole in this process, then spread."""
    make, given = MODELS[name]
    model, inputs = make(), given()
    weight = torch.linspace(-1, 1, steps=7, dtype=torch.float64)

    def loss(out: torch.Tensor) -> torch.Tensor:
        return (out.flatten(1).unfold(1, 7, 7) * weight).square().mean()

    whole = model(*inputs)
    loss(whole).backward()
    wanted = {at: p.grad.clone() for at, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for block in blocks_of(model):
        fully_shard(block)
    fully_shard(model)
    mine = [x.chunk(world)[rank] for x in inputs]
    out = model(*mine)
    loss(out).backward()
    out, whole = out.detach(), whole.detach()
    worst = float((out - whole.chunk(world)[rank]).abs().max() / whole.abs().max())
    largest = max(float(grad.abs().max()) for grad in wanted.values())
    off, spread = 0.0, 0
    for at, parameter in model.named_parameters():
        if at in wanted:
            assert isinstance(parameter.grad, DTensor), at
            spread += int(parameter.grad.to_local().numel() < parameter.numel())
            off = max(off, float((parameter.grad.full_tensor() - wanted[at]).abs().max()) / largest)
    assert spread > len(wanted) / 2  # it is shards that were learned with
    return {"output": worst, "gradients": off}


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    found = compared(sys.argv[2], rank, world)
    everyone: list[dict[str, float] | None] = [None] * world
    dist.all_gather_object(everyone, found)
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(everyone))
    dist.destroy_process_group()
    os._exit(0)  # not by the interpreter: now and then a thread of gloo aborts it there ("terminate called without …")


if __name__ == "__main__":
    main()
