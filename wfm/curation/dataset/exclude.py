"""Leave clips out of a finished data set: a new exclude list, and not one shard written again.

A pulled folder gets its ``.nv-meta/split.yaml`` replaced. An artifact never changes: a new one is committed that shares every
part of the old and has the longer list, so what was trained on the old one keeps its meaning. Both are read by Energon and by
our own loader (`wfm.data.exclusions`). The clips stay in the tables, and in the shards: whoever must delete bytes purges.
"""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from wfm.artifacts.atomic import replace_on_disk
from wfm.curation.dataset.dataset_readme import with_excluded
from wfm.data.energon import write_split
from wfm.data.exclusions import FOLDER, SPLIT_FILE, read_split
from wfm.errors import DataError, InputError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

STAGE, VERSION = "exclude_clips", 2
_SHOWN = 5
_BEGINNING = 8
"""Letters of an id that may stand for it, if no other begins so: `wfm search` shows the first 12."""


def exclude_in_folder(root: Path, clips: Iterable[str], shards: Iterable[str] = (), *, undo: bool = False) -> list[str]:
    """Add clips and shards to the exclude list of a pulled data set, or take them off it; returns the whole list.

    Raises InputError for an unknown id, DataError for a folder that is no data set; then nothing has changed.
    """
    by_split, before = read_split(root / SPLIT_FILE)
    info, index = (root / FOLDER / name for name in (".info.json", "index.sqlite"))
    after = _changed(before, info, index, clips, shards, undo=undo)
    write_split(root / FOLDER, by_split, after)
    _tell(root, len(after))
    return after


def exclude_in_store(
    store: "Store", dataset: "Artifact", clips: Iterable[str], shards: Iterable[str] = (), *, undo: bool = False
) -> tuple["Artifact", list[str]]:
    """A data set with the same parts and another exclude list, and that list. The same change gives the same artifact.

    Raises InputError for an unknown id or an artifact that is no data set.
    """
    if not dataset.has_file(SPLIT_FILE):
        raise InputError(
            f"{dataset!r} has no {SPLIT_FILE}: name a dataset of write_shards (`wfm artifacts list dataset`)"
        )
    own = [entry.path for entry in dataset.files() if not entry.path.startswith("parts/")]
    by_split, before = read_split(dataset.fetch(SPLIT_FILE))
    info, index = (dataset.fetch(f"{FOLDER}/{name}") for name in (".info.json", "index.sqlite"))
    after = _changed(before, info, index, clips, shards, undo=undo)
    key = hashlib.sha256(json.dumps([STAGE, VERSION, dataset.key, after]).encode()).hexdigest()
    if store.has(key):
        return store.artifact(key), after
    with store.attempt(key) as attempt:
        for path in own:
            target = attempt.path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(dataset.fetch(path), target)
        write_split(attempt.path / FOLDER, by_split, after)
        _tell(attempt.path, len(after))
        made = attempt.commit(
            stage=STAGE,
            kind=dataset.kind,
            counts={**dataset.manifest.counts, "excluded": len(after)},
            skipped=dataset.manifest.skipped,
            code_id=f"v{VERSION}",
            inputs={"dataset": dataset.key},
            parts=dataset.parts,
            extra=dataset.manifest.extra,
        )
    return made, after


def _tell(root: Path, entries: int) -> None:
    """Say it in the card and on the page, where there are these."""
    card, page = root / "card.json", root / "README.md"
    if card.is_file():
        values = {**json.loads(card.read_text()), "excluded": entries}
        replace_on_disk(card, (json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    if page.is_file():
        replace_on_disk(page, with_excluded(page.read_text(), entries).encode())


def _changed(
    before: list[str], info: Path, index: Path, clips: Iterable[str], shards: Iterable[str], *, undo: bool
) -> list[str]:
    """The exclude list after the change, sorted."""
    try:
        order = list(json.loads(info.read_text())["shard_counts"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{info} cannot be read ({error}): pull the data set again") from None
    if not index.is_file():
        raise DataError(f"{index} is missing: pull the data set again")
    entries = _entries(index, clips, shards, order)
    return sorted(set(before) - entries if undo else set(before) | entries)


def _entries(index: Path, clips: Iterable[str], shards: Iterable[str], order: list[str]) -> set[str]:
    """Entries of clip ids and shard paths. What the data set does not hold is refused: a misspelt id must not pass for a
    clip that was taken out."""
    whole = set(shards)
    unknown = sorted(whole - set(order))
    entries = set(whole)
    database = sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        for clip in sorted(set(clips)):
            found = _samples(database, clip)
            if len(found) > 1:
                raise InputError(
                    f"{clip!r} is the beginning of several clip ids, such as {found[0][0]} and {found[1][0]}"
                )
            unknown += [] if found else [clip]
            entries.update(f"{order[number]}/{key}" for key, number in found)
    finally:
        database.close()
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        shown = ", ".join(unknown[:_SHOWN])
        raise InputError(
            f"not in this data set's shards: {shown}{more}; ids are those of the kept rows of clips.parquet"
        )
    return entries


def _samples(database: sqlite3.Connection, clip: str) -> list[tuple[str, int]]:
    """(key, number of its shard) of the sample of this id, or else of the first two whose ids begin so."""
    query = "SELECT sample_key, tar_file_id FROM samples WHERE sample_key"
    exact = database.execute(f"{query} = ?", (clip,)).fetchall()
    if exact or len(clip) < _BEGINNING:
        return exact
    return database.execute(f"{query} >= ? AND sample_key < ? LIMIT 2", (clip, clip + "\U0010ffff")).fetchall()
