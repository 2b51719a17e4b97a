"""``clips`` -> ``captions``: a sentence about every clip, with the hash of the bytes it speaks about.

python -m components.caption_clips --spec SPEC --input clips=KEY --key-out PATH
"""

from components.entrypoint import Context, PartContext, Result, main
from wfm.curation.caption import caption
from wfm.curation.caption.caption_config import CaptionConfig
from wfm.curation.caption.expected_questions import expected
from wfm.curation.per_clip import part_plan
from wfm.parts.part import add_up

CONFIG = CaptionConfig


def run(ctx: Context[CaptionConfig]) -> Result:
    """One part for each part of the clips."""
    if asked := expected(ctx.inputs["clips"], ctx.config):
        ctx.log.info("%s: %s", ctx.node, asked)
    inputs, arguments = part_plan(ctx.inputs["clips"])
    parts = ctx.map_parts(inputs, part, arguments)
    counts, skipped = add_up(ctx.store, parts)
    return Result(counts=counts, skipped=skipped, parts=parts)


def part(ctx: PartContext[CaptionConfig]) -> Result:
    """The clips of one part -> their rows."""
    counts, skipped = caption.caption_part(ctx)
    return Result(counts=counts, skipped=skipped)


if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
