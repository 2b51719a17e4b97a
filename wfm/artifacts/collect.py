"""Garbage collection: mark, tombstone, wait, look again, delete.

The tombstone makes `has` false, so that whoever starts during the wait makes the artifact anew instead of building
on one that is about
to go; whoever had looked before has the wait to take a lease or write a name, which the second look finds.
"""

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wfm.artifacts import generations
from wfm.artifacts.address import id_time, new_id
from wfm.artifacts.invalidation import Tombstone, bury, tombstones
from wfm.artifacts.roots import Keep, Live, age_seconds, mark, wanted_keys
from wfm.errors import InputError
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts.store import Store

_log = get_logger(__name__)
AREAS = ("artifacts", "parts")


@dataclass(frozen=True)
class Dead:
    """One commit that nothing needs."""

    area: str
    key: str
    generation: int
    attempt: str
    bytes: int
    """Of its own files, without parts."""
    reason: str


@dataclass
class GcReport:
    """What a collection deleted (or, dry, would delete)."""

    dry_run: bool
    dead: list[Dead] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)
    """Folders of attempts that were never committed."""
    scratch: list[str] = field(default_factory=list)
    """Keys whose scratch folders go."""
    live: dict[str, str] = field(default_factory=dict)
    """Live artifacts and why."""
    notes: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.dead)


def collect(
    store: "Store",
    *,
    dry_run: bool = False,
    wait_seconds: float = 60.0,
    keep_runs: int = 20,
    keep_promotions: int = 3,
    min_age_seconds: float = 86_400.0,
) -> GcReport:
    """Delete what no name, run or lease needs.

    `keep_runs`: what the newest runs made or read stays; `keep_promotions`: so many of each name's history stay;
    `min_age_seconds`: what
    is younger stays. While any lease is held, no part is deleted: the holder may be about to list it.
    """
    for name, value in (("wait_seconds", wait_seconds), ("keep_runs", keep_runs), ("min_age_seconds", min_age_seconds)):
        if value < 0:
            raise InputError(f"{name} is {value}: give 0 or more")
    keep = Keep(keep_runs, max(keep_promotions, 1), min_age_seconds, wait_seconds)
    live = mark(store, keep)
    report = GcReport(dry_run, live=dict(live.artifacts))
    report.dead = _find_dead(store, live, keep)
    report.attempts = _find_attempts(store, live, keep)
    report.scratch = _find_scratch(store, live, keep)
    if live.leases:
        report.notes.append(f"{len(live.leases)} leases are held: no part and no unfinished part was touched")
    if dry_run:
        return report
    sweep = f"gc {new_id()}"
    for dead in report.dead:
        bury(store.objects, dead.area, dead.key, dead.generation, dead.reason, sweep)
    if report.dead and wait_seconds:
        time.sleep(wait_seconds)
    report.dead = _spare_the_revived(store, report, keep, sweep)
    for dead in report.dead:
        delete_commit(store, dead)
    for folder in report.attempts:
        store.objects.delete_tree(folder)
        shutil.rmtree(store.cache / folder, ignore_errors=True)
    for key in report.scratch:
        store.clear_scratch(key)
    _trim_leases(store)
    return report


def _find_dead(store: "Store", live: Live, keep: Keep) -> list[Dead]:
    found = []
    for area in AREAS:
        if area == "parts" and live.leases:
            continue
        for name in store.objects.names(area):
            key = name.rstrip("/")
            state = generations.read_state(store.objects, f"{area}/{key}")
            buried = (
                {stone.generation: stone for stone in tombstones(store.objects, area, key)} if state.tombstones else {}
            )
            for generation in sorted(state.manifests):
                dead = _judge(store, live, keep, area, key, generation, buried)
                if dead is not None:
                    found.append(dead)
    return found


def _judge(
    store: "Store", live: Live, keep: Keep, area: str, key: str, generation: int, buried: dict[int, Tombstone]
) -> Dead | None:
    stone = buried.get(generation)
    if area == "parts" and (key, generation) in live.parts:
        return None  # an invalidated part too, while an artifact that counts is made of it
    if area == "artifacts" and stone is None and key in live.artifacts:
        return None
    try:
        manifest = store.open_generation(area, key, generation).manifest
    except InputError as error:  # damaged, or of a newer wfm: not ours to delete
        _log.warning("left alone: %s", error)
        return None
    since = manifest.created_at if stone is None else stone.created_at
    by_sweep = stone is not None and stone.by.startswith("gc ")  # one that was killed in its wait, or is in it now
    if age_seconds(since) < (keep.wait_seconds if by_sweep else keep.min_age_seconds):
        return None
    reason = f"invalidated: {stone.reason}" if stone else "no name, run or lease needs it"
    return Dead(area, key, generation, manifest.attempt, manifest.files.bytes, reason)


def _spare_the_revived(store: "Store", report: GcReport, keep: Keep, sweep: str) -> list[Dead]:
    """Look again; what became wanted during the wait gets its tombstone of this sweep taken away."""
    wanted = _wanted_again(store, report, keep)
    still = []
    for dead in report.dead:
        path = generations.tombstone_path(f"{dead.area}/{dead.key}", dead.generation)
        if (dead.area, dead.key) in wanted and Tombstone.from_bytes(store.objects.read(path), path).by == sweep:
            store.objects.delete(path)
            report.notes.append(f"{dead.area}/{dead.key} was wanted again during the wait: it stays")
        else:  # nobody needs it, or it was invalidated before
            still.append(dead)
    return still


def _wanted_again(store: "Store", report: GcReport, keep: Keep) -> set[tuple[str, str]]:
    """(area, key) of candidates that a name, run, lease, or an artifact committed since now needs."""
    candidates = {dead.key: dead for dead in report.dead if dead.area == "artifacts"}
    reasons, leases = wanted_keys(store, keep)
    wanted: set[tuple[str, str]] = set()
    if leases:
        wanted |= {(dead.area, dead.key) for dead in report.dead if dead.area == "parts"}
    waiting = [key for key in reasons if key in candidates]
    for key in store.committed_keys():
        artifact = store.artifact(key)
        wanted |= {("parts", entry.key) for entry in artifact.iterate_parts()}
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


def delete_commit(store: "Store", dead: Dead) -> None:
    """Manifest first: from then on the rest is only an unfinished attempt, which any later collection finds."""
    folder = f"{dead.area}/{dead.key}"
    store.objects.delete(generations.manifest_path(folder, dead.generation))
    files = f"{folder}/attempts/{dead.attempt}"
    store.objects.delete_tree(files)
    shutil.rmtree(store.cache / files, ignore_errors=True)


def _find_attempts(store: "Store", live: Live, keep: Keep) -> list[str]:
    found = []
    for area in AREAS:
        if area == "parts" and live.leases:
            continue
        for name in store.objects.names(area):
            key = name.rstrip("/")
            if key in live.leases:
                continue
            folder = f"{area}/{key}"
            committed = set()
            for generation in generations.read_state(store.objects, folder).manifests:
                committed.add(store.open_generation(area, key, generation).manifest.attempt)
            for attempt in (each.rstrip("/") for each in store.objects.names(f"{folder}/attempts")):
                if attempt not in committed and time.time() - id_time(attempt) >= keep.min_age_seconds:
                    found.append(f"{folder}/attempts/{attempt}")
    return found


def _find_scratch(store: "Store", live: Live, keep: Keep) -> list[str]:
    root = store.objects.local_path("scratch") or store.cache / "scratch"
    found = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.name not in live.leases and time.time() - _newest(folder) >= keep.min_age_seconds:
            found.append(folder.name)
    return found


def _newest(folder: Path) -> float:
    return max((path.stat().st_mtime for path in (folder, *folder.rglob("*")) if path.exists()), default=0.0)


def _trim_leases(store: "Store") -> None:
    """Of each key's leases only the highest number is needed; it stays, so that fencing numbers only grow."""
    for name in store.objects.names("leases"):
        folder = f"leases/{name.rstrip('/')}"
        names = store.objects.names(folder)
        highest = max((each.split(".")[0] for each in names), default="")
        for each in names:
            if each.split(".")[0] < highest:
                store.objects.delete(f"{folder}/{each}")
