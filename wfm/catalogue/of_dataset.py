"""A data set in a store -> `DatasetSheet`, from the `card.json` that it was written with."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from wfm.artifacts import schema
from wfm.catalogue.sheet import DatasetSheet, DataUsed, Right, Split, Step
from wfm.errors import DataError, InputError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

CARD = "card.json"
NEWEST = 1
"""Schema version of a data set's card."""
Called = Mapping[str, list[str]]
"""Key -> the names that mean it now."""


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Videos(_Read):
    total: int = 0
    ok: int = 0
    simulated: int = 0


class _Clips(_Read):
    total: int = 0
    kept: int = 0
    with_actions: int = 0


class _Images(_Read):
    kept: int = 0


class _Spans(_Read):
    spans: int = 0


class _Card(_Read):
    """What is read of a data set's card: the rest is for its own README."""

    schema_version: int
    videos: _Videos = _Videos()
    videos_without_clips: dict[str, int] = {}
    videos_not_used: dict[str, int] = {}
    clips: _Clips = _Clips()
    images: _Images = _Images()
    clips_refused: dict[str, int] = {}
    spans_not_cut: dict[str, _Spans] = {}
    caption_sources: dict[str, int] = {}
    picture_sizes: dict[str, int] = {}
    rights: list[dict[str, Any]] = []
    splits: dict[str, dict[str, Any]] = {}
    scores_kept: dict[str, dict[str, float]] = {}
    estimated: bool = False

    def split_sheets(self) -> dict[str, Split]:
        """Splits, in the card's order."""
        return {
            name: Split.model_validate({field: held.get(field, 0) for field in Split.model_fields})
            for name, held in self.splits.items()
        }

    def right_sheets(self) -> list[Right]:
        """Licences and consents with their counts."""
        return [Right.model_validate({k: one[k] for k in Right.model_fields if k in one}) for one in self.rights]


def _read(artifact: "Artifact") -> tuple[_Card, bytes]:
    data = artifact.fetch(CARD).read_bytes()
    where = f"{CARD} of {artifact!r}"
    values = schema.parse(data, where)
    version = values.get("schema_version") if isinstance(values, dict) else None
    if not isinstance(version, int) or version > NEWEST:
        raise DataError(f"{where}: schema_version {version!r}, this wfm reads up to {NEWEST}: use a newer wfm")
    try:
        card = _Card.model_validate(values)
        card.split_sheets(), card.right_sheets()
    except ValidationError as error:
        raise DataError(f"{where} is not the card of a data set: {error}") from None
    return card, data


def lineage_of(store: "Store", key: str) -> list[Step]:
    """The artifact and its ancestors, each before its inputs."""
    return [
        Step(
            key=one.key,
            kind=one.kind,
            stage=one.stage,
            created_at=one.created_at,
            inputs=dict(sorted(one.inputs.items())),
            problem=one.problem,
        )
        for one in store.lineage(key)
    ]


def names_of(store: "Store") -> Called:
    """What the store calls its models and data sets now."""
    found: dict[str, list[str]] = {}
    for kind in ("dataset", "model"):
        for promotion in store.names.list(kind):
            found.setdefault(promotion.key, []).append(promotion.reference)
    return found


def size_of(artifact: "Artifact") -> int:
    """Bytes of an artifact with its parts; of its own files alone where a part is gone."""
    try:
        return artifact.total_bytes()
    except InputError:
        return artifact.manifest.files.bytes


def dataset_sheet(store: "Store", artifact: "Artifact", called: Called | None = None) -> DatasetSheet:
    """The sheet of a committed data set; `called`: the names of its store, where they were read already. Raises DataError where
    its card cannot be read, InputError where it has none.
    """
    called = names_of(store) if called is None else called
    card, data = _read(artifact)
    return DatasetSheet(
        key=artifact.key,
        names=called.get(artifact.key, []),
        created_at=artifact.manifest.created_at,
        size_bytes=size_of(artifact),
        videos=card.videos.total,
        videos_usable=card.videos.ok,
        simulated_videos=card.videos.simulated,
        videos_not_used=card.videos_not_used,
        videos_without_clips=card.videos_without_clips,
        spans_not_cut={reason: found.spans for reason, found in card.spans_not_cut.items()},
        clips_cut=card.clips.total,
        clips=card.clips.kept,
        images=card.images.kept,
        clips_with_actions=card.clips.with_actions,
        clips_refused=card.clips_refused,
        splits=card.split_sheets(),
        rights=card.right_sheets(),
        caption_sources=card.caption_sources,
        picture_sizes=card.picture_sizes,
        scores=card.scores_kept,
        estimated=card.estimated,
        lineage=lineage_of(store, artifact.key),
        card_sha256=hashlib.sha256(data).hexdigest(),
    )


def data_used(store: "Store", lineage: list[Step], called: Called) -> list[DataUsed]:
    """The data sets in a lineage, nearest first; one that cannot be read says why."""
    return [_used(store, step, called) for step in lineage if step.kind == "dataset"]


def _used(store: "Store", step: Step, called: Called) -> DataUsed:
    try:
        artifact = store.artifact(step.key)
        card, _ = _read(artifact)
    except InputError as error:
        return DataUsed(key=step.key, problem=str(error))
    return DataUsed(
        key=step.key,
        names=called.get(step.key, []),
        clips=card.clips.kept,
        videos=max(card.videos.ok - sum(card.videos_without_clips.values()), 0),
        simulated_videos=card.videos.simulated,
        splits=card.split_sheets(),
        rights=card.right_sheets(),
    )
