"""``clips`` -> ``embeddings``: a vector for every clip, for finding copies; and what an aesthetic head says of it, if given.

python -m components.embed_clips --spec SPEC --input clips=KEY --input scores=KEY --key-out PATH
"""

from components.entrypoint import Context, PartContext, Result, main
from wfm.curation.embed import embed
from wfm.curation.embed.aesthetic import AestheticConfig, judge_part
from wfm.curation.per_clip import part_plan
from wfm.parts.part import add_up


class EmbedClipsConfig(embed.EmbedConfig):
    """The embedding, and a head over it."""

    aesthetic: AestheticConfig = AestheticConfig()
    "A head that judges the embeddings; it must have been trained on those of this model."


def run(ctx: Context[EmbedClipsConfig]) -> Result:
    """One part for each part of the clips, taken over from scores that were made with the same embedding."""
    inputs, arguments = part_plan(ctx.inputs["clips"])
    scores = ctx.inputs.get("scores")
    if scores is not None and embed.made_by_score(ctx.config, scores.manifest.config):
        ctx.log.info("%s: made with the scores already, so no clip is decoded again", ctx.stage)
        for entry in (one for one in scores.parts if one.name in inputs):
            inputs[entry.name]["scores"], arguments[entry.name]["scores"] = entry.digest, entry.key
    parts = ctx.map_parts(inputs, part, arguments)
    counts, skipped = add_up(ctx.store, parts)
    return Result(counts=counts, skipped=skipped, parts=parts)


def part(ctx: PartContext[EmbedClipsConfig]) -> Result:
    """The clips of one part -> their rows."""
    counts, skipped = embed.embed_part(ctx)
    judge_part(ctx)
    return Result(counts=counts, skipped=skipped)


CONFIG = EmbedClipsConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
