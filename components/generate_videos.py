"""Predict the futures of held-out windows with one model: right actions, shuffled actions, and the tokenizer's ceiling
beside them.

Reads `dataset` (frames), `signals` (which clips there are, and how they move), `latents` (their geometry), `tokenizer` and
`model`; works in parts of windows. Layout of the output: `wfm.generation.held_out`.

    python -m components.generate_videos --spec URL --input dataset=KEY ... --input model=KEY --key-out PATH
"""

import json
from collections import Counter

from components.entrypoint import Context, PartContext, Result, main
from wfm.generation.held_out_config import HeldOutConfig


def run(ctx: Context[HeldOutConfig]) -> Result:
    """One world model, every split."""
    from wfm.generation.held_out_plan import plan_parts

    inputs, arguments, skipped = plan_parts(ctx.inputs, ctx.config)
    entries = ctx.map_parts(inputs, generate, arguments)
    card = json.loads(ctx.store.part(entries[0].key).fetch("card.json").read_text())
    card["inputs"] = {role: artifact.key for role, artifact in ctx.inputs.items()}
    (ctx.out / "card.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")
    made = sum((Counter(entry.counts) for entry in entries), Counter[str]())
    counts = {"inputs": made.pop("windows") + sum(skipped.values()), "outputs": made.pop("videos"), **made}
    return Result(counts=counts, skipped=skipped, parts=entries, extra={"family": card["family"]})


def generate(part: "PartContext[HeldOutConfig]") -> Result:
    """One part: windows of a split."""
    from wfm.generation.held_out import generate_part

    return Result(counts=generate_part(part))


CONFIG = HeldOutConfig
FOLLOWS = {"conditions": lambda training: tuple(training["conditions"])}
"""Field -> what it is by the config of the node that it follows in a pipeline: the conditions of train_world_model."""

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
