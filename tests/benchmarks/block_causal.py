"""Frame-causal attention in one call against the loop over blocks that it took the place of, and against plain causal.

    WFM_BENCHMARK_THREADS=1 python -m tests.benchmarks.block_causal
    WFM_BENCHMARK_THREADS=1 python -m tests.benchmarks.block_causal --positions 1024 --block 16

One video, forward and backward, processor time, ABBA. One JSON line a rival: `ratio` is rival / ours (above 1, ours is faster).
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tests.benchmarks.paired import THREADS, paired, print_line
from wfm.parallel.attention import attention
from wfm.parallel.block_causal import block_causal

HEADS, KEY_HEADS, WIDTH = 8, 2, 64


def looped(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    """Each block, dense, against the keys up to its end."""
    parts = [
        attention(q[i : i + block], k[: i + block], v[: i + block], [block], [i + block])
        for i in range(0, len(q), block)
    ]
    return torch.cat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("--block", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=5)
    told = parser.parse_args()
    torch.set_num_threads(THREADS)
    generator = torch.Generator().manual_seed(0)
    shapes = [(told.positions, heads, WIDTH) for heads in (HEADS, KEY_HEADS, KEY_HEADS, HEADS)]
    *qkv, slope = (torch.randn(*shape, generator=generator) for shape in shapes)
    n, block = told.positions, told.block
    calls: dict[str, Callable[..., Tensor]] = {
        "ours": lambda q, k, v: block_causal(q, k, v, [n], [n], [block]),
        "loop": lambda q, k, v: looped(q, k, v, block),
        "causal": lambda q, k, v: attention(q, k, v, [n], [n], mask="causal"),
    }

    def run(name: str, backward: bool) -> Callable[[], object]:
        inputs = [x.clone().requires_grad_(backward) for x in qkv]

        def forward() -> Tensor:
            return calls[name](*inputs)

        return (lambda: torch.autograd.grad(forward(), inputs, slope)) if backward else forward

    for backward in (False, True):
        for rival in ("loop", "causal"):
            found = paired(
                run("ours", backward), run(rival, backward), pairs=told.pairs, seconds=0.1, clock=time.process_time
            )
            print_line(
                benchmark="block_causal", row=f"{n} positions, blocks of {block}", rival=rival,
                what="forward and backward" if backward else "forward", **found.as_dict(),
            )  # fmt: skip


if __name__ == "__main__":
    main()
