"""Attention kernels of packs against the naive one in fp64, on segments of mixed lengths, forward and backward."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from tests.device.check import Skipped, require, require_cuda, require_package, worst
from wfm.parallel.attention import KERNELS

SEGMENTS = (1, 17, 256, 3, 640, 64)
KERNELS_OF = {
    "flash": torch.bfloat16,
    "torch_varlen": torch.bfloat16,
    "efficient": torch.float32,
    "fused_cpu": torch.float32,
}
BOUNDS = {torch.bfloat16: 2e-2, torch.float32: 1e-5}
"""Over the largest number: a few roundings of bfloat16 (4e-3 each); of float32, the CPU's kernel gives 4e-7 at worst."""


def checks(device: torch.device) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    for name, dtype in KERNELS_OF.items():
        for causal in (False, True):
            yield f"{name}{'_causal' if causal else ''}", partial(_kernel, name, dtype, causal, device)


def _kernel(name: str, dtype: torch.dtype, causal: bool, device: torch.device) -> dict[str, float]:
    if name == "fused_cpu":
        if device.type == "cuda":
            raise Skipped("fused_cpu is of the CPU alone")
    else:
        require_cuda(device, f"the kernel {name}")
    if name == "flash":
        require_package("flash_attn")
    generator = torch.Generator().manual_seed(3)
    heads, kv_heads, width, total = 4, 2, 64, sum(SEGMENTS)
    shapes = ((total, heads, width), (total, kv_heads, width), (total, kv_heads, width), (total, heads, width))
    q, k, v, g = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)

    def run(kernel: str, kind: torch.dtype) -> list[torch.Tensor]:
        leaves = [x.to(kind).requires_grad_() for x in (q, k, v)]
        out, lse = KERNELS[kernel](*leaves, SEGMENTS, SEGMENTS, causal=causal)
        return [out, lse, *torch.autograd.grad(out, leaves, g.to(kind))]

    names = ("out", "lse", "dq", "dk", "dv")
    pairs = zip(names, run(name, dtype), run("naive", torch.float64), strict=True)
    return {what: require(worst(mine, theirs), BOUNDS[dtype], f"{name}: {what}") for what, mine, theirs in pairs}
