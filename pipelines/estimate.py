"""What a run would cost, from what the same stages took before: rates that were measured, or no figure at all.

A stage's rate is its seconds for each unit of work: a file that ingest saw, or where options say how much there is to do (steps
of training, windows to generate, seconds to simulate) what `AMOUNTS` makes of them. It is taken from an artifact of which at
least half was made then (else the one of which most was), of these from the one with the fewest other options, of these from
the newest; options that differ and are not in the amount are told (`Estimate.other`). Parts that are there already are not
subtracted, so the figure is an upper bound where much of the corpus was curated before.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipelines.explain import flat
from wfm.config import Config
from wfm.errors import WfmError
from wfm.models.family import FAMILIES, FamilyConfig

if TYPE_CHECKING:
    from pipelines.nodes import Node, Plan
    from wfm.artifacts import Artifact, Store

INGEST = "ingest_videos"
CAPTION = "caption_clips"


@dataclasses.dataclass(frozen=True)
class Rate:
    """What a stage took for each unit of work."""

    seconds: float
    cpu_seconds: float
    other: tuple[str, ...] = ()
    "Options that were others then: ``cut.crf: 18 -> 20``."


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What one stage would take; None where nothing was measured, or nobody knows how much there is to do."""

    stage: str
    files: int | None
    rate: Rate | None
    amount: float | None

    @property
    def seconds(self) -> float | None:
        """Wall time on the machine it was measured on [s]."""
        return self.rate.seconds * self.amount if self.rate is not None and self.amount is not None else None

    @property
    def cpu_seconds(self) -> float | None:
        """Processor time [s]."""
        return self.rate.cpu_seconds * self.amount if self.rate is not None and self.amount is not None else None

    @property
    def other(self) -> tuple[str, ...]:
        """Options that were others when the rate was measured."""
        return self.rate.other if self.rate is not None else ()


def _of_simulation(config: Any, files: int | None) -> float:
    seconds = sum(config.seconds_per_shot) / 2
    return float(config.sessions * config.views * config.shots_per_video * seconds * config.fps * config.size**2)


def _of_encoding(config: Any, files: int | None) -> float | None:
    windows = config.num_frames / config.stride_frames * math.prod(config.size)
    pixels = config.max_pixels if config.take == "clips" else windows
    return None if files is None else float(files * pixels)


def _of_tokenizer(config: Any, files: int | None) -> float:
    return float(config.training.steps * config.training.batch_size * config.crop_frames * math.prod(config.size))


def _of_training(config: Any, files: int | None) -> float:
    weights = FAMILIES.load(config.family).weight_count(config)
    return float(config.training.steps * config.training.batch_size * weights)


def _of_generation(config: Any, files: int | None) -> float | None:
    windows = config.max_windows or files
    passes = FAMILIES.load(config.family).passes(config.sampling)
    return None if windows is None else float(windows * len(config.splits) * passes)


def _of_one(config: Any, files: int | None) -> float:
    return 1.0


AMOUNTS: dict[str, tuple[Callable[[Any, int | None], float | None], tuple[str, ...]]] = {
    "simulate_videos": (
        _of_simulation,
        ("sessions", "views", "shots_per_video", "seconds_per_shot", "fps", "size", "seed"),
    ),
    "encode_latents": (_of_encoding, ("num_frames", "stride_frames", "size", "max_pixels")),
    "train_tokenizer": (_of_tokenizer, ("training.", "crop_frames", "size")),
    "train_world_model": (_of_training, ("training.",)),
    "train_decoder": (_of_training, ("training.",)),
    "generate_videos": (_of_generation, ("max_windows", "splits", "sampling.", "seed")),
    "evaluate_model": (_of_one, ("seed",)),
    "publish_model": (_of_one, ("name",)),
    "write_report": (_of_one, ()),
}
"""Stage -> how much there is to do, from config and files, and the options that are in it or cost nothing. Others: a file."""
_OF_FILES = (lambda config, files: None if files is None else float(files), ("limit", "videos", "split.", "seed"))


def estimate(plan: "Plan", store: "Store") -> dict[str, Estimate]:
    """Node name -> estimate, for the nodes that would run."""
    files = _files_now(plan, store)
    made = _made(store, {node.stage for node in plan.missing})
    found = {}
    for node in plan.missing:
        config = _config(node.component, node.config)
        amount = AMOUNTS.get(node.stage, _OF_FILES)[0](config, files)
        found[node.name] = Estimate(node.stage, files, _rate_for(node, config, made.get(node.stage, [])), amount)
    return found


def questions(plan: "Plan", store: "Store") -> list[str]:
    """What captioning models would be asked, for nodes that would run and whose clips are there already."""
    from components import caption_clips
    from wfm.curation.caption.expected_questions import expected

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
    from wfm.curation.source import listing

    config = ingest_videos.CONFIG.parse(node.config)
    if config.videos:
        count = len(listing.list_source(config.videos, store, config.limits).files)
    else:
        raw = plan.input_keys(node).get("raw", "")
        if not raw or not store.has(raw):
            return None
        count = len(listing.list_artifact(store.artifact(raw)).files)
    return min(count, config.limit) if config.limit else count


@dataclasses.dataclass(frozen=True)
class _Made:
    """An artifact that says how long it took, and for how much."""

    node: str
    config: Any
    share: float
    created_at: str
    seconds: float
    cpu_seconds: float


def _made(store: "Store", stages: set[str]) -> dict[str, list[_Made]]:
    """Stage -> its artifacts that say how long they took, a unit of work each."""
    found: dict[str, list[_Made]] = {}
    for key in store.committed_keys() if stages else ():
        try:
            artifact = store.artifact(key)
            one = _measured(artifact, store) if artifact.manifest.stage in stages else None
        except WfmError:  # damaged, without its inputs, or with options of an older wfm: says nothing
            continue
        if one is not None:
            found.setdefault(artifact.manifest.stage, []).append(one)
    return found


def _measured(artifact: "Artifact", store: "Store") -> _Made | None:
    manifest = artifact.manifest
    timings: dict[str, Any] = dict(manifest.timings)
    share = share_made(manifest.extra)
    if not share or "started" not in timings or "finished" not in timings:
        return None
    config = _config(manifest.stage, manifest.config)
    files = sum(
        store.artifact(each.key).manifest.counts.get("inputs", 0)
        for each in store.lineage(artifact.key)
        if each.stage == INGEST
    )
    amount = AMOUNTS.get(manifest.stage, _OF_FILES)[0](config, files or None)
    if not amount:
        return None
    seconds = (timings["finished"] - timings["started"]) / amount / share
    before = manifest.extra.get("parts_before", {}).get("cpu_seconds", 0.0)
    cpu = (manifest.resources.get("cpu_seconds", 0.0) - before) / amount / share
    return _Made(str(manifest.extra.get("node", "")), config, share, manifest.created_at, seconds, cpu)


def _config(component: str, values: dict[str, Any]) -> Config:
    from pipelines.nodes import config_class

    return config_class(component).parse(values)


def share_made(extra: dict[str, Any]) -> float:
    """Which share of an artifact was made with it; the other parts were there, or an earlier try had trained so far."""
    parts = extra.get("parts_made", {})
    share = parts["made"] / parts["of"] if parts.get("of") else 1.0
    steps, before = extra.get("steps"), extra.get("resumed_from")
    if isinstance(steps, int) and isinstance(before, int) and 0 < before < steps:
        share *= (steps - before) / steps
    return float(share)


def _rate_for(node: "Node", config: Config, made: list[_Made]) -> Rate | None:
    """The rate of the artifact that says most of this node."""
    known = AMOUNTS.get(node.stage, _OF_FILES)[1]
    if isinstance(config, FamilyConfig):
        known = (*known, *FAMILIES.load(config.family).weight_fields)
    wanted = flat(config.what())

    def other(one: _Made) -> tuple[str, ...]:
        then = flat(one.config.what())
        return tuple(
            f"{name}: {then.get(name)!r} -> {wanted.get(name)!r}"
            for name in sorted({*then, *wanted})
            if then.get(name) != wanted.get(name) and not any(_is_in(name, each) for each in known)
        )

    def says(one: _Made) -> tuple[float, bool, int, str]:
        return min(one.share, 0.5), one.node == node.name, -len(other(one)), one.created_at

    best = max(made, key=says, default=None)
    return Rate(best.seconds, best.cpu_seconds, other(best)) if best is not None else None


def _is_in(name: str, known: str) -> bool:
    return name.startswith(known) if known.endswith(".") else name == known
