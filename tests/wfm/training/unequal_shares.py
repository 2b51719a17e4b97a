"""Gradients of a step whose samples two ranks share as 1 and 7 (see test_unequal_shares.py).

    python -m tests.wfm.training.unequal_shares OUT

Two processes write OUT/<name>.safetensors: what rank 0 holds after the gradients are added up.
"""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.wfm.parallel.forked import fork_ranks
from tests.wfm.training.rank_runs import NETWORK, RUNS, Run, drawn, in_fp64, shaken
from wfm.data.loader import ArrayDataset
from wfm.data.loader.batches import PackedBatch
from wfm.data.loader.grouped import grouped
from wfm.families.autoregressive.build import transformer
from wfm.families.diffusion.build import denoiser
from wfm.models.autoregressive import AutoregressiveConfig, AutoregressiveObjective, AutoregressiveObjectiveConfig
from wfm.models.diffusion.config import DenoiserConfig, EDMConfig
from wfm.models.diffusion.objective import DenoisingObjective
from wfm.models.folder import save_tensors
from wfm.parallel.ranks import Ranks
from wfm.training.config import TrainingConfig
from wfm.training.step import Step

SHARES = ([0], [1, 2, 3, 4, 5, 6, 7])
STEP = 5
"""Of videos, and with every term of the tokenizer's loss."""
SIZES = [(2, 2, 2), (4, 4, 4), (1, 4, 4), (3, 4, 2), (4, 4, 4), (2, 4, 6), (3, 4, 4), (4, 2, 2)]
"""Of what is packed: latent frames, rows, columns."""


def packs_of_tokens(ranks: Ranks) -> Run:
    """An autoregressive model: a mean over tokens, of which the shares hold 7 and 267."""
    config = AutoregressiveConfig(
        levels=(4, 4), dim=24, layers=2, heads=4, kv_heads=2, head_dim=12, ffn_dim=40, medusa_heads=1
    )
    objective = AutoregressiveObjective(AutoregressiveObjectiveConfig(input_noise=0.2))
    return Run(shaken(transformer(config)), objective, {})


def packs_of_latents(ranks: Ranks) -> Run:
    """A diffusion model: a mean over samples."""
    config = {"network": {**NETWORK, "condition_mask": True}, "temporal_compression": 4, "statistics_frames": 2}
    return Run(
        shaken(denoiser(DenoiserConfig.parse(config))), DenoisingObjective(EDMConfig(condition_latents=(0, 1))), {}
    )


_ONE_GENERATOR = threading.Lock()
PACKS: dict[str, Callable[[Ranks], Run]] = {"packs_of_tokens": packs_of_tokens, "packs_of_latents": packs_of_latents}
NAMES = ("diffusion", "autoregressive", "decoder", "tokenizer", "adversarial", *PACKS)


def batch_of(name: str, run: Run, rows: list[int]) -> Any:
    """Those samples of a run, as a batch or as a pack."""
    seeds = 11 + torch.arange(8)
    if name not in PACKS:
        data = ArrayDataset(
            tuple(f"s{i}" for i in range(len(next(iter(run.arrays.values()))))), run.arrays, run.captions
        )
        return in_fp64({**data.rows(np.array(rows)), "seeds": seeds[rows]})
    sizes = [SIZES[row] for row in rows]
    if name == "packs_of_latents":
        samples = [{"latents": drawn(3, *size)} for size in sizes]
    else:
        draw = torch.Generator().manual_seed
        samples = [
            {"tokens": torch.randint(16, size, generator=draw(row))} for row, size in zip(rows, sizes, strict=True)
        ]
    lengths = torch.tensor([t * h * w for t, h, w in sizes])
    zeros, bounds = torch.zeros_like(lengths), torch.tensor([0, len(rows)])
    return grouped(PackedBatch(tuple(samples), bounds, lengths, zeros, seeds[rows], zeros, ("a",) * len(rows)))


def gradient(name: str, ranks: Ranks, rows: list[int]) -> dict[str, Tensor]:
    """What the parameters of both players hold after a step in which this rank has `rows`."""
    with _ONE_GENERATOR:  # of all threads
        torch.manual_seed(0)
        run = {**RUNS, **PACKS}[name](ranks)
    ranks.share = len(rows) / 8 if ranks.size > 1 else 1.0
    config = TrainingConfig.parse({"steps": 1, "batch_size": 8})
    Step(run.model, run.objective, config, ranks, run.rival).gradients(batch_of(name, run, rows), STEP)
    modules = {"": run.model} | ({} if run.rival is None else {"rival.": run.rival.module})
    return {
        f"{player}{key}": parameter.grad
        for player, module in modules.items()
        for key, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def main() -> None:
    out = Path(sys.argv[1])

    def work(ranks: Ranks) -> None:
        for name in NAMES:
            found = gradient(name, ranks, SHARES[ranks.rank])
            if ranks.leads:
                save_tensors(found, out / f"{name}.safetensors")

    assert fork_ranks(2, work, 60.0) == [0, 0]


if __name__ == "__main__":
    main()
