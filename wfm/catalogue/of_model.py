"""A bundle, in a store or in a folder that was pulled -> `ModelSheet`. No weight is read, torch is not loaded."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wfm.actions import ActionSpec
from wfm.artifacts import schema
from wfm.catalogue.later import Evaluations, evaluations_of, newest
from wfm.catalogue.of_dataset import Called, data_used, lineage_of, names_of, size_of
from wfm.catalogue.sheet import Action, ModelSheet, Result, ResultRow, Step, SubsetResult, Window
from wfm.errors import ConfigError, DataError, InputError
from wfm.evaluation.page.cast import Cast
from wfm.evaluation.page.intervals import Row, rows
from wfm.evaluation.page.limits import limits
from wfm.evaluation.page.losses import ASKED, losses, losses_told
from wfm.evaluation.page.verdict import headline
from wfm.evaluation.page.words import SUBSETS
from wfm.evaluation.schema import SCHEMA_VERSION as NEWEST_METRICS
from wfm.evaluation.schema import Metrics
from wfm.models.family import FAMILIES

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store
    from wfm.config import Config

CARD = "card.json"
SAVED = "model_card.json"
"""The sheet beside a pulled bundle: what the store knew and the bundle does not say of itself."""
NEWEST = 2
"""Schema version of a bundle's card."""
Read = Callable[[str], bytes | None]
"""A path in the bundle -> its bytes; None where there is no such file."""
_Frames = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


class _Card(BaseModel):
    """What is read of a bundle's `card.json`; whoever runs the model reads it whole (`wfm.generation.world_model`)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: int
    name: str = ""
    family: str
    size: tuple[_Frames, _Frames]
    fps: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    num_frames: _Frames
    past_frames: _Frames
    sampling: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    inputs: dict[str, str] = {}


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle: both of its models and its card are there."""
    return all((folder / path).is_file() for path in (CARD, "model/config.json", "tokenizer/config.json"))


def sheet_of_folder(folder: Path) -> ModelSheet:
    """The sheet of a bundle's folder. What the store knew stands in `model_card.json` where it was pulled from one; one of
    another bundle is passed over. Raises DataError."""

    def read(path: str) -> bytes | None:
        return (folder / path).read_bytes() if (folder / path).is_file() else None

    sheet = _sheet(read, str(folder))
    saved = read(SAVED)
    if saved is None:
        return sheet
    try:
        known = ModelSheet.model_validate(schema.parse(saved, str(folder / SAVED)))
    except ValidationError as error:
        raise DataError(
            f"{folder / SAVED} is no model card of this wfm: {error}; delete it, or pull the model again"
        ) from None
    if known.card_sha256 != sheet.card_sha256:
        return sheet
    kept = ("key", "names", "created_at", "size_bytes", "data", "lineage", "result")
    return sheet.model_copy(update={field: getattr(known, field) for field in kept})


def bundle_sheet(artifact: "Artifact") -> ModelSheet:
    """What a committed bundle says of itself. Raises DataError."""

    def read(path: str) -> bytes | None:
        return artifact.fetch(path).read_bytes() if artifact.has_file(path) else None

    return _sheet(read, repr(artifact))


def model_sheet(
    store: "Store", artifact: "Artifact", called: Called | None = None, evaluations: Evaluations | None = None
) -> ModelSheet:
    """The sheet of a committed bundle, with its lineage, the data it was made from, and the newest evaluation of its model;
    `called`, `evaluations`: of its store, where they were read already. Raises DataError.
    """
    called = names_of(store) if called is None else called
    lineage = lineage_of(store, artifact.key)
    known = {
        "key": artifact.key,
        "names": called.get(artifact.key, []),
        "created_at": artifact.manifest.created_at,
        "size_bytes": size_of(artifact),
        "lineage": lineage,
        "data": data_used(store, lineage, called),
    }
    sheet = bundle_sheet(artifact)
    evaluations = evaluations_of(store) if evaluations is None else evaluations
    if (later := newest(store, artifact, sheet.sampling, evaluations)) is not None:
        made, metrics = later
        told = {"evaluation": made.key, "evaluated_at": made.manifest.created_at}
        told["published_with"] = artifact.manifest.inputs.get("evaluation", "")
        known |= {"metrics": metrics, "result": result_of(metrics).model_copy(update=told), "result_absent": ""}
    elif sheet.result is not None and (published := artifact.manifest.inputs.get("evaluation")):
        at = next((step.created_at for step in lineage if step.key == published), "")
        told = {"evaluation": published, "evaluated_at": at}
        known["result"] = sheet.result.model_copy(update=told)
    return sheet.model_copy(update=known)


def _sheet(read: Read, where: str) -> ModelSheet:
    data = read(CARD)
    if data is None:
        raise DataError(f"{where}: no {CARD} here, so this is not a published world model")
    values = schema.parse(data, f"{where}, {CARD}")
    version = values.get("schema_version") if isinstance(values, dict) else None
    if not isinstance(version, int) or version > NEWEST:
        raise DataError(f"{where}, {CARD}: schema_version {version!r}, this wfm reads up to {NEWEST}: use a newer wfm")
    try:
        card = _Card.model_validate(values)
    except ValidationError as error:
        raise DataError(f"{where}: {CARD} is not the card of a world model: {error}") from None
    metrics, absent = _metrics(card)
    model, tokenizer = _described(read, "model", where), _described(read, "tokenizer", where)
    spec = model[1]
    return ModelSheet(
        name=card.name or card.family,
        family=card.family,
        title=metrics.title if metrics and metrics.title else card.family.replace("_", " ").capitalize(),
        window=Window(
            height=card.size[0],
            width=card.size[1],
            fps=card.fps,
            past_frames=card.past_frames,
            predicted_frames=max(card.num_frames - card.past_frames, 0),
        ),
        actions=[Action(name=name, unit=unit) for name, unit in zip(spec.names, spec.units, strict=True)],
        action_frame=spec.frame if spec.names else "",
        action_rate_hz=spec.rate_hz if spec.names else 0.0,
        reads_text=model[2],
        parameters=_parameters(model[0], tokenizer[0]),
        sampling=card.sampling,
        result=None if metrics is None else result_of(metrics),
        result_absent=absent,
        lineage=[Step(key=key, kind=role) for role, key in sorted(card.inputs.items())],
        card_sha256=hashlib.sha256(data).hexdigest(),
        metrics=metrics,
    )


def _metrics(card: _Card) -> tuple[Metrics | None, str]:
    """(figures, "") or (None, why there are none)."""
    if not card.evaluation:
        return None, "it was never evaluated"
    version = card.evaluation.get("schema_version", 0)
    if not isinstance(version, int) or version > NEWEST_METRICS:
        return None, f"its evaluation has schema_version {version!r}, this wfm reads up to {NEWEST_METRICS}"
    try:
        return Metrics.model_validate(card.evaluation), ""
    except ValidationError as error:
        return None, f"its evaluation is not one that this wfm reads ({error.error_count()} fields differ)"


def _described(read: Read, folder: str, where: str) -> tuple["Config | None", ActionSpec, bool]:
    """(config, actions, whether captions are read) of one of a bundle's models; no config for a family not known here."""
    data = read(f"{folder}/config.json")
    if data is None:
        raise DataError(f"{where}: it has no {folder}/config.json: pull it again, whole")
    values = schema.parse(data, f"{where}, {folder}/config.json")
    family = values.get("family") if isinstance(values, dict) else None
    if not isinstance(family, str) or not isinstance(values.get("extra", {}), dict):
        raise DataError(f"{where}: {folder}/config.json is not that of a model folder")
    spec = ActionSpec.parse(values.get("action_spec") or {})
    config = FAMILIES.load(family).config.parse(values.get("config")) if family in FAMILIES.names() else None
    return config, spec, "text" in values.get("extra", {})


def _parameters(model: "Config | None", tokenizer: "Config | None") -> dict[str, int]:
    """Counts in closed form, of those that have one."""
    found = {"model": _count(model, tokenizer), "tokenizer": _count(tokenizer, tokenizer)}
    return {role: count for role, count in found.items() if count is not None}


def _count(config: "Config | None", tokenizer: "Config | None") -> int | None:
    from wfm.models.cost import cost_of

    if config is None or tokenizer is None:
        return None
    try:
        return cost_of(config, tokenizer=tokenizer).parameters
    except ConfigError:  # no formula for such a one
        return None


def result_of(metrics: Metrics) -> Result:
    """The evaluation in the tables that a card shows."""
    return Result(
        split=metrics.split,
        windows=metrics.windows,
        sessions=metrics.sessions,
        headline=headline([metrics])[0],
        loses=losses_told(metrics),
        subsets=[_subset(metrics, name) for name in ASKED if name in metrics.subsets],
        limits=limits(Cast([metrics]), [metrics]),
    )


def _subset(metrics: Metrics, name: str) -> SubsetResult:
    report = metrics.subsets[name]
    return SubsetResult(
        subset=name,
        heading=f"Where {SUBSETS[name]}" if name != "all" else "All windows",
        windows=report.windows,
        sessions=report.sessions,
        absent=report.absent,
        rows=[_row(row) for row in rows([metrics], name)],
        losses=[loss.text for loss in losses(metrics, name)],
    )


def _row(row: Row) -> ResultRow:
    return ResultRow(
        method=row.label,
        baseline=row.reference,
        psnr_db=row.figures.get("psnr_db"),
        gain_db=row.gain,
        gain_over_flow_db=row.over_flow,
        share_of_windows=row.share,
    )


def require_bundle(store: "Store", key: str) -> "Artifact":
    """The bundle of a key. Raises InputError for an artifact of another kind, saying what it is."""
    artifact = store.artifact(key)
    if artifact.kind != "model":
        raise InputError(
            f"{artifact!r} is no published model: it was not evaluated and bundled; give model/NAME, or the key of one"
        )
    return artifact
