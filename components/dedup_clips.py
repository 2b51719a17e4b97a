"""``clips``, ``scores``, ``embeddings`` -> ``duplicates``: what is the same thing, over the whole corpus, in one commit.

    python -m components.dedup_clips --spec SPEC --input clips=KEY --input scores=KEY --input embeddings=KEY --key-out PATH

Writes ``duplicates.parquet/<part>.parquet`` (a row a clip) and ``pairs.parquet/<part>.parquet``. With ``against`` the pairs of
a run before are taken over, and only clips that it did not know are compared, with each other and with the old ones.
"""

from collections.abc import Mapping

from components.entrypoint import Context, Result, main
from wfm.artifacts import Artifact, Store
from wfm.curation.dedup import dedup
from wfm.curation.rows import DuplicatePair, DuplicateRow, Score
from wfm.errors import InputError
from wfm.parts.tables import parts_of, read_folder, read_parts, read_rows, write_parts
from wfm.records import Clip


class DedupClipsConfig(dedup.DedupConfig):
    """When two clips are the same, and what is known already."""

    against: str = ""
    "An earlier duplicates artifact, or the dataset made with it (dataset/NAME or a key): its pairs are not sought again."


def outside(config: DedupClipsConfig, inputs: Mapping[str, str], store: Store) -> dict[str, str] | None:
    """The earlier artifact is named in the config, so it enters the key by its own."""
    return {"against": _earlier(store, config.against).key} if config.against else None


def run(ctx: Context[DedupClipsConfig]) -> Result:
    """Compare every clip with every other, or with every other that is new."""
    by_part = read_parts(ctx.inputs["clips"], "clips", Clip)
    part_of = parts_of(by_part, lambda clip: clip.clip_id)
    clips = [clip for part in by_part.values() for clip in part]
    scores = read_rows(ctx.inputs["scores"], "scores", Score)
    embeddings = ctx.inputs["embeddings"]
    signatures = embeddings.table("signatures") if ctx.config.look else None
    known = _known(ctx) if ctx.config.against else None
    rows, pairs, counts = dedup.find_duplicates(
        clips, scores, embeddings.table("embeddings"), ctx.config, signatures, known
    )
    write_parts(rows, lambda row: part_of[row.clip_id], DuplicateRow, ctx.out, "duplicates", by_part)
    write_parts(pairs, lambda pair: part_of[pair.clip_id], DuplicatePair, ctx.out, "pairs", by_part)
    return Result(counts=counts)


def _earlier(store: Store, reference: str) -> Artifact:
    try:
        found = store.artifact(store.resolve(reference))
    except InputError as error:
        raise InputError(f"dedup_clips.against = {reference!r}: {error}") from None
    if found.kind == "dataset":
        found = store.artifact(dedup.duplicates_of(store, found))
    if found.kind != "duplicates":
        raise InputError(f"against = {reference!r} is of kind {found.kind!r}: give duplicates or a dataset")
    return found


def _known(ctx: Context[DedupClipsConfig]) -> dedup.Known:
    """What the earlier run found. Raises `InputError` where it compared otherwise: its pairs would mean something else."""
    earlier = _earlier(ctx.store, ctx.config.against)
    before = DedupClipsConfig.parse(earlier.manifest.config).what()
    for name, value in ctx.config.what().items():
        if name != "against" and before[name] != value:
            raise InputError(
                f"against = {ctx.config.against!r} compared with {name} = {before[name]!r}, this run has {value!r}: "
                "set the same, or leave out `against` to compare all again"
            )
    embeddings = ctx.store.artifact(earlier.manifest.inputs["embeddings"])
    for name in ("model", "weights_sha256", "frames", "side"):
        old, new = (of.manifest.config.get(name) for of in (embeddings, ctx.inputs["embeddings"]))
        if old != new:
            raise InputError(
                f"against = {ctx.config.against!r} compared embeddings made with {name} = {old!r}, this run has {new!r}: "
                "leave out `against` to compare all again"
            )
    pairs = [pair for part in read_folder(earlier, "pairs", DuplicatePair).values() for pair in part]
    compared = _hashes(embeddings, "embeddings")
    if ctx.config.look:  # a clip that only had an embedding was not looked at
        signed = _hashes(embeddings, "signatures")
        compared = {name: sha for name, sha in compared.items() if signed.get(name) == sha}
    return dedup.Known(pairs=pairs, clips=compared)


def _hashes(artifact: Artifact, table: str) -> dict[str, str]:
    return dict(zip(_column(artifact, table, "clip_id"), _column(artifact, table, "clip_sha256"), strict=True))


def _column(artifact: Artifact, table: str, name: str) -> list[str]:
    found: list[str] = artifact.table(table, [name]).column(name).to_pylist()
    return found


CONFIG = DedupClipsConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
