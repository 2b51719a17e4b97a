"""``clips``, ``scores``, ``embeddings`` -> ``duplicates``: what is the same thing, over the whole corpus, in one commit.

    python -m components.dedup_clips --spec SPEC --input clips=KEY --input scores=KEY --input embeddings=KEY --key-out PATH

Writes ``duplicates.parquet/<part>.parquet`` (a row a clip) and ``pairs.parquet/<part>.parquet``. With ``against`` the pairs of
a run before are taken over, and only clips that it did not know are compared, with each other and with the old ones.
"""

from collections.abc import Mapping

from components.entrypoint import Context, Result, main
from wfm.artifacts import Store
from wfm.curation.dedup.dedup import DedupConfig, find_duplicates
from wfm.curation.dedup.earlier import find_earlier, read_earlier
from wfm.curation.rows import DuplicatePair, DuplicateRow, Score
from wfm.parts.tables import parts_of, read_parts, read_rows, write_parts
from wfm.records import Clip


class DedupClipsConfig(DedupConfig):
    """When two clips are the same, and what is known already."""

    against: str = ""
    "An earlier duplicates artifact, or the dataset made with it (dataset/NAME or a key): its pairs are not sought again."


def external_inputs(config: DedupClipsConfig, inputs: Mapping[str, str], store: Store) -> dict[str, str] | None:
    """The earlier artifact is named in the config, so it enters the key by its own."""
    return {"against": find_earlier(store, config.against).key} if config.against else None


def run(ctx: Context[DedupClipsConfig]) -> Result:
    """Compare every clip with every other, or with every other that is new."""
    clips = read_parts(ctx.inputs["clips"], "clips", Clip)
    part_of = parts_of(clips, lambda clip: clip.clip_id)
    scores = read_rows(ctx.inputs["scores"], "scores", Score)
    embeddings, against, look = ctx.inputs["embeddings"], ctx.config.against, ctx.config.look
    rows, pairs, counts = find_duplicates(
        [clip for part in clips.values() for clip in part],
        scores,
        embeddings.table("embeddings"),
        ctx.config,
        embeddings.table("signatures") if look else None,
        read_earlier(ctx.store, against, ctx.config, embeddings, look=look) if against else None,
    )
    write_parts(rows, lambda row: part_of[row.clip_id], DuplicateRow, ctx.out, "duplicates", clips)
    write_parts(pairs, lambda pair: part_of[pair.clip_id], DuplicatePair, ctx.out, "pairs", clips)
    return Result(counts=counts)


CONFIG = DedupClipsConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
