"""Files from outside -> one row each: a readable video or still image with its facts, or the reason why not.

In two rounds of parts. `probe_part` reads one file, so an unchanged file is never read again; `group_part` puts the rows of
neighbouring video ids together (`parts.prefixes`), where equal bytes meet: one keeps the status ``ok``, the others
become ``duplicate``. A video's id is the sha256 of its bytes: the one that the bucket keeps, or the one found while they are
read; where both are known they must agree. Sidecars are checked and copied beside the rows, so that later stages depend on
their bytes, not on a path.

Reason codes: not_a_video, truncated, empty_file, no_video_stream, no_decoder:<codec>, decode_error,
too_short, too_large, dangling_link, not_a_regular_file, not_found, unreadable, unsafe_name, changed_while_read,
checksum_mismatch, bad_sidecar, bad_row, contradiction, refused_place, unreachable, duplicate_bytes, purged, poisoned; of
archives damaged_archive, encrypted, unsupported_compression, unsafe_member, repeated_name, zip_bomb; of still images
not_an_image, animated, too_small, images_off.
"""

import dataclasses
import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from wfm.config import Config, added, how
from wfm.curation.poison import probe_seconds, watch
from wfm.curation.source.extensions import IMAGES
from wfm.curation.source.listing_rows import RIGHTS
from wfm.curation.source.source_files import Listing, SourceFile
from wfm.curation.step import Skip, reason_code
from wfm.data.archive import Archive, split_member
from wfm.data.archive_index import Limits
from wfm.data.local import DamagedSource
from wfm.data.places import RefusedPlace, is_web
from wfm.data.remote import NotThere, problem_of_error
from wfm.data.signatures import HEAD_BYTES, is_video
from wfm.data.source import fetch_source, problem_of_source, stated_digest
from wfm.errors import InputError, TryAgain
from wfm.parts.part import PartLike
from wfm.parts.prefixes import part_names
from wfm.records import Rights, Video

if TYPE_CHECKING:
    from wfm.artifacts import PartEntry, Store

_TRIES = 3
_TRY_PAUSE_SECONDS = 0.2
_LARGEST_SIDECAR = 2**28  # bytes; it is read whole


class IngestConfig(Config):
    """What ``--videos`` names and what is asked of a file."""

    videos: str = how("")
    """Folder (recursive), file, archive (.zip, .tar, .tar.gz), glob, list (.txt, .jsonl, .parquet), or a URL such as
    s3://bucket/prefix. Empty: the simulated videos. What is seen there (names, sizes, times of change) enters the key, not
    this address. Web addresses outside the open internet are refused unless WFM_SOURCE_ADDRESSES opens their networks."""
    limit: int = how(0, ge=0)
    """Take only the first so many files, in order of source; 0: all. What is taken enters the key, as if there were no more."""
    images: bool = added(True)
    "Whether still images (jpg, png, webp) are taken too; false: files with such endings are left aside, others refused."
    minimum_frames: int = pydantic.Field(4, ge=1)
    "Fewest frames a video must hold."
    maximum_pixels: int = pydantic.Field(2**26, ge=1, lt=2**63)
    "Most pixels a frame may have: a header that claims more is not worth the memory."
    maximum_member_bytes: int = pydantic.Field(2**36, ge=1, lt=2**63)
    "Most bytes that one member of an archive may declare."
    maximum_expansion: float = pydantic.Field(100.0, ge=1)
    "Most bytes that may come out of an archive for each one that is stored; video hardly packs, so more is taken for a bomb."
    part_prefix_length: int = pydantic.Field(2, ge=1, le=64)
    "Hex digits of the video id that name a part: 2 gives up to 256 parts, or more as `part_bytes` asks."
    part_bytes: int = pydantic.Field(2**31, ge=1, lt=2**63)
    "A part that holds more source video than this is halved by the next bit of the id, and so on [bytes]."

    @property
    def limits(self) -> Limits:
        """What an archive may claim."""
        return Limits(self.maximum_member_bytes, self.maximum_expansion)


@dataclasses.dataclass(frozen=True)
class Sidecars:
    """Checked sidecars of a video: local files, or None."""

    actions: Path | None = None
    attributes: Path | None = None
    session_id: str = ""
    view: str = ""


def purged_from(sources: set[str], artifacts: set[str], store: "Store") -> list[str]:
    """Ids of the purged videos that came from here: what is made without them has a key of its own, so that nothing learned
    from them is taken up again. Purges of other corpora change nothing here."""
    from wfm.artifacts.purge import purges

    return [
        record.video_id
        for record in purges(store)
        if not sources.isdisjoint(record.sources) or not artifacts.isdisjoint(record.artifacts)
    ]


def probe_inputs(listing: Listing) -> dict[str, dict[str, Any]]:
    """Part name -> what its key depends on, one part a file. What is said of rights changes nothing in a file."""
    return {
        f"file-{hashlib.sha256(file.source.encode()).hexdigest()[:24]}": {
            "file": {name: value for name, value in file.to_json().items() if name not in RIGHTS}
        }
        for file in listing.files
    }


def group_plan(
    probes: Iterable["PartEntry"], store: "Store", listing: Listing, config: IngestConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(inputs, arguments) of ``map_parts``: one part for each group of neighbouring ids.

    A file whose bytes could not be read stands where the hash of its source would.
    """
    rights = {file.source: stated for file in listing.files if (stated := rights_of(file))}
    sizes: dict[str, int] = {}
    placed: list[tuple[str, str, PartEntry]] = []
    for entry in probes:
        facts = store.part(entry.key).manifest.extra
        place = facts["video_id"] or hashlib.sha256(facts["source"].encode()).hexdigest()
        sizes[place] = max(sizes.get(place, 0), facts["bytes"])
        placed.append((place, facts["source"], entry))
    names = part_names(sizes, config.part_bytes, config.part_prefix_length)
    members: dict[str, dict[str, str]] = {}
    inputs: dict[str, Any] = {}
    for place, source, entry in placed:
        members.setdefault(names[place], {})[entry.digest] = entry.key
        if source in rights:
            inputs.setdefault(names[place], {}).setdefault("rights", {})[source] = rights[source]
    arguments = {}
    for name, keys in members.items():
        inputs.setdefault(name, {})["probes"] = sorted(keys)
        arguments[name] = {"probes": [keys[digest] for digest in sorted(keys)]}
    return inputs, arguments


def rights_of(file: SourceFile) -> dict[str, str]:
    """What a list states of a file's rights; empty when it says nothing."""
    return {name: value for name in RIGHTS if (value := getattr(file, name))}


def probe_part(part: PartLike) -> dict[str, Any]:
    """Read one file; writes ``probed.parquet`` (one `Video`) and its sidecars. Returns what the manifest keeps of it."""
    import pyarrow.parquet as pq

    file = SourceFile.from_json(part.inputs["file"])
    row, sidecars = examine(file, part.open_store(), part.config)
    if row.status == "ok":
        for path, name in ((sidecars.actions, "actions.parquet"), (sidecars.attributes, "attributes.json")):
            if path is not None:
                shutil.copyfile(path, part.out / name)
    pq.write_table(Video.to_table([row]), part.out / "probed.parquet")
    return {"video_id": row.video_id, "source": row.source, "bytes": row.size_bytes if row.status == "ok" else 0}


def group_part(part: PartLike) -> tuple[dict[str, int], dict[str, int]]:
    """Put the rows of one part together; writes ``videos.parquet``, ``rights.parquet`` (what a list stated),
    ``actions/<video_id>.parquet`` and ``attributes/<video_id>.json``. Returns (counts, skipped by reason)."""
    import pyarrow.parquet as pq

    store = part.open_store()
    rows: list[Video] = []
    probed = {}
    for key in part.arguments["probes"]:
        artifact = store.part(key)
        (row,) = Video.from_table(artifact.table("probed"))
        rows.append(row)
        probed[row.source] = artifact
    rows = mark_duplicates(rows)
    for row in rows:
        if row.status != "ok":
            continue
        for target, name in ((row.actions, "actions.parquet"), (row.attributes, "attributes.json")):
            if target:
                (part.out / target).parent.mkdir(exist_ok=True)
                shutil.copyfile(probed[row.source].fetch(name), part.out / target)
    pq.write_table(Video.to_table(rows), part.out / "videos.parquet")
    stated: Mapping[str, dict[str, str]] = part.inputs.get("rights", {})
    rights = [
        Rights(source=row.source, video_id=row.video_id, **stated[row.source]) for row in rows if row.source in stated
    ]
    pq.write_table(Rights.to_table(rights), part.out / "rights.parquet")
    skipped = Counter(reason_code(row.reason) for row in rows if row.status != "ok")
    ok = sum(row.status == "ok" for row in rows)
    return {"inputs": len(rows), "outputs": ok}, dict(sorted(skipped.items()))


def mark_duplicates(rows: list[Video]) -> list[Video]:
    """Rows in order of name; of readable videos with the same bytes all but one are marked ``duplicate``.

    Kept is the one with sidecars, which a plain copy lacks, then the first by name and source.
    """
    rows = sorted(rows, key=lambda row: (row.name, row.source))
    kept: dict[str, Video] = {}
    for row in sorted(rows, key=lambda row: not (row.actions or row.attributes)):
        if row.status == "ok":
            kept.setdefault(row.video_id, row)
    marked = []
    for row in rows:
        if row.status == "ok" and kept[row.video_id] is not row:
            reason = f"duplicate_bytes: same bytes as {kept[row.video_id].source}"
            row = dataclasses.replace(row, status="duplicate", reason=reason, actions="", attributes="")
        marked.append(row)
    return marked


def examine(file: SourceFile, store: "Store", config: IngestConfig) -> tuple[Video, Sidecars]:
    """The row of one file. What is wrong with the file becomes its reason; what is wrong with a store or a network raises."""
    row = Video(source=file.source, name=file.name, size_bytes=file.size)
    if file.problem:
        return _failed(row, file.problem), Sidecars()
    try:
        refused = _purged(store, stated_digest(store, file.source))
        if refused:  # not even fetched
            return _failed(row, refused), Sidecars()
        path, video_id = _read(file, store)
    except DamagedSource as error:
        return _failed(row, str(error)), Sidecars()
    except (NotThere, RefusedPlace) as error:  # it was when the bucket was listed; a redirect since
        return _failed(row, problem_of_error(file.source, error)), Sidecars()
    except (TryAgain, InputError) as error:
        if not is_web(file.source):
            raise
        return _failed(row, problem_of_error(file.source, error)), Sidecars()
    except OSError as error:
        return _failed(row, _open_reason(file, error)), Sidecars()
    refused = _purged(store, video_id)
    if refused:
        return _failed(row, refused), Sidecars()
    row = dataclasses.replace(row, video_id=video_id, session_id=video_id)
    reason = _changed(file, path, store)
    if reason:
        return _failed(row, reason), Sidecars()
    try:
        with watch(store, "probe", video_id, path, file.source, seconds=probe_seconds(path)):
            row, reason = _with_facts(row, path, config)
    except Skip as skip:
        reason = skip.reason
    if reason:
        return _failed(row, reason), Sidecars()
    if row.is_image and file.actions:  # beside a video of the same name, perhaps
        file = dataclasses.replace(file, actions="")
        row = dataclasses.replace(row, notes=_joined(row.notes, "actions beside it are not taken: it has no time"))
    try:
        sidecars = read_sidecars(file, store)
    except (InputError, OSError) as error:
        return _failed(row, f"bad_sidecar: {error}"), Sidecars()
    except TryAgain as error:
        if not is_web(file.source):
            raise
        return _failed(row, f"bad_sidecar: {error}"), Sidecars()
    row = dataclasses.replace(
        row,
        session_id=sidecars.session_id or video_id,
        view=sidecars.view,
        actions=f"actions/{video_id}.parquet" if sidecars.actions else "",
        attributes=f"attributes/{video_id}.json" if sidecars.attributes else "",
    )
    return row, sidecars


def read_sidecars(file: SourceFile, store: "Store") -> Sidecars:
    """Fetch and check a video's sidecars. Raises `DataError` or OSError naming the one that is wrong."""
    from wfm.curation.source.sidecars import check_actions, check_attributes

    known = {"session_id": file.session_id, "view": file.view}
    found: dict[str, Path | None] = {"actions": None, "attributes": None}
    for kind, source, check in (
        ("actions", file.actions, check_actions),
        ("attributes", file.attributes, check_attributes),
    ):
        if source:
            path, _ = fetch_source(store, source, want_hash=False)
            if path.stat().st_size > _LARGEST_SIDECAR:
                raise InputError(f"{source!r} is larger than {_LARGEST_SIDECAR:,} bytes, more than a sidecar may be")
            found[kind] = path
            for name, value in check(path).items():
                known[name] = known[name] or value
    return Sidecars(**found, **known)  # type: ignore[arg-type]


def _read(file: SourceFile, store: "Store") -> tuple[Path, str]:
    """(local file, sha256); a disk that stammers is asked three times."""
    for tries_left in range(_TRIES - 1, -1, -1):
        try:
            return fetch_source(store, file.source)
        except OSError:
            if not tries_left or problem_of_source(file.source):
                raise
            time.sleep(_TRY_PAUSE_SECONDS)
    raise AssertionError("unreachable")


def _with_facts(row: Video, path: Path, config: IngestConfig) -> tuple[Video, str]:
    """(the row with what the file holds, reason or "")."""
    from wfm.data.decode import VideoError
    from wfm.data.images import format_of
    from wfm.data.probe import probe

    if format_of(path):
        return _with_image_facts(row, path, config)
    if row.name.lower().endswith(IMAGES) and (head := _head(path)) and not is_video(head):
        return row, f"not_an_image: its first bytes are those of no {', '.join(IMAGES)}, and of no video"
    try:
        facts = probe(path, maximum_pixels=config.maximum_pixels)
    except VideoError as error:
        return row, error.reason
    row = dataclasses.replace(
        row,
        size_bytes=path.stat().st_size,
        duration_seconds=facts.duration_seconds,
        width=facts.width,
        height=facts.height,
        rotation_degrees=facts.rotation_degrees,
        fps=facts.fps,
        num_frames=facts.num_frames,
        codec=facts.codec,
        pixel_format=facts.pixel_format,
        has_audio=facts.has_audio,
        variable_frame_rate=facts.variable_frame_rate,
        notes="; ".join(facts.notes),
    )
    if facts.num_frames < config.minimum_frames:
        return row, f"too_short: {facts.num_frames} frames, at least {config.minimum_frames} are asked"
    return row, ""


def _with_image_facts(row: Video, path: Path, config: IngestConfig) -> tuple[Video, str]:
    """The same of a still image, every pixel of which is decoded."""
    from wfm.data.decode import VideoError
    from wfm.data.images import decode, facts_of, open_image

    if not config.images:
        return row, "images_off: it is a still image, and ingest_videos.images is false"
    try:
        with open_image(path, maximum_pixels=config.maximum_pixels) as image:
            decode(image)
            facts = facts_of(image)
    except VideoError as error:
        return row, error.reason
    notes = f"written anew: {', '.join(facts.changes)}" if facts.changes else ""
    row = dataclasses.replace(
        row,
        size_bytes=path.stat().st_size,
        width=facts.width,
        height=facts.height,
        rotation_degrees=facts.turn.degrees,
        num_frames=1,
        codec={"jpg": "mjpeg"}.get(facts.format, facts.format),
        pixel_format=facts.pixel_format,
        notes=notes,
    )
    return row, ""


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _purged(store: "Store", video_id: str) -> str:
    """Why the video is refused, or "". Its id is not written down again."""
    from wfm.artifacts.purge import purge_of

    purge = purge_of(store, video_id) if video_id else None
    return f"purged: on {purge.created_at}: {purge.reason}" if purge is not None else ""


def _changed(file: SourceFile, path: Path, store: "Store") -> str:
    member = split_member(file.source)
    if member is not None:
        found = Archive(store, member[0]).index().by_name.get(member[1])
        now = (found.size, found.stamp) if found is not None else None
    elif "://" in file.source:
        return ""
    else:
        info = path.stat()
        now = (info.st_size, f"mtime_ns:{info.st_mtime_ns}")
    if now == (file.size, file.stamp):
        return ""
    return "changed_while_read: size or time of change moved between listing and reading; ingest again when it is whole"


def _open_reason(file: SourceFile, error: OSError) -> str:
    return problem_of_source(file.source) or f"unreadable: {error.strerror or error}"


def _failed(row: Video, reason: str) -> Video:
    return dataclasses.replace(row, status="failed", reason=reason)
