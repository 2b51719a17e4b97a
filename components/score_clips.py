"""``clips`` -> ``scores``: every measured number of every clip, all kept: thresholds are chosen in select_clips.

python -m components.score_clips --spec SPEC --input clips=KEY --key-out PATH
"""

from components.entrypoint import Context, PartContext, Result, main
from wfm.curation.embed.embed import without_weights
from wfm.curation.measure import score
from wfm.curation.per_clip import part_plan
from wfm.parts.part import add_up

CONFIG = score.ScoreConfig
FOLLOWS = {"embed": without_weights}
"""Field -> what it is by the config of the node that it follows in a pipeline: the embedding of embed_clips."""


def run(ctx: Context[score.ScoreConfig]) -> Result:
    """One part for each part of the clips."""
    inputs, arguments = part_plan(ctx.inputs["clips"])
    parts = ctx.map_parts(inputs, part, arguments)
    counts, skipped = add_up(ctx.store, parts)
    return Result(counts=counts, skipped=skipped, parts=parts)


def part(ctx: PartContext[score.ScoreConfig]) -> Result:
    """The clips of one part -> their rows."""
    counts, skipped = score.score_part(ctx)
    return Result(counts=counts, skipped=skipped)


if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
