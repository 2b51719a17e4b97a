"""What a run would cost, from what the same stages took before: rates that were measured, or no figure at all.

A stage's rate is that of its newest artifact in the store of which at least half was made then (else the one of which most
was): seconds and processor seconds for each file that ingest saw, by the share of parts that were made. Parts that are there
already are not subtracted, so the figure is an upper bound where much of the corpus was curated before.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

from wfm.errors import WfmError

if TYPE_CHECKING:
    from pipelines.plan import Node, Plan
    from wfm.artifacts import Artifact, Store

INGEST = "ingest_videos"
CAPTION = "caption_clips"


@dataclasses.dataclass(frozen=True)
class Rate:
    """What a stage took for each input file."""

    seconds: float
    cpu_seconds: float
    measured_on: int
    "Files of the run it was measured on."


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What one stage would take; None where nothing was measured."""

    stage: str
    files: int | None
    rate: Rate | None

    @property
    def seconds(self) -> float | None:
        """Wall time on the machine it was measured on [s]."""
        return self.rate.seconds * self.files if self.rate is not None and self.files is not None else None

    @property
    def cpu_seconds(self) -> float | None:
        """Processor time [s]."""
        return self.rate.cpu_seconds * self.files if self.rate is not None and self.files is not None else None


def estimate(plan: "Plan", store: "Store") -> dict[str, Estimate]:
    """Node name -> estimate, for the nodes that would run."""
    files = _files_now(plan, store)
    wanted = {node.stage for node in plan.missing}
    rates = _rates(store, wanted) if wanted else {}
    return {node.name: Estimate(node.stage, files, rates.get(node.stage)) for node in plan.missing}


def questions(plan: "Plan", store: "Store") -> list[str]:
    """What captioning models would be asked, for nodes that would run and whose clips are there already."""
    from components import caption_clips
    from wfm.curation.caption_expected import expected

    found = []
    for node in plan.missing:
        clips = plan.input_keys(node).get("clips", "") if node.stage == CAPTION else ""
        if clips and store.has(clips):
            asked = expected(store.artifact(clips), caption_clips.CONFIG.parse(node.config))
            found += [f"{node.name}: {asked}"] if asked else []
    return found


def _files_now(plan: "Plan", store: "Store") -> int | None:
    """How many files ingest would see; None when they are not there yet (simulated first)."""
    for node in plan.nodes:
        if node.stage == INGEST:
            if node.done and node.key:
                return store.artifact(node.key).manifest.counts.get("inputs")
            return _listed(node, plan, store)
    return None


def _listed(node: "Node", plan: "Plan", store: "Store") -> int | None:
    from components import ingest_videos
    from wfm.curation import listing

    config = ingest_videos.CONFIG.parse(node.config)
    if config.videos:
        count = len(listing.list_source(config.videos, store, config.limits).files)
    else:
        raw = plan.input_keys(node).get("raw", "")
        if not raw or not store.has(raw):
            return None
        count = len(listing.list_artifact(store.artifact(raw)).files)
    return min(count, config.limit) if config.limit else count


def _rates(store: "Store", stages: set[str]) -> dict[str, Rate]:
    """The rate of each stage's newest artifact that says how long it took and on how many files."""
    best: dict[str, tuple[tuple[float, str], Rate]] = {}
    for key in store.committed_keys():
        try:
            artifact = store.artifact(key)
            manifest = artifact.manifest
            share = _share_made(manifest.extra)
            order = (min(share, 0.5), manifest.created_at)
            if manifest.stage not in stages or not share or best.get(manifest.stage, (order,))[0] > order:
                continue
            rate = _rate(artifact, store, share)
        except WfmError:  # damaged, or without its inputs: says nothing
            continue
        if rate is not None:
            best[manifest.stage] = (order, rate)
    return {stage: rate for stage, (_, rate) in best.items()}


def _share_made(extra: dict[str, Any]) -> float:
    """Which share of an artifact's parts was made with it; the others were there."""
    parts = extra.get("parts_made", {})
    return parts["made"] / parts["of"] if parts.get("of") else 1.0


def _rate(artifact: "Artifact", store: "Store", share: float) -> Rate | None:
    manifest = artifact.manifest
    timings: dict[str, Any] = dict(manifest.timings)
    files = sum(
        store.artifact(each.key).manifest.counts.get("inputs", 0)
        for each in store.lineage(artifact.key)
        if each.stage == INGEST
    )
    if not files or "started" not in timings or "finished" not in timings:
        return None
    seconds = timings["finished"] - timings["started"]
    made = files * share
    return Rate(seconds / made, manifest.resources.get("cpu_seconds", 0.0) / made, files)
