"""The diffusion transformer against diffusers' CosmosTransformer3DModel: same weights, CPU, fp32, in turn.

    python -m tests.benchmarks.dit                       # all rows, compiled ones too (minutes)
    python -m tests.benchmarks.dit --rows 192x1x320      # one shape, WIDTHxBATCHxTOKENS
    python -m tests.benchmarks.dit --no-compile
    python -m tests.benchmarks.dit --clock cpu           # with WFM_BENCHMARK_THREADS=1, on a machine in use

One JSON line a row: `ratio` is rival / ours (above 1, ours is faster) over ABBA pairs. Both get the same latents, padding
mask, 32 text tokens of width 384 and fps; nothing is prepared ahead, except in two rows: `weights packed`, as any call that
repeats may have them, and `prepared`, as a sampler calls it, with prompt, shape and noise level prepared too. `floor_share`
is the least time of the matrix products and the attention, at the best rate that this machine showed for each, over the
measured time; `floor_share_shapes` takes for the products the best rate of any library at this row's own shapes, which
narrow ones (K = 192) never bring to the machine's peak. At batch 1 the
rival also runs at its best batch of 1, 2, 4 (`ratio_best_batch`, per sample). The optimiser is torch's fused AdamW for both,
on its own row.
"""

import argparse
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import diffusers.models.transformers.transformer_cosmos as peer_module
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.benchmarks.paired import THREADS, Floor, best_batch, measure_floor, paired, print_line, time_of, warm_up
from wfm.models.diffusion.config import DiffusionConfig
from wfm.models.diffusion.network import DiffusionTransformer
from wfm.models.fast_cpu import fast_cpu, packed_weights
from wfm.models.parallel_config import ParallelConfig
from wfm.models.parallelize import parallelize

LAYERS, TEXT_TOKENS, TEXT_WIDTH, RANK = 6, 32, 384, 256
GRIDS = {320: (5, 16, 16), 2048: (8, 32, 32)}
"""Latent sizes (T, H, W) by tokens."""
ROWS = ["192x1x320", "192x8x320", "384x4x320", "384x1x2048", "768x1x2048"]


@dataclass(frozen=True)
class Row:
    """One shape."""

    width: int
    batch: int
    tokens: int

    @property
    def head_dim(self) -> int:
        return 64 if self.width >= 768 else 48

    def flops(self) -> tuple[float, float]:
        """Of the products and of the attention, forward."""
        rows, d = self.batch * self.tokens, self.width
        block = 2 * rows * d * d * (4 + 2 + 8) + 2 * self.batch * TEXT_TOKENS * 2 * TEXT_WIDTH * d
        norms = 3 * 2 * self.batch * (d * RANK + RANK * 3 * d)
        ends = 2 * rows * d * 4 * (17 + 16)
        attention = 4 * rows * d * (self.tokens + TEXT_TOKENS)
        return float(LAYERS * (block + norms) + ends), float(LAYERS * attention)


def models(row: Row) -> tuple[DiffusionTransformer, torch.nn.Module]:
    """Ours and the rival with the same weights; gates, which start at zero, are random."""
    same: dict[str, Any] = {
        "num_attention_heads": row.width // row.head_dim, "attention_head_dim": row.head_dim, "num_layers": LAYERS,
        "text_embed_dim": TEXT_WIDTH, "adaln_lora_dim": RANK, "max_size": (16, 64, 64),
    }  # fmt: skip
    torch.manual_seed(0)
    ours = DiffusionTransformer(DiffusionConfig(in_channels=16, qk_norm_eps=1e-5, **same))
    for parameter in ours.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    rival = peer_module.CosmosTransformer3DModel(in_channels=16, out_channels=16, **same)
    rival.load_state_dict(ours.state_dict())
    return fast_cpu(ours), rival


def inputs(row: Row, batch: int) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    size = GRIDS[row.tokens]
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, 16, *size, generator=generator)
    text = torch.randn(batch, TEXT_TOKENS, TEXT_WIDTH, generator=generator)
    more = {"fps": 24, "padding_mask": torch.zeros(1, 1, 8 * size[1], 8 * size[2])}
    return latents, torch.linspace(-1, 1, batch), text, more


def call_of(model: torch.nn.Module, row: Row, batch: int, *, backward: bool) -> Callable[[], object]:
    """One forward, or forward and backward; the gradients are dropped."""
    latents, c_noise, text, more = inputs(row, batch)

    def output() -> Tensor:
        out = model(latents, c_noise, text, **more)
        return out if isinstance(out, Tensor) else out.sample

    def forward() -> object:
        with torch.no_grad():
            return output()

    def both() -> object:
        output().square().mean().backward()
        model.zero_grad(set_to_none=True)
        return None

    return both if backward else forward


def measure(row: Row, floor: Floor, how: dict[str, Any], *, compiled: bool) -> Iterator[dict[str, object]]:
    """The lines of one row; how: number of pairs and clock."""
    ours, rival = models(row)
    if compiled:
        parallelize(ours.blocks, ParallelConfig(compile=True))
        for block in rival.transformer_blocks:
            block.compile(dynamic=False)
    products, attention = row.flops()
    for backward in (False, True):
        least = floor.seconds(gemm=products, attention=attention) * (3 if backward else 1)
        mine = call_of(ours, row, row.batch, backward=backward)
        result = paired(mine, call_of(rival, row, row.batch, backward=backward), **how)
        line: dict[str, object] = {"what": "forward+backward" if backward else "forward", **result.as_dict()}
        line["floor_ms"] = round(1e3 * least, 2)
        line["floor_share"] = [round(least / median(times), 3) for times in (result.ours, result.rival)]
        if not backward:
            own = products / product_rate(row) + attention / floor.attention
            line["floor_share_shapes"] = [round(own / median(times), 3) for times in (result.ours, result.rival)]
        if row.batch == 1 and not compiled:

            def at(batch: int, backward: bool = backward) -> Callable[[], object]:
                return call_of(rival, row, batch, backward=backward)

            best = best_batch(at)
            best_result = paired(mine, at(best), **how)
            line["rival_best_batch"] = best
            line["ratio_best_batch"] = round(best_result.ratio / best, 3)
        yield line
    if not compiled:
        with packed_weights(ours):
            packed = paired(
                call_of(ours, row, row.batch, backward=False), call_of(rival, row, row.batch, backward=False), **how
            )
        yield {"what": "forward, weights packed", **packed.as_dict()}
        yield {"what": "forward, prepared", **prepared(ours, rival, row, how)}
        yield {"what": "fused AdamW", **optimisers(ours, rival, how)}


def median(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]


def prepared(ours: DiffusionTransformer, rival: torch.nn.Module, row: Row, how: dict[str, Any]) -> dict[str, Any]:
    """Ours as a sampler calls it; the rival has nothing to prepare."""
    latents, c_noise, text, more = inputs(row, row.batch)
    with torch.no_grad():
        shape = ours.prepare_shape(latents.shape[2:], more["fps"])
        noise, prompt = ours.prepare_noise(c_noise), ours.prepare_text(text)

    @torch.no_grad()
    def mine() -> object:
        return ours(latents, noise, prompt, shape=shape, padding_mask=more["padding_mask"])

    with packed_weights(ours):
        return paired(mine, call_of(rival, row, row.batch, backward=False), **how).as_dict()


def optimisers(ours: torch.nn.Module, rival: torch.nn.Module, how: dict[str, Any]) -> dict[str, Any]:
    steps = []
    for model in (ours, rival):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        steps.append(torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True).step)
    return paired(*steps, **how).as_dict()


def peaks(row: Row) -> Floor:
    """Best rates seen for a product (whichever library) and for the attention of this shape."""
    floor = measure_floor(tokens=row.tokens, head_dim=row.head_dim, heads=row.width // row.head_dim)
    a, b = torch.randn(2048, 1024), torch.randn(1024, 1024)
    call = lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")  # noqa: E731
    warm_up(call, 3)
    other = 2 * 2048 * 1024**2 / min(time_of(call, 3) for _ in range(9))
    return Floor(max(floor.gemm, other), floor.attention, floor.convolution)


@torch.no_grad()
def product_rate(row: Row) -> float:
    """FLOP/s of this row's products, each at its own shape by the library that is fastest there."""
    rows, d = row.batch * row.tokens, row.width
    flops = seconds = 0.0
    for inside, outside in ((d, 3 * d), (d, d), (d, d), (d, d), (d, 4 * d), (4 * d, d)):
        x, weight = torch.randn(rows, inside), torch.randn(outside, inside)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        calls: list[Callable[[], object]] = [
            lambda x=x, weight=weight: F.linear(x, weight),
            lambda x=x, packed=packed: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""),
        ]
        seconds += min(min(time_of(call, 3) for _ in range(7)) for call in calls if warm_up(call, 3))
        flops += 2 * rows * inside * outside
    return flops / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=ROWS)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument(
        "--compile-all", action="store_true", help="compiled lines for every row, not only for 192x8x320"
    )
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    arguments = parser.parse_args()
    how = {"pairs": arguments.pairs, "clock": time.process_time if arguments.clock == "cpu" else time.perf_counter}
    torch.set_num_threads(THREADS)
    nearest = types.SimpleNamespace(  # the rival's only use of torchvision
        functional=types.SimpleNamespace(resize=lambda x, size, interpolation: F.interpolate(x, size, mode="nearest")),
        InterpolationMode=types.SimpleNamespace(NEAREST="nearest"),
    )
    peer_module.transforms = nearest
    for name in arguments.rows:
        row = Row(*(int(part) for part in name.split("x")))
        floor = peaks(row)
        rates = {"gemm_gflops": round(floor.gemm / 1e9), "attention_gflops": round(floor.attention / 1e9)}
        kinds = [False]
        if not arguments.no_compile and (arguments.compile_all or name == "192x8x320"):
            kinds.append(True)
        for compiled in kinds:
            torch._dynamo.reset()
            for line in measure(row, floor, how, compiled=compiled):
                print_line(benchmark="dit", row=name, compiled=compiled, clock=arguments.clock, **line, **rates)


if __name__ == "__main__":
    main()
