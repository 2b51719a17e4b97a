"""Steps that look at one clip at a time: read the clips of a part, run the step, write its table and what it skipped.

    score, caption, embed: one part of ``clips`` -> ``<table>.parquet`` and ``skips.parquet``

A part's key depends on the digest of its clips, so a part whose clips did not change is never looked at again.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wfm.curation.poison import listed, watch
from wfm.curation.step import Skip, SkippedRow, Step, run_step, skipped_by_reason
from wfm.errors import DataError
from wfm.parts.part import PartLike
from wfm.records import Clip, Record

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

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

    store = part.open_store()
    source = store.part(part.arguments["clips"])
    clips = sorted(Clip.from_table(source.table("clips")), key=lambda clip: clip.clip_id)
    step = make_step(source.fetch)
    guarded = Guarded(step, store, source.fetch, every=part.after_death)
    rows, left = run_step(guarded, clips, ahead=getattr(step, "ahead", 0))
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
    seconds = round(sum(clip.end_seconds - clip.start_seconds for clip in clips))
    part.work |= Counter(clips=len(clips), video_seconds=seconds, bytes=source.manifest.files.bytes)
    return {"inputs": len(clips), "outputs": len(rows)}, skipped_by_reason(skips)


class Guarded:
    """A step under the poison guard. A clip is small, so a note for each would cost more requests than the rest of the work:
    only clips that the store has a note of are watched, and all of them (``every``) in a part at which a worker has died."""

    def __init__(self, step: Step[Clip, Any], store: "Store", fetch: Fetch, *, every: bool) -> None:
        self.name = step.name
        self._step, self._store, self._fetch = step, store, fetch
        self._watched = None if every else listed(store, step.name)

    def __call__(self, item: Clip) -> Iterable[Any]:
        """The step's rows. Raises `Skip` with the code ``poisoned`` for a clip that is on the list."""
        if self._watched is not None and item.clip_id not in self._watched:
            return self._step(item)
        source = f"{item.source} {item.start_seconds:.3f}-{item.end_seconds:.3f} s"
        with watch(self._store, self.name, item.clip_id, self._fetch(item.path), source):
            return list(self._step(item))


def or_skip(function: Callable[..., Answer], *arguments: Any, **named: Any) -> Answer:
    """Call, and turn a video that cannot be decoded into a skip with its stable reason code."""
    try:
        return function(*arguments, **named)
    except DataError as error:
        code = getattr(error, "code", "")
        if not code:  # damaged bytes in the store are not a fault of the clip: let whoever verifies them speak
            raise
        raise Skip(code, getattr(error, "words", str(error))) from error
