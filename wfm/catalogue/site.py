"""`write_catalogue(store, out)`: models and data sets of a store as plain HTML and JSON that any bucket can serve.

    index.html                      every name, newest result first in words
    catalogue.json                  the same for programs, and which files this catalogue consists of
    KIND/NAME/index.html            a page each: result, history, data, lineage, limits
    KIND/NAME/card.md, card.json    its card for people and for programs

Links are relative and name files, no script is needed, every page holds its own style. The same store gives the same bytes; a
file that would be the same is left alone, each is replaced whole, the list of files last.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from wfm.artifacts import schema
from wfm.artifacts.address import path_fault
from wfm.artifacts.atomic import replace_on_disk
from wfm.catalogue.beside import card_of
from wfm.catalogue.dataset_card import funnel
from wfm.catalogue.entries import Entry, entries
from wfm.catalogue.sheet import DatasetSheet, Step
from wfm.errors import DataError, InputError
from wfm.evaluation.page.charts import role_class
from wfm.evaluation.page.data import LineageNode
from wfm.evaluation.page.lineage import lineage_svg
from wfm.evaluation.page.write import style, subsets, templates

if TYPE_CHECKING:
    from wfm.artifacts import Store

HERE = Path(__file__).parent
LIST = "catalogue.json"
SCHEMA_VERSION = 1


class _Listed(BaseModel):
    """What is read of the list that an earlier catalogue left."""

    model_config = ConfigDict(extra="ignore")

    schema_version: int
    files: list[str]


@dataclass
class Written:
    """What became of a catalogue's files."""

    entries: int = 0
    changed: list[str] = field(default_factory=list)
    unchanged: int = 0
    removed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def write_catalogue(store: "Store", out: Path) -> Written:
    """Write it, over an earlier one or into a folder that is empty or not there. Pages of names that are gone are removed.

    What cannot be read is shown as such, and stands in `problems`. Raises InputError for a folder that holds anything else.
    """
    out = out.absolute()
    old = _earlier(out)
    found, problems = entries(store)
    pages = _pages(found, problems)
    listed = {"schema_version": SCHEMA_VERSION, "entries": [_plain(one) for one in found], "problems": problems}
    listed["files"] = sorted([*pages, LIST])
    pages[LIST] = json.dumps(listed, indent=1, sort_keys=True, ensure_ascii=True) + "\n"
    written = Written(
        len(found), problems=[*problems, *(f"{one.folder}: {one.problem}" for one in found if one.problem)]
    )
    _require_inside(out, [*pages, *old])
    for path in [*sorted(set(pages) - {LIST}), LIST]:
        data = pages[path].encode("utf-8", "replace")
        target = out / path
        if target.is_file() and target.read_bytes() == data:
            written.unchanged += 1
        else:
            replace_on_disk(target, data, fsync=False)
            written.changed.append(path)
    for path in sorted(set(old) - set(pages)):
        (out / path).unlink(missing_ok=True)
        _remove_empty((out / path).parent, out)
        written.removed.append(path)
    return written


def _earlier(out: Path) -> list[str]:
    """Files of the catalogue that is there already."""
    path = out / LIST
    if not path.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(
                f"{out} holds something else (no {LIST} of ours): give a new folder, or an earlier catalogue"
            )
        return []
    try:
        listed = _Listed.model_validate(schema.parse(path.read_bytes(), str(path)))
    except (ValidationError, DataError) as error:
        raise InputError(
            f"{path} is not the list of a catalogue ({error}): give a new folder, or move it away"
        ) from None
    if listed.schema_version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema_version {listed.schema_version} is newer than {SCHEMA_VERSION}: use a newer wfm"
        )
    if wrong := [name for name in listed.files if path_fault(name)]:
        raise InputError(f"{path} lists {wrong[0]!r}, which is no path below it: give a new folder, or move it away")
    return listed.files


def _require_inside(out: Path, paths: list[str]) -> None:
    root = out.resolve()
    for path in paths:
        if not (out / path).parent.resolve().is_relative_to(root):
            raise InputError(f"{out / path} lies outside {out} (a folder on the way is a link): give another folder")


def _remove_empty(folder: Path, out: Path) -> None:
    while folder != out and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _plain(entry: Entry) -> dict[str, Any]:
    """An entry of the list: names and figures; what is longer stands in its own `card.json`."""
    sheet = entry.sheet
    return {
        **entry.model_dump(mode="json", include={"kind", "name", "aliases", "shown", "problem"}),
        "page": f"{entry.folder}/index.html",
        "card": f"{entry.folder}/card.json" if sheet else "",
        "key": sheet.key if sheet else "",
        "created_at": sheet.created_at if sheet else "",
        "size_bytes": sheet.size_bytes if sheet else 0,
    }


def _pages(found: list[Entry], problems: list[str]) -> dict[str, str]:
    environment = templates(HERE)
    environment.globals |= {"role_class": role_class}
    environment.filters["moment"] = _moment
    where = {alias.key: entry for entry in reversed(found) for alias in entry.aliases if entry.shown == alias.alias}
    pages = {
        "index.html": environment.get_template("index.html.j2").render(
            title="Models and data sets",
            up="",
            style=style(),
            problems=problems,
            models=[one for one in found if one.kind == "model"],
            datasets=[one for one in found if one.kind == "dataset"],
        )
    }
    for entry in found:
        sheet = entry.sheet
        metrics = entry.model.metrics if entry.model else None
        pages[f"{entry.folder}/index.html"] = environment.get_template("entry.html.j2").render(
            title=entry.folder,
            up="../../",
            style=style(),
            entry=entry,
            sheet=sheet,
            subsets=_in_order(subsets([metrics])) if metrics else [],
            funnel=funnel(sheet) if isinstance(sheet, DatasetSheet) else [],
            lineage=lineage_svg(_nodes(sheet.lineage)) if sheet else "",
            where=where,
        )
        if sheet is not None:
            pages[f"{entry.folder}/card.md"] = card_of(sheet)
            pages[f"{entry.folder}/card.json"] = sheet.model_dump_json(indent=1) + "\n"
    return pages


def _moment(written: str) -> str:
    """``2026-11-30T03:44:01.986Z`` to the minute."""
    return f"{written[:16].replace('T', ' ')} UTC" if written else ""


def _in_order(shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The subset that a result is told by first."""
    return sorted(shown, key=lambda subset: subset["name"] != "fixed_rate")


def _nodes(lineage: list[Step]) -> list[LineageNode]:
    return [
        LineageNode(key=step.key, name=step.stage or "?", kind=step.kind, parents=list(step.inputs.values()))
        for step in reversed(lineage)
    ]
