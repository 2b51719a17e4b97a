"""Which clips are the same thing: by their bytes, by their look over time, by their embedding. One global step, one commit.

Two clips of one session are never called duplicates: views of one recording belong together. Every pair that is not of bytes
is stored with its tier, so the decision can be looked at and made again: connected components (what must not straddle a split)
and a keeper for every clip that is dropped. Keepers are chosen greedily in order of quality, so a dropped clip always has a
kept neighbour at or above the threshold: of a chain A~B~C whose ends differ, B alone goes when A and C are better.

A still image is compared as a clip that stands still: with other images, and with clips as a whole; a single frame of a moving
clip is not looked for.

Quality, best first: has actions, has attributes, more pixels, more frames, sharper, then clip id.

Threshold 0.95: on 204 simulated clips, copies that were re-encoded or scaled had cosines of at least 0.986, any two clips of
different shots at most 0.63 (`embed`, dct3d-v1). Crops, trims and letterboxes are the perceptual tier's, which runs where
the clips have signatures (``signatures`` of `embed_clips`).
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pydantic

from wfm.config import Config, Seed, how
from wfm.curation.dedup.earlier import EarlierRun
from wfm.curation.dedup.keepers import NO_REPEAT, choose_keepers, connected, quality_order
from wfm.curation.dedup.neighbours import Pairs, clustered_pairs, exact_pairs
from wfm.curation.dedup.perceptual_pairs import PerceptualConfig, perceptual_pairs
from wfm.curation.rows import DuplicatePair, DuplicateRow, Score, vectors
from wfm.errors import DataError
from wfm.records import Clip


class DedupConfig(Config):
    """When two clips are the same, and how pairs are searched."""

    threshold: float = pydantic.Field(0.95, gt=0, le=1)
    "Cosine of two embeddings at or above which clips are duplicates."
    exact_up_to: int = pydantic.Field(20_000, ge=0)
    "Clips up to which everything is compared with everything; above, within overlapping cells (k-means)."
    leaf: int = pydantic.Field(2048, ge=2)
    "Clips that one is compared with, in the mean of a cell, up to which the cell is not split again."
    reach: float = pydantic.Field(0.4, ge=0)
    "How far beyond its cell's border a clip looks: at 1 every pair meets; at 0.4 none of 4,051 was missed."
    most_probes: int = pydantic.Field(512, ge=1)
    "Cells a clip may look into; how many clips needed more is counted as probes_cut_short."
    seed: Seed = 0
    "Of the directions and of the k-means start."
    look: bool = False
    "Compare signatures too, the perceptual tier; embed_clips must have made them (signatures = true)."
    perceptual: PerceptualConfig = PerceptualConfig()
    "When two signatures are the same clip."
    block: int = how(4096, ge=1)
    "Rows of a block of the matrix product."
    device: Literal["cpu", "cuda"] = how("cpu")
    "Where the products run: cpu (numpy) or cuda (cupy)."


MOST_PAIRS = 5_000_000


def find_duplicates(
    clips: Sequence[Clip],
    scores: Iterable[Score],
    embeddings: pa.Table,
    config: DedupConfig,
    signatures: pa.Table | None = None,
    earlier: EarlierRun | None = None,
) -> tuple[list[DuplicateRow], list[DuplicatePair], dict[str, int]]:
    """(a row a clip, every pair, counts). Rows come in order of clip id, whatever order the input has.

    ``signatures``: a table of `perceptual.Signature`, or None to leave that tier out. ``earlier``: the pairs of a run before,
    with the same config; only what is new to it is compared, and the answer is that of one run over everything (exactly so
    up to ``exact_up_to`` clips).
    """
    near, looked, counts = find_pairs(clips, embeddings, config, signatures, earlier)
    pairs = merged(near, looked)
    rows = decide(clips, scores, pairs)
    tiers = [row.tier for row in rows if row.duplicate_of]
    counts = {
        "inputs": len(clips),
        "outputs": len(rows),
        "pairs": len(pairs),
        "duplicates": len(tiers),
        "duplicates_by_bytes": tiers.count("bytes"),
        "duplicates_by_look": tiers.count("perceptual"),
        **counts,
    }
    return rows, pairs, counts


def find_pairs(
    clips: Sequence[Clip],
    embeddings: pa.Table,
    config: DedupConfig,
    signatures: pa.Table | None = None,
    earlier: EarlierRun | None = None,
) -> tuple[list[DuplicatePair], list[DuplicatePair], dict[str, int]]:
    """(pairs by embedding, with those of before; pairs by look; counts) of `find_duplicates`."""
    clips = sorted(clips, key=lambda clip: clip.clip_id)
    fresh = np.array([earlier is None or earlier.clips.get(clip.clip_id) != clip.clip_sha256 for clip in clips], bool)
    near, flat, cut_short = _embedding_pairs(clips, embeddings, config, fresh)
    if len(near.first) > MOST_PAIRS:
        raise DataError(
            f"threshold = {config.threshold} calls {len(near.first)} pairs of {len(clips)} clips duplicates, "
            f"more than {MOST_PAIRS}: raise it, or leave out what repeats endlessly (test cards, logos) before"
        )
    pairs = [
        DuplicatePair(clip_id=clips[i].clip_id, other_id=clips[j].clip_id, cosine=float(cosine))
        for i, j, cosine in zip(near.first, near.second, near.cosine, strict=True)
    ]
    looked, counts = ([], {}) if signatures is None else _perceptual_pairs(clips, signatures, config, fresh)
    counts = {
        "flat_not_compared": flat,
        "compared_before": int((~fresh).sum()),
        "without_embedding": len(clips) - len(embeddings),
        "probes_cut_short": cut_short,
        **counts,
    }
    return [*pairs, *_still_true(earlier, clips, fresh)], looked, counts


def decide(clips: Sequence[Clip], scores: Iterable[Score], pairs: Sequence[DuplicatePair]) -> list[DuplicateRow]:
    """Who stays, given the pairs and equal bytes: a row a clip, in order of clip id."""
    ranked = quality_order(clips, scores)
    rank = {clip.clip_id: i for i, clip in enumerate(ranked)}
    repeats = choose_keepers(ranked, pairs)
    clips = sorted(clips, key=lambda clip: clip.clip_id)
    links = [(pair.clip_id, pair.other_id) for pair in pairs] + list(_byte_links(clips))
    components = connected((clip.clip_id for clip in clips), links)
    rows = []
    for clip in clips:
        repeat = repeats.get(clip.clip_id, NO_REPEAT)
        rows.append(
            DuplicateRow(
                clip_id=clip.clip_id,
                component=components[clip.clip_id],
                quality_rank=rank[clip.clip_id],
                duplicate_of=repeat.of,
                tier=repeat.tier,
                cosine=repeat.cosine,
            )
        )
    return rows


def _byte_links(clips: Sequence[Clip]) -> Iterable[tuple[str, str]]:
    """Links that connect all clips of equal bytes, where more than one session has them: n - 1 links, not n squared."""
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(clip.clip_sha256, []).append(clip)
    for group in groups.values():
        if len({clip.session_id for clip in group}) > 1:
            for clip in group[1:]:
                yield group[0].clip_id, clip.clip_id


def _embedding_pairs(
    clips: Sequence[Clip], embeddings: pa.Table, config: DedupConfig, fresh: np.ndarray
) -> tuple[Pairs, int, int]:
    """(pairs of rows of ``clips``, flat clips left out, clips whose search was cut short)."""
    rows = _rows_of(clips, embeddings, "embedding")
    matrix = vectors(embeddings)
    sessions = _sessions(clips)
    order = np.argsort(rows, kind="stable")  # the answer must not depend on the order of the parts
    rows, matrix = rows[order], matrix[order]
    flat = int((~matrix.any(axis=1)).sum())
    if len(rows) <= config.exact_up_to:
        found = exact_pairs(
            matrix, sessions[rows], config.threshold, block=config.block, device=config.device, fresh=fresh[rows]
        )
    else:
        found = clustered_pairs(
            matrix,
            sessions[rows],
            config.threshold,
            leaf=config.leaf,
            reach=config.reach,
            most_pairs=MOST_PAIRS,
            most_probes=config.most_probes,
            seed=config.seed,
            block=config.block,
            device=config.device,
            fresh=fresh[rows],
        )
    return Pairs(rows[found.first], rows[found.second], found.cosine), flat, found.cut_short


def _still_true(earlier: EarlierRun | None, clips: Sequence[Clip], fresh: np.ndarray) -> list[DuplicatePair]:
    """Pairs of before whose clips are both still here, unchanged and of different sessions."""
    if earlier is None:
        return []
    session = {clip.clip_id: clip.session_id for clip, new in zip(clips, fresh, strict=True) if not new}
    return [
        pair
        for pair in earlier.pairs
        if pair.clip_id in session and pair.other_id in session and session[pair.clip_id] != session[pair.other_id]
    ]


def merged(pairs: Sequence[DuplicatePair], looked: Iterable[DuplicatePair]) -> list[DuplicatePair]:
    """Each pair once, in order; one that both tiers found stands as the embedding's."""
    one = {(pair.clip_id, pair.other_id): pair for pair in [*looked, *pairs]}
    one |= {(pair.clip_id, pair.other_id): pair for pair in pairs if pair.tier == "embedding"}
    return [one[key] for key in sorted(one)]


def _sessions(clips: Sequence[Clip]) -> np.ndarray:
    """int64 [N]: equal numbers, one session."""
    return np.unique([clip.session_id for clip in clips], return_inverse=True)[1] if clips else np.zeros(0, np.int64)


def _rows_of(clips: Sequence[Clip], table: pa.Table, what: str) -> np.ndarray:
    """The row of ``clips`` that each row of a table belongs to. Raises `DataError` where it was made from other bytes."""
    index = {clip.clip_id: i for i, clip in enumerate(clips)}
    ids, hashes = (table.column(name).to_pylist() for name in ("clip_id", "clip_sha256"))
    rows = np.zeros(len(ids), np.int64)
    for k, (clip_id, clip_sha256) in enumerate(zip(ids, hashes, strict=True)):
        if clip_id not in index or clips[index[clip_id]].clip_sha256 != clip_sha256:
            raise DataError(
                f"{what} of clip {clip_id!r} was not made from the bytes in the clips table: rerun embed_clips"
            )
        rows[k] = index[clip_id]
    return rows


def _perceptual_pairs(
    clips: Sequence[Clip], signatures: pa.Table, config: DedupConfig, fresh: np.ndarray
) -> tuple[list[DuplicatePair], dict[str, int]]:
    rows = _rows_of(clips, signatures, "signature")
    first, second, score, counts = perceptual_pairs(signatures, rows, _sessions(clips), config.perceptual, fresh)
    pairs = [
        DuplicatePair(clip_id=clips[i].clip_id, other_id=clips[j].clip_id, cosine=float(s), tier="perceptual")
        for i, j, s in zip(first, second, score, strict=True)
    ]
    return pairs, counts
