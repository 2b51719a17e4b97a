"""Purge: take everything of one source video out of a store, and remember that it must not come back.

    purge = find_video(store, video_id)      # looks, changes nothing
    carry_out(store, purge, "asked by its author")

What happens to what:

- Parts and artifacts that hold the video (its bytes, a file or row named by its id or by that of one of its clips) are deleted,
  in every generation: probes, clips, scores, captions, embeddings, selections, and the shards a clip of it lies in. A shard is
  never edited in place, since its key and hash would then lie: the next run of the same command writes it anew without the
  video, and makes only those parts again; the parts of all other videos stay and are shared.
- Artifacts made from these without rows of their own (latents, generated videos, reports, pages) are deleted too: what is
  in them cannot be told apart by looking.
- What has learned from it (tokenizers, world models, decoders, published models) cannot be taken apart. It is listed, and
  stays unless ``models`` is given; the next run does not take it up again, because ingest's key then has the purge in it.
- ``purged/<video id>.json`` remembers the video by the hash of its bytes: ingest refuses it under any name, with the reason
  ``purged``. It is written first, so that a purge that was killed goes on when it is called again.

- Downloads of it, cached files, checkpoints of interrupted stages, search indexes and what caption models said of it go too
  (`purge_copies`). Caches lie on the machine that made them: call the purge again on every machine that has one.

The source file itself is not ours and stays where it is. A simulated video would be rendered again, and is refused likewise.
Copies that people pulled, names of files in logs, and re-encoded copies (other bytes, another id) are out of reach.
"""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wfm.artifacts import generations, lease, schema, tables
from wfm.artifacts.address import KEY_PATTERN, utc_now
from wfm.artifacts.collect import delete_commit, unfinished
from wfm.artifacts.gc_report import Dead
from wfm.artifacts.generations import AREAS
from wfm.artifacts.invalidation import bury
from wfm.artifacts.listing import FileEntry
from wfm.artifacts.purge_copies import clear_cached, clear_scratch, delete_copies, delete_said, find_copies
from wfm.artifacts.schema import Key, Short
from wfm.errors import DataError, InputError, TryAgain

if TYPE_CHECKING:
    from wfm.artifacts.artifact import Artifact
    from wfm.artifacts.store import Store

SCHEMA_VERSION = 1
LEARNED_KINDS = ("tokenizer", "world_model", "decoder", "model")
"""Kinds of artifact that hold weights."""

_FOLDER = "purged"
_PATIENCE = 60.0  # seconds: a lease of another machine that is silent for its time meanwhile is over
_ID = re.compile(r"[0-9a-f]{64}")
Commit = tuple[str, str, int]
"""(area, key, generation)."""


@dataclass(frozen=True)
class Held:
    """One commit that holds the video or was made from it."""

    area: str
    key: str
    generation: int
    attempt: str
    kind: str
    stage: str
    bytes: int
    """Of its own files, without parts."""
    why: str


@dataclass
class Purge:
    """What a store holds of one video."""

    video_id: str
    sources: list[str] = field(default_factory=list)
    """Where the video was read from."""
    held: list[Held] = field(default_factory=list)
    """What is deleted, artifacts before parts."""
    learned: list[Held] = field(default_factory=list)
    """What has weights learned from it."""
    names: list[str] = field(default_factory=list)
    """Names that point at one of these."""
    copies: list[Path] = field(default_factory=list)
    """Downloads of it, and of files named by it, in this machine's cache."""
    notes: list[str] = field(default_factory=list)
    """What could not be read, and so not be judged."""
    ids: set[str] = field(default_factory=set)
    """Its id, and those of its clips."""
    digests: set[str] = field(default_factory=set)
    """sha256 of it and of the files named by it."""

    def __post_init__(self) -> None:
        self.ids.add(self.video_id)
        self.digests.add(self.video_id)

    @property
    def clips(self) -> int:
        """How many clips of it there are or were."""
        return len(self.ids) - 1

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.held)


@dataclass(frozen=True)
class PurgeRecord:
    """What the store remembers of a purge."""

    video_id: Key
    reason: str
    created_at: Short
    sources: list[str]
    artifacts: list[Key]
    """Keys of the artifacts that held it."""
    models_kept: list[Key]


def check_video_id(video_id: str) -> str:
    """Returns it in small letters. Raises InputError for anything but the 64 hex digits of a sha256."""
    small = video_id.strip().lower()
    if not KEY_PATTERN.fullmatch(small):
        raise InputError(
            f"video {video_id!r} is not a video id: give the sha256 of its bytes, 64 hex digits (`sha256sum FILE`, or the "
            "column video_id of a dataset's tables)"
        )
    return small


def purge_of(store: "Store", video_id: str) -> PurgeRecord | None:
    """The record of a purge, or None when the video was not purged."""
    path = f"{_FOLDER}/{video_id}.json"
    try:
        data = store.objects.read(path)
    except FileNotFoundError:
        return None
    try:
        return schema.read(PurgeRecord, data, f"{store.url}/{path}", SCHEMA_VERSION, video_id=video_id)
    except DataError as error:  # fails closed: a video that was purged must not come back
        raise DataError(f"{error}; delete this file and purge video {video_id} again") from None


def purges(store: "Store") -> Iterator[PurgeRecord]:
    """Every purge that the store remembers, in order of video id."""
    for name in store.objects.names(_FOLDER):
        video_id = name.removesuffix(".json")
        record = purge_of(store, video_id) if _ID.fullmatch(video_id) else None
        if record is not None:
            yield record


def find_video(store: "Store", video_id: str) -> Purge:
    """Look through every table, file name and file hash of the store for a video. Changes nothing.

    Reads the tables of every commit, each once or twice, and what was downloaded to this machine. Raises InputError for an id
    of another form.
    """
    purge = Purge(check_video_id(video_id))
    before = purge_of(store, purge.video_id)
    sources = set(before.sources if before else ())
    for _, artifact in _commits(store, purge):
        _gather(artifact, purge, sources)
    purge.sources = sorted(sources)
    reasons: dict[Commit, str] = {}
    opened: dict[Commit, Artifact] = {}
    for commit, artifact in _commits(store, purge):
        opened[commit] = artifact
        reason = _reason(artifact, purge)
        if reason:
            reasons[commit] = reason
    holding = _holding(opened, reasons, purge)
    kept = set(before.models_kept) if before else set()
    holding |= {
        commit: "kept by an earlier purge" for commit in opened if commit[0] == "artifacts" and commit[1] in kept
    }
    derived = _derived(opened, {key for area, key, _ in holding if area == "artifacts"})
    _sort_in(store, purge, opened, holding, derived)
    purge.copies = find_copies(purge.digests, archives=any("!/" in source for source in sources))
    return purge


def carry_out(store: "Store", purge: Purge, reason: str, *, models: bool = False) -> PurgeRecord:
    """Remember the purge, then delete what it found (``models``: the learned too). Going on after a kill is calling it again.

    Raises TryAgain while a stage is at work on the store: it may be reading the video at this moment.
    """
    working = lease.held(store.objects, patience=_PATIENCE)
    if working:
        raise TryAgain(f"{len(working)} stages are at work on {store.url}: purge when they have ended")
    going = purge.held + (purge.learned if models else [])
    known = purge_of(store, purge.video_id)
    keys = {each.key for each in going if each.area == "artifacts"}
    record = PurgeRecord(
        video_id=purge.video_id,
        reason=reason,
        created_at=known.created_at if known else utc_now(),
        sources=sorted({*purge.sources, *(known.sources if known else ())}),
        artifacts=sorted({*keys, *(known.artifacts if known else ())}),
        models_kept=[] if models else [each.key for each in purge.learned],
    )
    data = schema.encode({"schema_version": SCHEMA_VERSION, **asdict(record)})
    store.objects.replace(f"{_FOLDER}/{purge.video_id}.json", data)
    delete_copies(purge.copies)  # first: what tells them from others goes with the commits
    delete_said(store, purge.ids, purge.digests)
    for each in going:  # all marked before one is deleted: nobody builds on what is about to go
        bury(store.objects, each.area, each.key, each.generation, f"purged: {reason}", "purge")
    for each in going:
        delete_commit(store, Dead(each.area, each.key, each.generation, each.attempt, each.bytes, each.why))
    clear_scratch(store, set(record.artifacts))
    clear_cached(store)
    _delete_unfinished(store)
    return record


def _commits(store: "Store", purge: Purge) -> Iterator[tuple[Commit, "Artifact"]]:
    """Every commit of the store, invalidated ones too: their bytes are still there until a collection."""
    for area in AREAS:
        for key in generations.keys(store.objects, area):
            for generation in sorted(generations.read_state(store.objects, f"{area}/{key}").manifests):
                try:
                    yield (area, key, generation), store.open_generation(area, key, generation)
                except (InputError, DataError) as error:
                    _note(purge, f"{area}/{key[:12]}: {error}")


def _note(purge: Purge, words: str) -> None:
    if words not in purge.notes:
        purge.notes.append(words)


def _own_files(artifact: "Artifact") -> Iterator[FileEntry]:
    """Its files without those of its parts, which are commits of their own."""
    return itertools.takewhile(lambda entry: not entry.path.startswith("parts/"), artifact.files())


def _own_tables(artifact: "Artifact", purge: Purge) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """(path, text columns) of each table."""
    import pyarrow as pa

    try:
        for entry in _own_files(artifact):
            if entry.path.endswith(".parquet"):
                table = tables.read(artifact.fetch(entry.path), None, entry.path)
                texts = [column.name for column in table.schema if pa.types.is_string(column.type)]
                yield entry.path, {name: table.column(name).to_pylist() for name in texts}
    except DataError as error:
        _note(purge, f"{artifact!r}: {error}")


def _gather(artifact: "Artifact", purge: Purge, sources: set[str]) -> None:
    """Ids of the video's clips and the places it came from, from the rows that name the video."""
    for _, columns in _own_tables(artifact, purge):
        for row, video_id in enumerate(columns.get("video_id", ())):
            if video_id == purge.video_id:
                purge.ids |= {columns[name][row] for name in ("clip_id",) if name in columns and columns[name][row]}
                sources |= {columns[name][row] for name in ("source",) if name in columns and columns[name][row]}


def _reason(artifact: "Artifact", purge: Purge) -> str:
    """Why a commit counts as holding the video, or ""."""
    ids = purge.ids
    try:
        named = [
            entry
            for entry in _own_files(artifact)
            if entry.sha256 == purge.video_id or not ids.isdisjoint(_ID.findall(entry.path))
        ]
        if named:
            purge.digests |= {entry.sha256 for entry in named}
            return f"holds {named[0].path}"
    except DataError as error:
        _note(purge, f"{artifact!r}: {error}")
    for path, columns in _own_tables(artifact, purge):
        count = sum(any(value in ids for value in row) for row in zip(*columns.values(), strict=True))
        if count:
            return f"{count} rows of {path}"
    if not ids.isdisjoint(_ID.findall(json.dumps(artifact.manifest.extra))):
        return "its manifest names it"
    return ""


def _parts(artifact: "Artifact", purge: Purge) -> list[Commit]:
    try:
        return [("parts", entry.key, entry.generation) for entry in artifact.iterate_parts()]
    except DataError as error:
        _note(purge, f"{artifact!r}: {error}")
        return []


def _holding(opened: dict[Commit, "Artifact"], reasons: dict[Commit, str], purge: Purge) -> dict[Commit, str]:
    """The commits found, and the artifacts that list one of the parts found."""
    holding = dict(reasons)
    for commit, artifact in opened.items():
        if commit[0] == "artifacts" and commit not in holding:
            found = [part for part in _parts(artifact, purge) if part in reasons]
            if found:
                holding[commit] = f"{len(found)} of its {artifact.manifest.parts.count} parts"
    return holding


def _derived(opened: dict[Commit, "Artifact"], keys: set[str]) -> dict[Commit, str]:
    """Artifacts whose inputs, at any distance, are among the keys."""
    derived: dict[Commit, str] = {}
    reached = set(keys)
    grown = True
    while grown:
        grown = False
        for commit, artifact in opened.items():
            parents = sorted(reached.intersection(artifact.manifest.inputs.values()))
            if commit[0] == "artifacts" and commit not in derived and parents:
                derived[commit] = f"made from {parents[0][:12]}"
                reached.add(commit[1])
                grown = True
    return derived


def _sort_in(
    store: "Store",
    purge: Purge,
    opened: dict[Commit, "Artifact"],
    holding: dict[Commit, str],
    derived: dict[Commit, str],
) -> None:
    """Fill ``held``, ``learned`` and ``names``."""
    touched = {**derived, **holding}
    kept_parts: set[Commit] = set()
    own_parts: dict[Commit, str] = {}
    for commit, artifact in opened.items():
        if commit[0] != "artifacts":
            continue
        parts = _parts(artifact, purge)
        if commit in touched and commit not in holding and artifact.kind not in LEARNED_KINDS:
            own_parts.update((part, f"part of {artifact.kind} {touched[commit]}") for part in parts)
        else:  # parts without the video, of an artifact that holds it elsewhere or not at all: they are shared and stay
            kept_parts.update(parts)
    touched.update({part: why for part, why in own_parts.items() if part not in kept_parts and part in opened})
    for (area, key, generation), why in sorted(touched.items()):  # "artifacts" before "parts"
        manifest = opened[area, key, generation].manifest
        one = Held(area, key, generation, manifest.attempt, manifest.kind, manifest.stage, manifest.files.bytes, why)
        (purge.learned if manifest.kind in LEARNED_KINDS else purge.held).append(one)
    keys = {each.key for each in purge.held + purge.learned}
    purge.names = [promotion.reference for promotion in store.names.list() if promotion.key in keys]


def _delete_unfinished(store: "Store") -> None:
    """Attempts that were never committed may hold anything; nobody is at work, so nobody needs them."""
    for area in AREAS:
        for key in generations.keys(store.objects, area):
            for folder, _ in unfinished(store, area, key):  # whatever their ids say: clocks may be ahead of this one
                store.objects.delete_tree(folder)
                store.clear_cached(folder)
