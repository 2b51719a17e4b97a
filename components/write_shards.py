"""``videos``, ``clips``, ``scores``, ``captions``, ``selection`` (and ``embeddings``) -> ``dataset``: shards, tables, a card.

    python -m components.write_shards --spec SPEC --input videos=KEY --input clips=KEY --input scores=KEY \\
        --input captions=KEY --input selection=KEY [--input embeddings=KEY] --key-out PATH
"""

from components.entrypoint import Context, PartContext, Result, main
from wfm.curation.dataset import dataset
from wfm.parts.part import add_up

CONFIG = dataset.ShardsConfig


def run(ctx: Context[dataset.ShardsConfig]) -> Result:
    """One part for each part of the videos, then the card."""
    inputs, arguments = dataset.dataset_plan(ctx.inputs)
    parts = ctx.map_parts(inputs, part, arguments)
    counts, skipped = add_up(ctx.store, parts)
    card = dataset.write_card(ctx.store, parts, ctx.out)
    return Result(counts=counts, skipped=skipped, parts=parts, extra={"splits": card["splits"]})


def part(ctx: PartContext[dataset.ShardsConfig]) -> Result:
    """The clips of one part -> their shards and tables."""
    counts, skipped = dataset.dataset_part(ctx)
    return Result(counts=counts, skipped=skipped)


if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
