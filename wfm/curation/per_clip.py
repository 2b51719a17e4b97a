"""Steps that look at one clip at a time: read the clips of a part, run the step, write its table and what it skipped.

    score, caption, embed: one part of ``clips`` -> ``<table>.parquet`` and ``skips.parquet``

A part's key depends on the digest of its clips, so a part whose clips did not change is never looked at again.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wfm.curation.part import PartLike
from wfm.curation.step import Skip, SkippedRow, Step, run_step, skipped_by_reason
from wfm.errors import DataError
from wfm.records import Clip, Record

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

Fetch = Callable[[str], Path]
"""A clip's path inside its part -> a local file of checked bytes."""

Answer = TypeVar("Answer")


def part_plan(clips: "Artifact") -> tuple[dict[str, Any], dict[str, Any]]:
    """(inputs, arguments) of ``map_parts``: one part for each part of ``clips`` that holds a clip."""
    entries = {entry.name: entry for entry in clips.parts if entry.counts.get("outputs")}
    inputs: Mapping[str, Any] = {name: {"clips": entry.digest} for name, entry in entries.items()}
    return dict(inputs), {name: {"clips": entry.key} for name, entry in entries.items()}


def run_per_clip(
    part: PartLike, make_step: Callable[[Fetch], Step[Clip, Any]], record: type[Record], table: str
) -> tuple[dict[str, int], dict[str, int]]:
    """Run a step over the clips of one part; returns (counts, skipped by reason)."""
    import pyarrow.parquet as pq

    source = part.open_store().part(part.arguments["clips"])
    clips = sorted(Clip.from_table(source.table("clips")), key=lambda clip: clip.clip_id)
    step = make_step(source.fetch)
    rows, left = run_step(step, clips)
    skips = [
        SkippedRow(
            step=step.name,
            video_id=item.item.video_id,
            source=item.item.source,
            start_seconds=item.item.start_seconds,
            end_seconds=item.item.end_seconds,
            reason=item.reason,
        )
        for item in left
    ]
    pq.write_table(record.to_table(rows), part.out / f"{table}.parquet", compression="zstd")
    pq.write_table(SkippedRow.to_table(skips), part.out / "skips.parquet", compression="zstd")
    return {"inputs": len(clips), "outputs": len(rows)}, skipped_by_reason(skips)


def or_skip(function: Callable[..., Answer], *arguments: Any, **named: Any) -> Answer:
    """Call, and turn a video that cannot be decoded into a skip with its stable reason code."""
    try:
        return function(*arguments, **named)
    except DataError as error:
        code = getattr(error, "code", "")
        if not code:  # damaged bytes in the store are not a fault of the clip: let whoever verifies them speak
            raise
        raise Skip(code, getattr(error, "words", str(error))) from error
