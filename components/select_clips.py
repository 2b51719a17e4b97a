"""``clips``, ``scores``, ``duplicates`` (and ``embeddings``) -> ``selection``: kept or not, why not, and its split.

    python -m components.select_clips --spec SPEC --input clips=KEY --input scores=KEY --input duplicates=KEY \\
        [--input embeddings=KEY] --key-out PATH

Decides over the whole corpus from tables alone. Writes ``selection.parquet/<part>.parquet``, so that write_shards redoes
the parts whose decisions changed and no other.
"""

from components.entrypoint import Context, Result, main
from wfm.curation.measure.measurements import Measures
from wfm.curation.rows import AestheticRow, DuplicatePair, DuplicateRow, Score, Selection
from wfm.curation.select import select
from wfm.parts.tables import parts_of, read_optional, read_parts, read_rows, write_parts
from wfm.records import Clip

CONFIG = select.SelectConfig


def run(ctx: Context[select.SelectConfig]) -> Result:
    """Judge every clip."""
    by_part = read_parts(ctx.inputs["clips"], "clips", Clip)
    part_of = parts_of(by_part, lambda clip: clip.clip_id)
    rows = select.select_clips(
        [clip for part in by_part.values() for clip in part],
        read_rows(ctx.inputs["scores"], "scores", Score),
        read_rows(ctx.inputs["duplicates"], "duplicates", DuplicateRow),
        read_rows(ctx.inputs["duplicates"], "pairs", DuplicatePair),
        ctx.config,
        read_rows(ctx.inputs["scores"], "measures", Measures),
        read_optional(ctx.inputs.get("embeddings"), "aesthetic", AestheticRow),
    )
    write_parts(rows, lambda row: part_of[row.clip_id], Selection, ctx.out, "selection", by_part)
    counts, skipped = select.counts_of(rows)
    return Result(counts=counts, skipped=skipped)


if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
