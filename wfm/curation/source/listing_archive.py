"""What lies in archives that ``--videos`` names: each video in one is a file of its own, ``films.zip!/folder/a.mp4``.

Sidecars are found in the archive by the rules of folders; ``0001.json`` beside ``0001.mp4``, as WebDataset has it, is taken for
attributes too. Of a damaged archive what could be read is taken, and the archive itself becomes a row with the reason.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from wfm.curation.source.extensions import is_wanted
from wfm.curation.source.listing_rows import shown_name, unsafe_name
from wfm.curation.source.source_files import Listing, SourceFile, find_sidecars, is_sidecar_name
from wfm.data.archive import Archive, is_archive_name, split_member
from wfm.data.archive_index import Index, Limits, Member
from wfm.data.local import DamagedSource
from wfm.data.remote import problem_of_error
from wfm.data.signatures import HEAD_BYTES
from wfm.data.source import problem_of_source
from wfm.errors import WfmError

if TYPE_CHECKING:
    from wfm.artifacts import Store

_AT_HAND = 8


def expand(found: Listing, store: "Store | None", limits: Limits) -> Listing:
    """The listing with the videos of its archives in their place; an archive that is refused is a row with the reason. Raises
    `TryAgain` where a bucket does not answer."""
    aside = Counter(found.aside)
    files: list[SourceFile] = []
    indexes: dict[str, Index] = {}  # of the archives at hand: a list may name many members of one
    for file in found.files:
        named = split_member(file.source)
        if file.problem or (named is None and not is_archive_name(file.source)):
            files.append(file)
            continue
        address, name = named or (file.source, "")
        try:
            if address not in indexes:
                while len(indexes) >= _AT_HAND:
                    indexes.pop(next(iter(indexes)))
                indexes[address] = Archive(store, address).index(limits.expansion)
            index = indexes[address]
        except (OSError, WfmError) as error:
            if isinstance(error, WfmError):
                problem = problem_of_error(address, error)
            else:
                problem = problem_of_source(file.source) or f"unreadable: {error.strerror or error}"
            files.append(dataclasses.replace(file, problem=problem))
            continue
        if not name:
            files += _videos(file, Archive(store, address), index, limits, aside)
        elif name in index.by_name:
            files.append(_video(file, address, index.by_name[name], index, limits))
        else:
            problem = index.problem or "not_found: the archive has no such member"
            files.append(dataclasses.replace(file, problem=problem))
    return Listing(tuple(files), {kind: count for kind, count in aside.items() if count})


def _videos(
    file: SourceFile, archive: Archive, index: Index, limits: Limits, aside: Counter[str]
) -> Iterator[SourceFile]:
    address = archive.address
    others = []
    used: set[str] = set()
    for member in index.members:
        folder, _, name = member.name.rpartition("/")
        if any(part.startswith(".") and part not in (".", "..") for part in member.name.split("/")):
            aside["hidden"] += 1
        elif not is_sidecar_name(folder, name) and is_wanted(
            name, functools.partial(_head, archive, member), any_ending=False
        ):
            video = _video(file, address, member, index, limits)
            used |= {video.actions, video.attributes}
            yield video
        elif not is_sidecar_name(folder, name):
            others.append(f"{address}!/{member.name}")
    aside["other_ending"] += sum(source not in used for source in others)
    if index.problem:
        yield dataclasses.replace(file, problem=index.problem)


def _head(archive: Archive, member: Member) -> bytes:
    """The first bytes; of a member that cannot be unpacked a byte that is neither video nor text, so that it gets a row."""
    if member.problem:
        return b"\0"
    try:
        return next(archive.unpack(member, HEAD_BYTES), b"")
    except (DamagedSource, OSError):
        return b"\0"


def _video(file: SourceFile, address: str, member: Member, index: Index, limits: Limits) -> SourceFile:
    """One member; ``file`` holds what a list says of it, or of its archive."""
    source, name = shown_name(f"{address}!/{member.name}"), shown_name(member.name.rpartition("/")[2])
    absolute = "unsafe_name: the member's name begins with /" if member.name.startswith("/") else ""
    problem = unsafe_name(member.name) or absolute or member.problem or member.over(limits)
    known: dict[str, Any] = {kind: getattr(file, kind) for kind in ("actions", "attributes")}
    stamp = file.sidecar_stamp
    if not problem and not any(known.values()):
        beside, stamp = find_sidecars(
            member.name, index.by_name.__contains__, lambda path: index.by_name[path].stamp, any_json=True
        )
        known = {kind: f"{address}!/{path}" for kind, path in beside.items()}
        for path in beside.values():
            wrong = index.by_name[path].problem or index.by_name[path].over(limits)
            if wrong:
                problem = f"bad_sidecar: {path}: {wrong}"
    if problem:
        known, stamp = {}, ""
    return dataclasses.replace(
        file,
        source=source,
        name=name,
        size=member.size,
        stamp=member.stamp,
        problem=problem,
        sidecar_stamp=stamp,
        **known,
    )
