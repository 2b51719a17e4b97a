"""Every name of a store that people look for: models and data sets, each with its history and its sheet."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from wfm.catalogue.beside import NAMES, sheet_of
from wfm.catalogue.later import Evaluations, evaluations_of
from wfm.catalogue.of_dataset import Called, names_of
from wfm.catalogue.of_model import bundle_sheet
from wfm.catalogue.sheet import DatasetSheet, ModelSheet
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts import Store

MOST_HISTORY = 50
"""So many promotions of an alias are shown, the newest."""
_LATEST = "latest"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Promoted(_Entry):
    """One promotion of an alias."""

    number: int
    at: str
    key: str
    by: str = ""
    gate: str = ""
    """What the gate saw, where one was asked."""
    result: str = ""
    """Of a model: what it was promoted with, in a sentence; why there is none else."""


class Alias(_Entry):
    alias: str
    key: str
    history: list[Promoted]
    """Newest first; at most `MOST_HISTORY`."""
    promotions: int


class Entry(_Entry):
    """One name. `problem` says why there is no sheet."""

    kind: str
    name: str
    aliases: list[Alias]
    shown: str = ""
    """The alias whose sheet this is: `latest`, or the first where there is none."""
    model: ModelSheet | None = None
    dataset: DatasetSheet | None = None
    problem: str = ""

    @property
    def folder(self) -> str:
        """Where its page lies in the catalogue."""
        return f"{self.kind}/{self.name}"

    @property
    def sheet(self) -> ModelSheet | DatasetSheet | None:
        """Whichever it has."""
        return self.model or self.dataset


def entries(store: "Store") -> tuple[list[Entry], list[str]]:
    """(every model and data set by name, what could not be read of the names themselves)."""
    found: dict[tuple[str, str], list[Alias]] = {}
    problems: list[str] = []
    told: dict[str, str] = {}
    for kind, name, alias in store.names.all():
        if kind not in NAMES:
            continue
        try:
            history = _history(store, kind, name, alias, told)
        except InputError as error:
            problems.append(f"{kind}/{name}@{alias}: {error}")
            continue
        if history is not None:
            found.setdefault((kind, name), []).append(history)
    called, evaluations = names_of(store), evaluations_of(store)
    made = [_entry(store, kind, name, aliases, called, evaluations) for (kind, name), aliases in sorted(found.items())]
    return made, problems


def _history(store: "Store", kind: str, name: str, alias: str, told: dict[str, str]) -> Alias | None:
    numbers = store.names.numbers(kind, name, alias)
    read = [store.names.read(kind, name, alias, number) for number in numbers[:MOST_HISTORY]]
    shown = [promotion for promotion in read if promotion is not None]
    if not shown:
        return None
    history = [
        Promoted(
            number=one.number,
            at=one.created_at,
            key=one.key,
            by=one.by,
            gate="" if one.gate is None else f"{'passed' if one.gate.passed else 'not passed'}: {one.gate}",
            result=_told(store, one.key, told) if kind == "model" else "",
        )
        for one in shown
    ]
    return Alias(alias=alias, key=shown[0].key, history=history, promotions=len(numbers))


def _told(store: "Store", key: str, told: dict[str, str]) -> str:
    """The result of a model of the history; each is read once."""
    if key not in told:
        try:
            sheet = bundle_sheet(store.artifact(key))
        except InputError as error:
            told[key] = f"cannot be read: {error}"
        else:
            told[key] = sheet.result.headline if sheet.result else f"no result: {sheet.result_absent}"
    return told[key]


def _entry(
    store: "Store", kind: str, name: str, aliases: list[Alias], called: Called, evaluations: Evaluations
) -> Entry:
    shown = next((one for one in aliases if one.alias == _LATEST), aliases[0])
    entry = Entry(kind=kind, name=name, aliases=aliases, shown=shown.alias)
    try:
        artifact = store.artifact(shown.key)
        if artifact.kind != kind:
            raise InputError(f"it names an artifact of kind {artifact.kind!r}: promote another")
        return entry.model_copy(update={kind: sheet_of(store, artifact, called, evaluations)})
    except InputError as error:
        return entry.model_copy(update={"problem": str(error)})
