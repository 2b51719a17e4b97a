"""Clusters of a data set, named from their captions.

Spherical k-means over the vectors of the kept clips (of what is said of them, or of how they look), started by k-means++ on a
sample, the same for the same seed. A cluster's name is made of the words that its captions have and others have not: for each
word, the log of how many times more often (by captions, not by occurrences) it stands inside than outside, smoothed, in units
of its standard error, so that a word of two captions does not name a cluster of thousands.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pydantic

from wfm.config import Config, Count, Natural, Seed
from wfm.curation.rows import ClusterRow
from wfm.curation.select.kept_clips import KeptClips
from wfm.errors import ConfigError, DataError

UNNAMED = "unnamed"
_WORD = re.compile(r"[^\W\d_][\w'-]+")
_FUNCTION = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by for from has have in into is it its of on or that the their then there these they this to "
        "was were what where which while with",
    )
)
"""English words that say nothing of what is seen."""
_BLOCK = 65_536
_SAMPLE = 256  # vectors a cluster that the centres are fitted on


class ClusterConfig(Config):
    """How many clusters, and what they are called."""

    clusters: Natural = 0
    "Number of clusters; 0: the square root of half the number of clips."
    iterations: Count = 20
    "Rounds of k-means at most; it stops when no vector changes its cluster."
    starts: int = pydantic.Field(4, ge=1)
    "Times that k-means begins anew; the start whose sample ends nearest to its centres is taken."
    words: Count = 3
    "Words in a name at most."
    least_score: float = 2.0
    "Standard errors by which a word must be more frequent inside than outside to name a cluster."
    seed: Seed = 0
    "Of the sample and the start."


@dataclasses.dataclass(frozen=True)
class Clusters:
    """Of N vectors, K clusters, the largest first."""

    labels: np.ndarray
    "int64 [N]."
    cosines: np.ndarray
    "float32 [N], to the vector's own centre."
    centres: np.ndarray
    "float32 [K, D], of length 1."
    names: tuple[str, ...] = ()
    "K names, each once."


def cluster_rows(kept: KeptClips, config: ClusterConfig) -> tuple[Clusters, list[ClusterRow]]:
    """(the clusters of the clips that can be compared; a row for each of these, in order). Raises like `find_clusters`."""
    usable = kept.comparable
    found = find_clusters(kept.vectors[usable], [kept.captions[row] for row in usable], config)
    rows = [
        ClusterRow(
            clip_id=kept.clip_ids[row],
            cluster=int(label),
            cluster_name=found.names[label],
            cluster_cosine=float(cosine),
        )
        for row, label, cosine in zip(usable, found.labels, found.cosines, strict=True)
    ]
    return found, rows


def find_clusters(vectors: np.ndarray, captions: Sequence[str], config: ClusterConfig) -> Clusters:
    """Cluster float [N, D] and name the clusters by N captions. Raises ConfigError for an impossible number of clusters."""
    if len(vectors) != len(captions):
        raise DataError(f"{len(captions)} captions for {len(vectors)} vectors")
    if not len(vectors):
        raise DataError("there is nothing to cluster: no vectors")
    wanted = config.clusters or max(1, round(float(np.sqrt(len(vectors) / 2))))
    if not 1 <= wanted <= len(vectors):
        raise ConfigError(f"clusters = {config.clusters}: choose 1 to {len(vectors)}, the number of clips, or 0")
    rng = np.random.default_rng(config.seed)
    sample = np.sort(rng.permutation(len(vectors))[: _SAMPLE * wanted])
    x = _unit(vectors[sample])
    fitted = [_fit(x, wanted, config.iterations, rng) for _ in range(config.starts)]
    centres = max(fitted, key=lambda one: float(assign(x, one)[1].mean(dtype=np.float64)))
    labels, cosines = assign(vectors, centres)
    sizes = np.bincount(labels, minlength=len(centres))
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]  # a centre that nobody is nearest to is no cluster
    place = np.full(len(centres), -1)
    place[order] = np.arange(len(order))
    labels = place[labels]
    return Clusters(labels, cosines, centres[order], name_clusters(labels, captions, config))


def assign(vectors: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(nearest centre int64 [N], cosine to it float32 [N]); block by block."""
    labels = np.zeros(len(vectors), np.int64)
    cosines = np.zeros(len(vectors), np.float32)
    for start in range(0, len(vectors), _BLOCK):
        rows = slice(start, start + _BLOCK)
        products = _unit(vectors[rows]) @ centres.T  # [block, K]
        labels[rows], cosines[rows] = products.argmax(axis=1), products.max(axis=1)
    return labels, cosines


def name_clusters(labels: np.ndarray, captions: Sequence[str], config: ClusterConfig) -> tuple[str, ...]:
    """A name a cluster, each once: its words in order of score, joined by ", "; two of one name get their number after it."""
    inside: list[Counter[str]] = [Counter() for _ in range(int(labels.max()) + 1)]
    for label, caption in zip(labels, captions, strict=True):
        inside[label].update(set(words_of(caption)))
    everywhere: Counter[str] = Counter()
    for counts in inside:
        everywhere.update(counts)
    sizes = np.bincount(labels, minlength=len(inside))
    names = []
    for counts, size in zip(inside, sizes, strict=True):
        scored = [
            (_score(count, int(size), everywhere[word] - count, len(labels) - int(size)), word)
            for word, count in counts.items()
        ]
        best = sorted((-score, word) for score, word in scored if score >= config.least_score)
        names.append(", ".join(word for _, word in best[: config.words]) or UNNAMED)
    several = {name for name, count in Counter(names).items() if count > 1}
    return tuple(f"{name} {place}" if name in several else name for place, name in enumerate(names))


def words_of(caption: str) -> list[str]:
    """The words of a caption that may name something, in one case: no numbers, single letters or function words."""
    return [word for word in _WORD.findall(caption.casefold()) if word not in _FUNCTION]


def _score(inside: int, size: int, outside: int, rest: int) -> float:
    """Log odds of a word inside over outside in standard errors, half a caption added to every count."""
    counts = np.array([inside, size - inside, outside, rest - outside], float) + 0.5
    odds = np.log(counts[0] / counts[1]) - np.log(counts[2] / counts[3])
    return float(odds / np.sqrt((1 / counts).sum()))


def _unit(vectors: np.ndarray) -> np.ndarray:
    x = vectors.astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _fit(x: np.ndarray, count: int, iterations: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [K, D] centres of unit vectors [n, D]: k-means++, then Lloyd's rounds."""
    centres = x[_start(x, count, rng)]
    before = np.full(len(x), -1)
    for _ in range(iterations):
        labels, cosines = assign(x, centres)
        if (labels == before).all():
            break
        before = labels
        sums = np.zeros((len(centres), x.shape[1]))
        np.add.at(sums, labels, x)
        empty = np.flatnonzero(np.bincount(labels, minlength=len(centres)) == 0)
        sums[empty] = x[np.argsort(cosines, kind="stable")[: len(empty)]]  # an empty one moves to the worst served
        centres = _unit(sums)
    return centres


def _start(x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows to start from: each is drawn in proportion to its distance from those before it."""
    chosen = [int(rng.integers(len(x)))]
    far = np.maximum(1 - x @ x[chosen[0]], 0).astype(float)
    while len(chosen) < count:
        far[chosen] = 0
        total = far.sum()
        if total > 1e-9:
            row = min(int(np.searchsorted(np.cumsum(far), rng.random() * total, side="right")), len(x) - 1)
        else:  # the rest are copies of what was chosen
            row = int(np.setdiff1d(np.arange(len(x)), chosen)[0])
        chosen.append(row)
        far = np.minimum(far, np.maximum(1 - x @ x[row], 0))
    return np.array(chosen)
