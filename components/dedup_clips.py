"""``clips``, ``scores``, ``embeddings`` -> ``duplicates``: what is the same thing, over the whole corpus, in one commit.

    python -m components.dedup_clips --spec SPEC --input clips=KEY --input scores=KEY --input embeddings=KEY --key-out PATH

Writes ``duplicates.parquet/<part>.parquet`` (a row a clip) and ``pairs.parquet/<part>.parquet``.
"""

from components.entrypoint import Context, Result, main
from wfm.curation import dedup
from wfm.curation.by_part import parts_of, read_parts, read_rows, write_parts
from wfm.curation.rows import DuplicatePair, DuplicateRow, Score
from wfm.records import Clip

CONFIG = dedup.DedupConfig


def run(ctx: Context[dedup.DedupConfig]) -> Result:
    """Compare every clip with every other."""
    by_part = read_parts(ctx.inputs["clips"], "clips", Clip)
    part_of = parts_of(by_part, lambda clip: clip.clip_id)
    clips = [clip for part in by_part.values() for clip in part]
    scores = read_rows(ctx.inputs["scores"], "scores", Score)
    embeddings = ctx.inputs["embeddings"]
    signatures = embeddings.table("signatures") if ctx.config.look else None
    rows, pairs, counts = dedup.find_duplicates(clips, scores, embeddings.table("embeddings"), ctx.config, signatures)
    write_parts(rows, lambda row: part_of[row.clip_id], DuplicateRow, ctx.out, "duplicates", by_part)
    write_parts(pairs, lambda pair: part_of[pair.clip_id], DuplicatePair, ctx.out, "pairs", by_part)
    return Result(counts=counts)


if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
