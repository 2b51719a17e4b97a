"""Predict the futures of held-out windows with one model: right actions, shuffled actions, and the tokenizer's ceiling
beside them.

Reads `dataset` (frames), `latents` (their geometry), `tokenizer` and `model`. Layout of the output:
`wfm.generation.held_out`.

    python -m components.generate_videos --spec URL --input dataset=KEY ... --input model=KEY --key-out PATH
"""

from components.entrypoint import Context, Result, main
from wfm.generation.config import GenerationConfig


def run(ctx: Context[GenerationConfig]) -> Result:
    """One world model, every split."""
    import torch

    from wfm.generation.from_artifacts import open_world, read_held_out, write_card
    from wfm.generation.held_out import generate_split

    config = ctx.config
    if config.threads:
        torch.set_num_threads(config.threads)
    world = open_world(
        ctx.inputs,
        past_frames=config.past_frames,
        sampling=config.sampling,
        family=config.family,
        tokenizer_family=config.tokenizer_family,
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


CONFIG = GenerationConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
