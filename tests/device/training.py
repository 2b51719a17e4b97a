"""A training step on packs, compiled, and with parameters spread over one device, against the plain step; and a training with
its validations, against that of the CPU."""

import copy
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from tests.device.check import Skipped, require, worst
from tests.wfm.training.whole_fit import fit, make_latents, make_text
from wfm.artifacts import Store
from wfm.data.loader.batches import PackedBatch
from wfm.data.loader.grouped import GroupedBatch, grouped
from wfm.families.diffusion.build import denoiser
from wfm.models.diffusion.config import DenoiserConfig, EDMConfig
from wfm.models.diffusion.objective import DenoisingObjective
from wfm.models.diffusion.pack import PackLimits

WIDTH = {"cuda": (8, 64, 4), "cpu": (2, 24, 2)}
"""Heads, their width, layers."""
PACKS, BOUND = 11, 1e-3
"""Gradients of float32, over the largest number: what fused kernels may differ by. Without fusing, on a CPU: 3e-7."""
LIMITS = PackLimits(tokens=160, segments=16, frames=32)


def compiled(device: torch.device) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    yield "one_graph", partial(_one_graph, device)


def spread(device: torch.device) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    yield "one_device", partial(_one_device, device)


def validated(device: torch.device) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    yield "diffusion_with_text", partial(_validated, device)


def model_on(device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    heads, width, layers = WIDTH[device.type]
    network = {
        "in_channels": 4, "concat_padding_mask": False, "num_attention_heads": heads, "attention_head_dim": width,
        "num_layers": layers, "adaln_lora_dim": 8, "max_size": (8, 32, 32), "text_embed_dim": 0,
    }  # fmt: skip
    return denoiser(DenoiserConfig.parse({"network": network, "statistics_frames": 2})).to(device)


def pack(number: int, device: torch.device) -> GroupedBatch:
    """Images and clips of several sizes, another mixture each."""
    generator = torch.Generator().manual_seed(number)
    shapes = [((1, 8, 8), 1 + number % 3), ((3, 8, 6), 1 + number % 2), ((2, 4, 8 + 2 * (number % 4)), 1)]
    samples = [
        {"latents": torch.randn(4, *shape, generator=generator)} for shape, count in shapes for _ in range(count)
    ]
    count = len(samples)
    lengths = torch.tensor([one["latents"][0].numel() for one in samples])
    zeros = torch.zeros(count, dtype=torch.int64)
    whole = PackedBatch(
        tuple(samples),
        torch.tensor([0, count]),
        lengths,
        zeros,
        100 * number + torch.arange(count),
        zeros,
        ("a",) * count,
    )
    held = grouped(whole).batches
    return GroupedBatch(
        tuple(
            {name: x if name == "packs" or name == "seeds" else x.to(device) for name, x in one.items()} for one in held
        )
    )


def gradients(model: nn.Module, batch: GroupedBatch, limits: PackLimits | None) -> list[torch.Tensor]:
    """Of the sum over a pack's samples."""
    sums, _ = DenoisingObjective(EDMConfig(condition_latents=(0,)), limits).sums(model, batch, 0)
    loss = next(iter(sums.values()))
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True))


def difference(mine: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    pairs = [(one, two) for one, two in zip(mine, theirs, strict=True) if two is not None]
    return max(worst(one, two) for one, two in pairs)


def _one_graph(device: torch.device) -> dict[str, float]:
    plain, fast = model_on(device), model_on(device)
    for block in fast.network.blocks:
        block.compile(backend="inductor" if device.type == "cuda" else "eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    worst_of_all = max(
        difference(gradients(fast, pack(n, device), LIMITS), gradients(plain, pack(n, device), None))
        for n in range(PACKS)
    )
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    blocks = len(fast.network.blocks)
    require(graphs, blocks, "graphs of the blocks' code for 11 packs")
    return {
        "gradients": require(worst_of_all, BOUND, "compiled gradients"),
        "graphs": float(graphs),
        "blocks": float(blocks),
    }


def _one_device(device: torch.device) -> dict[str, float]:
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    if dist.is_initialized():
        raise Skipped("ranks have met already in this process")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        plain = model_on(device)
        split = copy.deepcopy(plain)
        mesh = torch.distributed.init_device_mesh(device.type, (1,))
        for block in split.network.blocks:
            fully_shard(block, mesh=mesh)
        ends = [_stepped(one, device) for one in (split, plain)]
        whole = [x.full_tensor() if hasattr(x, "full_tensor") else x for x in ends[0]]
        return {"weights": require(difference(whole, ends[1]), 1e-5, "weights after three steps on packs")}
    finally:
        dist.destroy_process_group()


def _validated(device: torch.device) -> dict[str, float]:
    """In fp64, where attention on a GPU is the reference: held-out batches and the decoding tokenizer go where it trains."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        store = Store.open(folder / "store")
        make_latents(store)
        make_text(store)
        here, there = (
            fit(store, folder / f"out_{number}", folder / f"scratch_{number}", text=True, training={"device": kind})[
                "validation"
            ]
            for number, kind in enumerate(("cpu", device.type))
        )
    apart = max(abs(here[name] - there[name]) for name in here)
    return {"figures": float(len(here)), "difference": require(apart, 1e-6, "figures of the validation")}


def _stepped(model: nn.Module, device: torch.device) -> list[torch.Tensor]:
    """Weights after three steps on packs."""
    objective = DenoisingObjective(EDMConfig(condition_latents=(0,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-4)
    for number in range(3):
        sums, _ = objective.sums(model, pack(number, device), 0)
        next(iter(sums.values())).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach() for p in model.parameters()]
