"""Files from outside, or simulated ones -> ``videos``: one row a file, readable or not, with the reason.

    python -m components.ingest_videos --spec SPEC [--input raw=KEY] --key-out PATH

Every file is a part of its own first (an unchanged file is never read again); then rows are put together by video id.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.entrypoint import Context, PartContext, Result, main
from wfm.curation.source import ingest, listing
from wfm.curation.source.extensions import IMAGES
from wfm.curation.source.source_files import Listing
from wfm.errors import ConfigError
from wfm.parts.part import add_up

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

CONFIG = ingest.IngestConfig


def external_inputs(config: ingest.IngestConfig, inputs: Mapping[str, str], store: "Store") -> Any:
    """What was seen outside, for the key; None when the input artifact says it all."""
    if config.videos and "raw" in inputs:
        raise ConfigError(f"ingest_videos has both videos={config.videos!r} and the input 'raw': give one of them")
    listed = None
    if "raw" not in inputs:
        aside = () if config.images else IMAGES
        listed = listing.list_source(config.videos, store, config.limits, leave_aside=aside).first(config.limit)
    seen = listed.to_json() if listed is not None else None
    sources = {file.source for file in listed.files} if listed is not None else set()
    purged = ingest.purged_from(sources, set(inputs.values()), store)
    more: dict[str, Any] = {"purged": purged} if purged else {}
    if seen is None and config.limit:
        more["limit"] = config.limit
    return {**(seen or {}), **more} if more else seen


def run(ctx: Context[ingest.IngestConfig]) -> Result:
    """List, read each file that is new, group by video id."""
    found = _listing(ctx)
    probes = ctx.map_parts(ingest.probe_inputs(found), probe, more_follow=True)
    inputs, arguments = ingest.group_plan(probes, ctx.store, found, ctx.config)
    parts = ctx.map_parts(inputs, group, arguments)
    counts, skipped = add_up(ctx.store, parts)
    return Result(counts=counts, skipped=skipped, parts=parts)


def probe(part: PartContext[ingest.IngestConfig]) -> Result:
    """One file -> one row."""
    part.work.update(videos=1, bytes=part.inputs["file"].get("size", 0))
    return Result(extra=ingest.probe_part(part))


def group(part: PartContext[ingest.IngestConfig]) -> Result:
    """Rows of neighbouring video ids -> one table."""
    counts, skipped = ingest.group_part(part)
    return Result(counts=counts, skipped=skipped)


def _listing(ctx: Context[ingest.IngestConfig]) -> Listing:
    raw: Artifact | None = ctx.inputs.get("raw")
    if raw is not None:
        return listing.list_artifact(raw).first(ctx.config.limit)
    seen = ctx.external_inputs if ctx.external_inputs is not None else external_inputs(ctx.config, {}, ctx.store)
    return Listing.from_json(seen)


if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
