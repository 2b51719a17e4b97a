"""``videos`` -> ``clips``: shots found by a detector of `wfm.curation.cut.shots`, cut true to pts, with actions and attributes.

python -m components.split_clips --spec SPEC --input videos=KEY --key-out PATH
"""

from typing import TYPE_CHECKING

from components.entrypoint import Context, PartContext, Result, main
from wfm.artifacts.manifest import content_digest
from wfm.curation.cut import split
from wfm.parts.part import add_up

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

CONFIG = split.SplitConfig


def run(ctx: Context[split.SplitConfig]) -> Result:
    """One part for each part of ingest that holds a readable video."""
    entries = {entry.name: entry for entry in ctx.inputs["videos"].parts if entry.counts.get("outputs")}
    parts = ctx.map_parts(
        {name: {"videos": _without_rights(ctx.inputs["videos"].part(name))} for name in entries},
        part,
        {name: {"videos": entry.key} for name, entry in entries.items()},
    )
    counts, skipped = add_up(ctx.store, parts)
    return Result(counts=counts, skipped=skipped, parts=parts)


def _without_rights(videos: "Artifact") -> str:
    """Digest of what clips are cut from: a licence that was corrected cuts no clip again."""
    return content_digest((file for file in videos.files() if file.path != "rights.parquet"), ())


def part(ctx: PartContext[split.SplitConfig]) -> Result:
    """The videos of one part -> their clips."""
    counts, skipped = split.split_part(ctx)
    return Result(counts=counts, skipped=skipped)


if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
