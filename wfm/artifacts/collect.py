"""Garbage collection: mark, tombstone, wait, look again, delete.

The tombstone makes `has` false, so that whoever starts during the wait makes the artifact anew instead of building
on one that is about
to go; whoever had looked before has the wait to take a lease or write a name, which the second look finds.

What cannot be read (damaged, or of a newer wfm) is never deleted, nor is what it might need: while a name, a run, a lease or an
artifact that counts cannot be read, only unfinished attempts, scratch, checkpoints of what is committed, and what was
invalidated by hand go. On a full disk these
go first, without a byte written; a tombstone that has no room is written without its words.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wfm.artifacts import checkpoints, generations, lease
from wfm.artifacts.address import ID_PATTERN, KEY_PATTERN, age_seconds, id_time, new_id
from wfm.artifacts.gc_report import Dead, GcReport
from wfm.artifacts.generations import AREAS
from wfm.artifacts.invalidation import (
    BY_COLLECTION_WITHOUT_ROOM,
    BY_UNKNOWN,
    Tombstone,
    bury,
    read_tombstone,
    tombstones,
)
from wfm.artifacts.nameless import find_nameless
from wfm.artifacts.retention import policy_of, write_down
from wfm.artifacts.roots import Keep, Live, mark, wanted_keys
from wfm.errors import DataError, InputError, TryAgain
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts.shelf import Shelf

_log = get_logger(__name__)


def collect(
    store: "Shelf",
    *,
    dry_run: bool = False,
    wait_seconds: float = 60.0,
    keep_runs: int = 20,
    keep_promotions: int = 3,
    min_age_seconds: float = 86_400.0,
    keep_candidates: int = 3,
    candidate_seconds: float = math.inf,
    by: str = "",
) -> GcReport:
    """Delete what no name, run or lease needs.

    `keep_runs`: what the newest runs made or read stays, and what runs need that are not over; `keep_promotions`: so many of
    each name's history stay; `min_age_seconds`: what is younger stays; `keep_candidates`: so many of a name's candidates stay,
    those alone that are younger than `candidate_seconds`; `by`: who asks, for the record (`wfm.artifacts.retention`).
    While any lease is held, no part is deleted: the holder may be about to list it. A lease of another machine that stays
    silent for its time within `wait_seconds` is over.
    """
    for name, value in (("wait_seconds", wait_seconds), ("keep_runs", keep_runs), ("min_age_seconds", min_age_seconds)):
        if not (value >= 0 and math.isfinite(value)):  # nothing is younger than NaN: all of it would go
            raise InputError(f"{name} is {value:g}: give a number, 0 or more")
    keep = Keep(
        keep_runs,
        max(keep_promotions, 1),
        candidates=keep_candidates,
        candidate_seconds=candidate_seconds,
        min_age_seconds=min_age_seconds,
        wait_seconds=wait_seconds,
    )
    live = mark(store, keep, patience=0.0 if dry_run else wait_seconds)
    report = GcReport(dry_run, live=dict(live.artifacts), unread=list(live.unread))
    _find_dead(store, live, keep, report)
    report.attempts = _find_attempts(store, live, keep)
    report.scratch = _find_scratch(store, live, keep)
    report.nameless = find_nameless(store, min_age_seconds)
    report.checkpoints = _find_checkpoints(store, live, keep)
    if live.leases:
        report.notes.append(f"{len(live.leases)} leases are held: no part and no unfinished part was touched")
    if report.spared:
        report.notes.append(
            f"{report.spared} commits that nothing else needs stay: what cannot be read may need them; do what its line says, "
            "and collect again"
        )
    if not dry_run:
        _sweep(store, report, keep, set(live.unread), by)
    return report


def _pause(seconds: float) -> None:
    """A wait of this file's own: tests let something happen in it, and in no other thread's."""
    time.sleep(seconds)


def _sweep(store: "Shelf", report: GcReport, keep: Keep, unread: set[str], by: str) -> None:
    """Delete what a report names. First what needs no tombstone: it makes room for those."""
    for folder in report.attempts:
        _unless_linked(report, partial(_delete_files, store, folder))
    for key in report.scratch:
        store.clear_scratch(key)
    for path in report.nameless:
        path.unlink(missing_ok=True)
    for key in set(report.checkpoints).difference(
        lease.held(store.objects, patience=keep.wait_seconds) if report.checkpoints else ()
    ):
        _unless_linked(report, partial(checkpoints.remove, store.objects, key))
    for key in generations.keys(store.objects, "leases"):
        lease.trim(store.objects, key)
    sweep = f"gc {new_id()}"
    try:
        for dead in report.dead:
            bury(store.objects, dead.area, dead.key, dead.generation, dead.reason, sweep, needs_room=False)
    except TryAgain as error:
        raise TryAgain(
            f"{error}; not even an empty file fits: delete any file on this disk by hand and collect again"
        ) from None
    if report.dead and keep.wait_seconds:
        _pause(keep.wait_seconds)
    report.dead = _spare_the_revived(store, report, keep, sweep, unread)
    written = not report.deletes or write_down(store.objects, report, policy_of(keep), by)
    for dead in report.dead:
        _unless_linked(report, partial(delete_commit, store, dead))
    if not written:  # there is room now
        write_down(store.objects, report, policy_of(keep), by)


def _unless_linked(report: GcReport, action: Callable[[], None]) -> None:
    try:
        action()
    except DataError as error:  # a link: it, and what it points to, is not ours
        report.notes.append(f"left alone: {error}")


def _delete_files(store: "Shelf", folder: str) -> None:
    store.objects.delete_tree(folder)
    store.clear_cached(folder)


def _find_dead(store: "Shelf", live: Live, keep: Keep, report: GcReport) -> None:
    for area in AREAS:
        if area == "parts" and live.leases:
            continue
        for key in generations.keys(store.objects, area):
            state = generations.read_state(store.objects, f"{area}/{key}")
            buried = (
                {stone.generation: stone for stone in tombstones(store.objects, area, key)} if state.tombstones else {}
            )
            for generation in sorted(state.manifests):
                stone = buried.get(generation)
                dead = _judge(store, live, keep, (area, key, generation), stone, report.unread)
                if dead is None:
                    continue
                if live.unread and not (area == "artifacts" and stone and stone.by in ("invalidate", "purge")):
                    report.spared += 1
                else:
                    report.dead.append(dead)


def _judge(
    store: "Shelf", live: Live, keep: Keep, of: tuple[str, str, int], stone: Tombstone | None, unread: list[str]
) -> Dead | None:
    area, key, generation = of
    if area == "parts" and (key, generation) in live.parts:
        return None  # an invalidated part too, while an artifact that counts is made of it
    if area == "artifacts" and stone is None and key in live.artifacts:
        return None
    if stone is not None and stone.by == BY_UNKNOWN:
        unread.append(f"{area}/{key}, generation {generation}: {stone.reason}")
        return None
    try:
        manifest = store.open_generation(area, key, generation).manifest
    except InputError as error:  # damaged, or of a newer wfm: not ours to delete
        words = str(error)
        if stone is not None:  # the advice of those words was taken
            where = f"{store.url}/{generations.manifest_path(f'{area}/{key}', generation)}"
            words = (
                f"{where} {stone.described()}; it cannot be read, and its files stay: nobody can tell which they are"
            )
        elif words in unread:
            return None
        unread.append(words)
        return None
    if area == "parts" and stone is None and str(manifest.extra.get("made_for")) in live.unmade:
        return None  # ranges, or a try that was stopped, made it for an artifact that a run still asks for
    since = manifest.created_at if stone is None else stone.created_at
    by_sweep = stone is not None and stone.by.startswith("gc ")  # one that was killed in its wait, or is in it now
    # the age of one without words is not known, and this sweep waits too
    without_words = stone is not None and stone.by == BY_COLLECTION_WITHOUT_ROOM
    if not without_words and age_seconds(since) < (keep.wait_seconds if by_sweep else keep.min_age_seconds):
        return None
    reason = f"invalidated: {stone.reason}" if stone else "no name, run or lease needs it"
    return Dead(area, key, generation, manifest.attempt, manifest.files.bytes, reason)


def _spare_the_revived(store: "Shelf", report: GcReport, keep: Keep, sweep: str, unread_before: set[str]) -> list[Dead]:
    """Look again; what became wanted during the wait gets its tombstone of this sweep taken away."""
    unread: list[str] = []
    wanted = _wanted_again(store, report, keep, unread)
    new = [words for words in unread if words not in unread_before]
    report.unread += new
    still = []
    for dead in report.dead:
        if not new and (dead.area, dead.key) not in wanted:
            still.append(dead)
            continue
        try:
            stone = read_tombstone(store.objects, dead.area, dead.key, dead.generation)
        except FileNotFoundError:  # spared by another collection
            continue
        if stone.by in (sweep, BY_COLLECTION_WITHOUT_ROOM):
            store.objects.delete(generations.tombstone_path(f"{dead.area}/{dead.key}", dead.generation))
            why = "something appeared that cannot be read" if new else "it was wanted again"
            report.notes.append(f"{dead.area}/{dead.key} stays: during the wait {why}")
        elif stone.by != BY_UNKNOWN:  # it was invalidated before
            still.append(dead)
    return still


def _wanted_again(store: "Shelf", report: GcReport, keep: Keep, unread: list[str]) -> set[tuple[str, str]]:
    """(area, key) of candidates that a name, run, lease, or an artifact committed since now needs."""
    candidates = {dead.key: dead for dead in report.dead if dead.area == "artifacts"}
    reasons, leases = wanted_keys(store, keep, unread, keep.wait_seconds)
    wanted: set[tuple[str, str]] = set()
    if leases:
        wanted |= {(dead.area, dead.key) for dead in report.dead if dead.area == "parts"}
    waiting = [key for key in reasons if key in candidates]
    for key in store.committed_keys():
        try:
            artifact = store.artifact(key)
            wanted |= {("parts", entry.key) for entry in artifact.iterate_parts()}
        except InputError as error:
            unread.append(str(error))
            continue
        waiting += artifact.manifest.inputs.values()
    while waiting:
        key = waiting.pop()
        if key not in candidates or ("artifacts", key) in wanted:
            continue
        wanted.add(("artifacts", key))
        artifact = store.open_generation("artifacts", key, candidates[key].generation)
        wanted |= {("parts", entry.key) for entry in artifact.iterate_parts()}
        waiting += artifact.manifest.inputs.values()
    return wanted


def delete_commit(store: "Shelf", dead: Dead) -> None:
    """Manifest first: from then on the rest is only an unfinished attempt, which any later collection finds."""
    folder = f"{dead.area}/{dead.key}"
    store.objects.delete(generations.manifest_path(folder, dead.generation))
    _delete_files(store, f"{folder}/attempts/{dead.attempt}")


def _find_attempts(store: "Shelf", live: Live, keep: Keep) -> list[str]:
    found = []
    for area in AREAS:
        if area == "parts" and live.leases:
            continue
        for key in generations.keys(store.objects, area):
            if key not in live.leases:
                found += [
                    folder
                    for folder, attempt in unfinished(store, area, key)
                    if time.time() - id_time(attempt) >= keep.min_age_seconds
                ]
        for key, attempt in _only_cached(store, area):
            if key not in live.leases and time.time() - id_time(attempt) >= keep.min_age_seconds:
                found.append(f"{area}/{key}/attempts/{attempt}")
    return found


def _only_cached(store: "Shelf", area: str) -> Iterator[tuple[str, str]]:
    """(key, id) of attempts that this machine's cache of a remote store holds, and the store does not: killed before anything
    was uploaded, or deleted there from another machine. None behind a link."""
    if store.objects.local_path(area) is not None:
        return
    for key in filter(KEY_PATTERN.fullmatch, _names_here(store, area)):
        here = [name for name in _names_here(store, f"{area}/{key}/attempts") if ID_PATTERN.fullmatch(name)]
        there = set(generations.attempts(store.objects, f"{area}/{key}")) if here else ()
        yield from ((key, name) for name in here if name not in there)


def _names_here(store: "Shelf", path: str) -> list[str]:
    try:
        folder = store.local_folder(path)
    except DataError as error:
        _log.warning("left alone: %s", error)
        return []
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def unfinished(store: "Shelf", area: str, key: str) -> Iterator[tuple[str, str]]:
    """(folder, id) of the attempts of a key that were never committed. None where a manifest cannot be read: which attempt it
    means cannot be told then. None behind a link."""
    folder = f"{area}/{key}"
    try:
        attempts = list(generations.attempts(store.objects, folder))
        numbers = generations.read_state(store.objects, folder).manifests if attempts else ()
        committed = {store.open_generation(area, key, each).manifest.attempt for each in numbers}
    except InputError as error:
        _log.warning("unfinished attempts of %s are left alone: %s", folder, error)
        return
    for attempt in attempts:
        if attempt not in committed:
            yield f"{folder}/attempts/{attempt}", attempt


def _find_scratch(store: "Shelf", live: Live, keep: Keep) -> list[str]:
    return [
        folder.name
        for folder in scratch_folders(store)
        if folder.name not in live.leases and time.time() - _newest(folder) >= keep.min_age_seconds
    ]


def _find_checkpoints(store: "Shelf", live: Live, keep: Keep) -> list[str]:
    """Of keys that are committed; and of those that nobody works at, no run names, and nobody has worked at for long."""
    return [
        key
        for key in checkpoints.keys(store.objects)
        if key not in live.leases
        and (
            store.has(key)
            or (
                key not in live.wanted
                and not live.unread  # a run that cannot be read may name it
                and time.time() - checkpoints.newest_time(store.objects, key) >= keep.min_age_seconds
            )
        )
    ]


def scratch_folders(store: "Shelf") -> Iterator[Path]:
    """Scratch of every key on this machine; what else lies there is not ours."""
    try:
        root = store.local_folder("scratch")
    except DataError as error:
        _log.warning("left alone: %s", error)
        return
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if KEY_PATTERN.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            yield folder


def _newest(folder: Path) -> float:
    times = [folder.lstat().st_mtime]
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # deleted while we look
            times.append(path.lstat().st_mtime)
    return max(times)
