"""``--retry-failed``: what was left out because something went wrong is tried once more; what was refused by choice is not.

The poison list is emptied, and every part that counts a failure is marked as not there, with the artifacts that list it and
those made from them. Their other parts stay, so the next run makes only the failed ones again.
"""

from typing import TYPE_CHECKING

from wfm.artifacts import generations
from wfm.artifacts.invalidation import bury
from wfm.errors import InputError

if TYPE_CHECKING:
    from pipelines.nodes import Plan
    from wfm.artifacts import Artifact, Store

FAILURES = frozenset(
    {"poisoned", "decode_error", "truncated", "unreadable", "changed_while_read", "not_found", "dangling_link"}
    | {"damaged_archive", "checksum_mismatch", "bad_sidecar"}
    | {"caption_garbled", "caption_refused", "caption_swapped", "caption_unanswered"}
)
"""Reason codes of what went wrong, and may go right: with the file put back, a new decoder, or another answer."""

_WHY = "--retry-failed"


def is_failure(code: str) -> bool:
    """Whether a reason code is worth another try."""
    return code in FAILURES or code.startswith("no_decoder:")


def failed_before(plan: "Plan", store: "Store") -> dict[str, int]:
    """How many items of each reason `retry_failed` would have tried again. Changes nothing."""
    counted: dict[str, int] = {}
    for node in plan.nodes:
        if node.done and node.key:
            for code, count in store.artifact(node.key).manifest.skipped.items():
                if is_failure(code):
                    counted[code] = counted.get(code, 0) + count
    return counted


def retry_failed(plan: "Plan", store: "Store") -> dict[str, int]:
    """Mark what failed in the finished stages of a plan; returns how many items of each reason will be tried again.

    The plan is out of date afterwards: resolve it again.
    """
    from wfm.curation.poison import forget

    forget(store)
    counted = failed_before(plan, store)
    stale: set[str] = set()
    for node in plan.nodes:
        if not node.done or not node.key:
            continue
        artifact = store.artifact(node.key)
        if any(is_failure(code) for code in artifact.manifest.skipped):
            _bury_parts(store, artifact)
            stale |= {node.name, *(follower.name for follower in plan.followers(node.name))}
    for node in plan.nodes:
        if node.name in stale and node.done and node.key and store.has(node.key):
            store.invalidate(node.key, _WHY, parts=False)
    return counted


def _bury_parts(store: "Store", artifact: "Artifact") -> None:
    sources: set[str] = set()
    for entry in artifact.iterate_parts():
        part = store.open_generation("parts", entry.key, entry.generation)
        if any(is_failure(code) for code in part.manifest.skipped):
            bury(store.objects, "parts", entry.key, entry.generation, _WHY, "invalidate")
            sources |= _failed_sources(part)
    if sources:
        _bury_probes(store, sources)


def _failed_sources(part: "Artifact") -> set[str]:
    """The files that ingest could not take, when it is a part of ingest."""
    if not part.has_file("videos.parquet") or part.manifest.stage != "ingest_videos":
        return set()
    from wfm.curation.step import reason_code

    rows = part.table("videos", ["source", "status", "reason"]).to_pylist()
    return {row["source"] for row in rows if row["status"] == "failed" and is_failure(reason_code(row["reason"]))}


def _bury_probes(store: "Store", sources: set[str]) -> None:
    """The parts that hold what was found in one file; no artifact lists them, so they are looked for by their source."""
    for key in generations.keys(store.objects, "parts"):
        generation = generations.read_state(store.objects, f"parts/{key}").current
        if generation is None:
            continue
        try:
            extra = store.open_generation("parts", key, generation).manifest.extra
        except InputError:  # damaged, or of a newer wfm
            continue
        if extra.get("source") in sources and "video_id" in extra:
            bury(store.objects, "parts", key, generation, _WHY, "invalidate")
