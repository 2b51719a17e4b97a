"""Why each clip was dropped, with its place and the figure that decided: a selection judged once more from what it was made of.

Nothing of this is stored with the selection: the rules of its own config say the same of the same scores.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from wfm.curation.measure.measurements import Measures
from wfm.curation.rows import AestheticRow, Score, Selection
from wfm.curation.select.select import Judged, Scored, SelectConfig, filters, join_scores
from wfm.curation.step import Filter
from wfm.errors import ConfigError
from wfm.log import get_logger
from wfm.records import Clip, Record

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

Row = TypeVar("Row", bound=Record)


def drops(store: "Store", selection: "Artifact") -> Iterator[dict[str, Any]]:
    """A row for each clip that is not kept, in order of clip id within a part: clip_id, reason, source, start_seconds,
    end_seconds, and what decided: ``measure``, ``score``, ``limit``; of a duplicate the kept clip and how alike they are.

    Where an input is gone (collected, purged), what it would tell is left out.
    """
    import pyarrow.parquet as pq

    inputs = {name: store.artifact(key) for name, key in selection.manifest.inputs.items() if store.has(key)}
    rules = _rules(selection)
    near = inputs["duplicates"].manifest.config.get("threshold") if "duplicates" in inputs else None
    for entry in selection.files("selection.parquet/"):
        part = entry.path.rpartition("/")[2].removesuffix(".parquet")
        rows = Selection.from_table(pq.read_table(selection.fetch(entry.path)))
        dropped = [row for row in rows if not row.kept]
        if not dropped:
            continue
        known = {clip.clip_id: clip for clip in _rows(inputs.get("clips"), part, "clips", Clip)}
        scored = join_scores(
            [known[row.clip_id] for row in dropped if row.clip_id in known],
            _rows(inputs.get("scores"), part, "scores", Score),
            _rows(inputs.get("scores"), part, "measures", Measures),
            _rows(inputs.get("embeddings"), part, "aesthetic", AestheticRow),
        )
        by_id = {item.clip.clip_id: item for item in scored}
        for row in dropped:
            line: dict[str, Any] = {"clip_id": row.clip_id, "reason": row.reason}
            item = by_id.get(row.clip_id)
            if item is not None:
                clip = item.clip
                line |= {"source": clip.source, "start_seconds": clip.start_seconds, "end_seconds": clip.end_seconds}
            judged = _judged(rules.get(row.reason), item)
            if row.duplicate_of:
                line |= {"duplicate_of": row.duplicate_of, "tier": row.duplicate_tier}
                judged = Judged("cosine", row.duplicate_cosine, near if row.duplicate_tier == "embedding" else None)
            if judged is not None:
                line |= {"measure": judged.measure, "score": judged.score, "limit": judged.limit}
            yield line


def _rules(selection: "Artifact") -> dict[str, Filter[Scored]]:
    """The filters by the reason they give; none where another version of wfm wrote the config."""
    try:
        return {rule.name: rule for rule in filters(SelectConfig.parse(selection.manifest.config))}
    except ConfigError as error:
        get_logger(__name__).warning("%r: scores and limits are not shown: %s", selection, error)
        return {}


def _judged(rule: Filter[Scored] | None, item: Scored | None) -> Judged | None:
    judge = getattr(rule, "judged", None)
    found: Judged | None = judge(item) if judge is not None and item is not None else None
    return found


def _rows(artifact: "Artifact | None", part: str, table: str, record: type[Row]) -> list[Row]:
    """The rows of one part of a table that may not be there."""
    if artifact is None or not any(entry.name == part for entry in artifact.iterate_parts()):
        return []
    opened = artifact.part(part)
    return record.from_table(opened.table(table)) if opened.has_file(f"{table}.parquet") else []
