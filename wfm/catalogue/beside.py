"""Cards written beside what `wfm artifacts pull` copied: Markdown for people, the sheet for programs."""

from pathlib import Path
from typing import TYPE_CHECKING

from wfm.artifacts.atomic import replace_on_disk
from wfm.catalogue.dataset_card import dataset_card
from wfm.catalogue.later import Evaluations
from wfm.catalogue.model_card import model_card
from wfm.catalogue.of_dataset import Called, dataset_sheet
from wfm.catalogue.of_model import model_sheet
from wfm.catalogue.sheet import DatasetSheet, ModelSheet
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

NAMES = {"model": ("MODEL_CARD.md", "model_card.json"), "dataset": ("DATASET_CARD.md", "dataset_card.json")}
"""Kind of artifact -> the files beside it. No artifact has files of these names, on disks that know no case neither."""


def has_card(artifact: "Artifact") -> bool:
    """Whether there is a card of this kind of artifact."""
    return artifact.kind in NAMES


def sheet_of(
    store: "Store", artifact: "Artifact", called: Called | None = None, evaluations: Evaluations | None = None
) -> ModelSheet | DatasetSheet:
    """The sheet of a model or data set; `called`, `evaluations`: of its store, where they were read already. Raises
    DataError where its records are not what they should be."""
    if artifact.kind == "model":
        return model_sheet(store, artifact, called, evaluations)
    return dataset_sheet(store, artifact, called)


def card_of(sheet: ModelSheet | DatasetSheet, *, with_front_matter: bool = True) -> str:
    """The sheet as Markdown."""
    if isinstance(sheet, ModelSheet):
        return model_card(sheet, with_front_matter=with_front_matter)
    return dataset_card(sheet, with_front_matter=with_front_matter)


def require_ours(artifact: "Artifact", folder: Path) -> None:
    """Raise InputError, before anything is copied, where a card of another artifact, or a file of the user's, has a name that
    is written here."""
    for name in NAMES.get(artifact.kind, ()):
        path = folder / name
        if path.is_symlink() or (path.exists() and artifact.key not in path.read_text("utf-8", "replace")):
            raise InputError(f"{path} is not the card of {artifact!r}: move it away, or pull into another folder")


def write_cards(store: "Store", artifact: "Artifact", folder: Path) -> list[Path]:
    """Write both files into the folder that an artifact was pulled into; what an earlier pull wrote is replaced."""
    sheet = sheet_of(store, artifact)
    markdown, plain = (folder / name for name in NAMES[artifact.kind])
    replace_on_disk(markdown, card_of(sheet).encode("utf-8", "replace"), fsync=False)
    replace_on_disk(plain, sheet.model_dump_json(indent=1).encode("utf-8", "replace") + b"\n", fsync=False)
    return [markdown, plain]
