"""Tokenizers of other structures at equal compute: the demo's, its parts, and Cosmos's.

    python -m tests.benchmarks.tokenizer_structures                       # the demo's simulated worlds, rendered on the spot
    python -m tests.benchmarks.tokenizer_structures --store URL           # a curated dataset

Prints one JSON line a row. All see the same windows, loss (squared error) and optimiser; each trains for as many steps as
cost the floating point operations of `--steps` steps of the demo's tokenizer (forward and backward, counted as they run).
`values_per_pixel`: latent values for each value of the video, so that rows of one rate can be compared.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.tokenizer_losses import measured, source_of, windows_of
from wfm.data.loader import ArrayDataset, Loader
from wfm.data.order import one_shape
from wfm.data.pixels import as_video, video_batch
from wfm.families.tokenizer.card import TokenizerTrainingConfig
from wfm.families.tokenizer.fit import first_weights
from wfm.models.fast_cpu import fast_cpu
from wfm.models.folder import count_parameters
from wfm.models.tokenizer import Tokenizer, TokenizerConfig, TokenizerObjective
from wfm.recipes import demo
from wfm.training.loop import train

RECIPE = demo.settings()["train_tokenizer_continuous"]
COSMOS = {"channels": [32, 64, 128, 128]}


def structures() -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Name, model, and whether it is trained."""
    own = RECIPE["model"]
    yield "demo: linear code + networks", own, True
    yield "its linear code alone", own, False
    yield "its networks alone", {**own, "linear_code": False}, True
    yield "Cosmos 8x8x8", COSMOS, True
    yield "Cosmos 4x8x8", {**COSMOS, "temporal_compression": 4}, True


def step_flops(model: Tokenizer, batch: Tensor, objective: TokenizerObjective) -> int:
    """Floating point operations of one training step without the optimiser."""
    with FlopCounterMode(display=False) as counter:
        objective.loss(model, {"video": batch, "seeds": torch.zeros(len(batch), dtype=torch.int64)}, 0)[0].backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def one_row(name: str, model: dict[str, Any], budget: float, samples: ArrayDataset, held: np.ndarray) -> dict[str, Any]:
    """Train within the budget (0: not at all) and measure."""
    config = TokenizerTrainingConfig.parse({**RECIPE, "model": model})
    torch.manual_seed(config.training.seed)
    tokenizer, objective = first_weights(config, samples), TokenizerObjective(config.loss)
    batch = as_video(samples.arrays["frames"][: config.training.batch_size, : config.crop_frames])
    steps = round(budget / step_flops(tokenizer, batch, objective))
    if steps:
        changed = {"steps": steps, "log_every": steps, "checkpoint_every": 10**9, "checkpoint_seconds": 1e9}
        training = config.training.model_copy(update=changed)
        plan = one_shape(samples.sample_ids, training.batch_size, training.seed)
        data = Loader(samples, plan, transform=video_batch(config.crop_frames))
        with tempfile.TemporaryDirectory() as scratch:
            train(tokenizer, objective, data, training, scratch=Path(scratch))
    with torch.no_grad():
        latents = tokenizer.encode(batch)
    return {
        "benchmark": "tokenizer_structures",
        "row": name,
        "steps": steps,
        "parameters": count_parameters(tokenizer),
        "values_per_pixel": round(latents.numel() / batch.numel(), 5),
        **measured(tokenizer, held),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120, help="of the demo's tokenizer; the others get what they cost")
    parser.add_argument("--rows", nargs="*", default=[], help="only rows whose name starts so")
    source_of(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    samples, held = windows_of(arguments)
    config = TokenizerTrainingConfig.parse(RECIPE)
    batch = as_video(samples.arrays["frames"][: config.training.batch_size, : config.crop_frames])
    budget = arguments.steps * step_flops(
        fast_cpu(Tokenizer(TokenizerConfig.parse(RECIPE["model"]))), batch, TokenizerObjective(config.loss)
    )
    for name, model, trained in structures():
        if not arguments.rows or name.startswith(tuple(arguments.rows)):
            line = one_row(name, model, budget if trained else 0.0, samples, held)
            print(json.dumps({**line, "budget_tflop": round(budget / 1e12, 2)}), flush=True)


if __name__ == "__main__":
    main()
