"""A packed training step against the same tokens in equal shapes, and against padding.

    python -m tests.benchmarks.packs [--pairs 9] [--width 144] [--blocks 2]

Two packs: 160 images of four sizes, and clips and images mixed. Equal shapes: about as many tokens in segments of one length,
of a sum of squared lengths (what attention costs) within 2 %. Padding: as many samples, each as large as the largest. One step
is loss and gradients. Processor time of one thread, in turn (ABBA); the ratio is of times a token: equal / packed, above 1
where the pack is faster. One JSON line each.
"""

import argparse
import os
import time

os.environ.setdefault("WFM_BENCHMARK_THREADS", "1")

import torch

from tests.benchmarks.paired import paired, print_line, time_of
from wfm.data.loader.batches import Batch
from wfm.data.loader.grouped import GroupedBatch
from wfm.families.diffusion.build import denoiser
from wfm.models.diffusion import Denoiser, DenoiserConfig, DenoisingObjective, EDMConfig
from wfm.models.fast_cpu import fast_cpu

Shape = tuple[int, int, int]
PACKS: dict[str, tuple[dict[Shape, int], Shape, int]] = {
    "160 images": ({(1, 8, 8): 40, (1, 8, 10): 40, (1, 6, 8): 40, (1, 6, 10): 40}, (1, 5, 13), 155),
    "mixed": ({(5, 8, 8): 6, (3, 8, 10): 8, (1, 8, 8): 60, (1, 8, 10): 30}, (2, 15, 5), 67),
}
"""Patches (t, h, w) of each shape -> how many samples; the equal shape, and how many of it."""
SQUARES = 0.02


def model(width: int, blocks: int) -> Denoiser:
    """Heads of 48."""
    torch.manual_seed(0)
    network = {
        "in_channels": 16, "num_attention_heads": width // 48, "attention_head_dim": 48, "num_layers": blocks,
        "adaln_lora_dim": 32, "text_embed_dim": 0, "concat_padding_mask": False, "condition_mask": True,
        "max_size": (8, 32, 32),
    }  # fmt: skip
    values = {"network": network, "statistics_frames": 2, "temporal_compression": 4, "linear_prior": True}
    return fast_cpu(denoiser(DenoiserConfig.parse(values)))


def batch_of(shape: Shape, count: int, first: int) -> Batch:
    """Latents, patches being 2 x 2."""
    t, h, w = shape
    seeds = torch.arange(first, first + count)
    return {"latents": torch.randn(count, 16, t, 2 * h, 2 * w), "seeds": seeds, "packs": torch.zeros_like(seeds)}


def group(shapes: dict[Shape, int]) -> GroupedBatch:
    """A pack of so many samples of each shape."""
    batches, first = [], 0
    for shape, count in sorted(shapes.items()):
        batches.append(batch_of(shape, count, first))
        first += count
    return GroupedBatch(tuple(batches))


def step(net: Denoiser, batch: GroupedBatch) -> None:
    """Loss and gradients."""
    net.zero_grad()
    DenoisingObjective(EDMConfig(condition_latents=(0, 1))).loss(net, batch, 0)[0].backward()


def lengths(shapes: dict[Shape, int]) -> list[int]:
    """Tokens of each sample."""
    return [t * h * w for (t, h, w), count in shapes.items() for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("pairs", 9), ("width", 144), ("blocks", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    net = model(arguments.width, arguments.blocks)
    for name, (shapes, equal, count) in PACKS.items():
        here, same = lengths(shapes), lengths({equal: count})
        squares = sum(n * n for n in same) / sum(n * n for n in here)
        assert abs(squares - 1) <= SQUARES, (name, squares)
        largest = tuple(max(axis) for axis in zip(*shapes, strict=True))
        packed, dense, padded = group(shapes), group({equal: count}), group({largest: len(here)})  # type: ignore[dict-item]
        found = paired(
            lambda packed=packed: step(net, packed), lambda dense=dense: step(net, dense), pairs=arguments.pairs, seconds=0.0,
            clock=time.process_time,
        )  # fmt: skip
        scale = sum(here) / sum(same)
        ours = min(found.ours)
        against = time_of(lambda padded=padded: step(net, padded), 1, time.process_time)
        print_line(
            benchmark="packs", pack=name, samples=len(here), tokens=sum(here), equal_tokens=sum(same),
            squares=round(squares, 4), ratio=round(found.ratio * scale, 3),
            ratio_range=[round(one * scale, 3) for one in (min(found.ratios), max(found.ratios))],
            ratio_of_least=round(min(found.rival) / ours * scale, 3), packed_ms=round(1e3 * ours, 1),
            padded_over_packed=round(against / ours, 2), pairs=arguments.pairs, width=arguments.width,
            blocks=arguments.blocks, threads=torch.get_num_threads(), isa=torch.backends.cpu.get_cpu_capability(),
        )  # fmt: skip


if __name__ == "__main__":
    main()
