"""Predict the futures of held-out windows with one model: right actions, shuffled actions, and the tokenizer's ceiling
beside them.

Reads `dataset` (frames), `latents` (their geometry), `tokenizer` and `model`. Layout of the output:
`wfm.generation.held_out`.

    python -m components.generate_videos --spec URL --input dataset=KEY ... --input model=KEY --key-out PATH
"""

from typing import Annotated

import pydantic

from components.entrypoint import Context, Result, main
from wfm.conditions.condition import CONDITIONS
from wfm.config import Config, Natural, Seed, added, how
from wfm.generation.config import SamplingConfig
from wfm.models.family import FAMILIES
from wfm.registry import Named


class GenerateVideosConfig(Config):
    """Which windows, and how their futures are drawn."""

    family: Annotated[str, Named(FAMILIES, "draw")] = ""
    "Family of the world model; the pipeline says it."
    tokenizer_family: Annotated[str, Named(FAMILIES, "network")] = "tokenizer"
    "Family of its tokenizer."
    conditions: Annotated[tuple[str, ...], Named(CONDITIONS)] = added(())
    "Further conditions of the model, those of its training's `conditions`."
    splits: tuple[str, ...] = ("test",)
    "Splits of the data set to predict; never train."
    past_frames: int = pydantic.Field(9, ge=1)
    "Frames given."
    stride_frames: int = pydantic.Field(16, ge=1)
    "Distance between the starts of windows within a clip [frames]."
    max_windows: int = pydantic.Field(128, ge=0)
    "Most windows a split, chosen by hash; 0: all."
    seed: Seed = 0
    "The seed of a window is a hash of this and its sample id."
    sampling: SamplingConfig = SamplingConfig()
    "Sampler and decoding."
    examples: int = pydantic.Field(6, ge=0)
    "Windows written as mp4 too."
    threads: Natural = how(0)
    "CPU threads of torch; 0: its own choice. The same number gives the same bits."


def run(ctx: Context[GenerateVideosConfig]) -> Result:
    """One world model, every split."""
    import torch

    from wfm.generation.from_artifacts import open_world, read_held_out, write_card
    from wfm.generation.held_out import generate_split

    config = ctx.config
    if config.threads:
        torch.set_num_threads(config.threads)
    world = open_world(
        ctx.inputs, past_frames=config.past_frames, sampling=config.sampling, conditions=config.conditions
    )
    counts = {"inputs": 0, "outputs": 0}
    skipped: dict[str, int] = {}
    for split in config.splits:
        held, left = read_held_out(
            ctx.inputs["dataset"], split, world, stride_frames=config.stride_frames, limit=config.max_windows
        )
        skipped |= {f"{split}_{reason}": count for reason, count in left.items()}
        made = generate_split(
            world, held, ctx.out, split=split, seed=config.seed, examples=config.examples, stopping=ctx.stopping
        )
        counts |= made
        counts["inputs"] += len(held.rows) + sum(left.values())
        counts["outputs"] += made[f"{split}_videos"]
    write_card(world, ctx.out, seed=config.seed)
    return Result(counts=counts, skipped=skipped, extra={"family": world.card.family})


CONFIG = GenerateVideosConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
