"""Which of several clips that are the same thing stays, and what hangs together."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from wfm.curation.rows import DuplicatePair, Score
from wfm.records import Clip


class Repeat(NamedTuple):
    """Which kept clip a dropped one repeats, and how that was found."""

    of: str
    tier: str
    cosine: float


NO_REPEAT = Repeat("", "", 0.0)


def quality_order(clips: Iterable[Clip], scores: Iterable[Score]) -> list[Clip]:
    """Best first; see the module for what counts. A clip without a score counts as not sharp at all."""
    sharpness = {score.clip_id: score.sharpness for score in scores}

    def key(clip: Clip) -> tuple[float | bool | str, ...]:
        pixels, sharp = clip.width * clip.height, sharpness.get(clip.clip_id, 0.0)
        return (not clip.action_path, not clip.attributes_json, -pixels, -clip.num_frames, -sharp, clip.clip_id)

    return sorted(clips, key=key)


def choose_keepers(
    ranked: Iterable[Clip], pairs: Iterable[DuplicatePair], may_keep: Callable[[Clip], bool] = lambda _: True
) -> dict[str, Repeat]:
    """Dropped clip id -> the kept clip it repeats.

    A clip is dropped if and only if a better one that is kept repeats it; clips that ``may_keep`` refuses are passed over, so
    they neither are kept nor make others go.
    """
    neighbours: dict[str, list[tuple[str, float, str]]] = {}
    for pair in pairs:
        neighbours.setdefault(pair.clip_id, []).append((pair.other_id, pair.cosine, pair.tier))
        neighbours.setdefault(pair.other_id, []).append((pair.clip_id, pair.cosine, pair.tier))
    kept: set[str] = set()
    kept_bytes: dict[str, list[Clip]] = {}  # by hash; at most one kept clip of each of two sessions is ever needed
    dropped: dict[str, Repeat] = {}
    for clip in ranked:
        if not may_keep(clip):
            continue
        twins = kept_bytes.setdefault(clip.clip_sha256, [])
        twin = next((other for other in twins if other.session_id != clip.session_id), None)
        near = [(cosine, other, tier) for other, cosine, tier in neighbours.get(clip.clip_id, ()) if other in kept]
        if twin is not None:
            dropped[clip.clip_id] = Repeat(twin.clip_id, "bytes", 1.0)
        elif near:
            cosine, other, tier = max(near)
            dropped[clip.clip_id] = Repeat(other, tier, cosine)
        else:
            kept.add(clip.clip_id)
            if len(twins) < 2:
                twins.append(clip)
    return dropped


def connected(items: Iterable[str], links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Item -> smallest item of its connected component (union-find with path halving)."""
    parent = {item: item for item in items}

    def root(item: str) -> str:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for a, b in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return {item: root(item) for item in parent}
