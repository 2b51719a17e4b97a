"""Kernel distance: the unbiased squared maximum mean discrepancy between predicted and true clips.

Gretton et al. 2012, eq. 5 (U-statistic), with the polynomial kernel of KID (Binkowski et al. 2018). It compares two
*sets* of clips, so it sees a prediction that is plausible but not this future, and a habit (blur, stillness) that all
predictions share. It may be negative: zero is its mean when the two sets are alike.
"""

import numpy as np

from wfm.evaluation.metric import Clips, SetMetric


def _kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Polynomial kernel of degree 3 [N, M], KID's: (x.y / D + 1)^3."""
    return (left @ right.T / left.shape[1] + 1.0) ** 3


def _pair_terms(
    features: np.ndarray, truth: np.ndarray, codes: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the terms h(i, j), by group of i and group of j [G, G], same-group pairs left out."""
    x, y = features.astype(np.float64), truth.astype(np.float64)
    cross = _kernel(x, y)
    terms = _kernel(x, x) + _kernel(y, y) - cross - cross.T  # [N, N]
    member = np.eye(groups)[codes]  # [N, G]
    sums, counts = member.T @ terms @ member, np.outer(member.sum(0), member.sum(0))
    np.fill_diagonal(sums, 0.0)
    np.fill_diagonal(counts, 0.0)
    return sums, counts


def kernel_distance(
    features: np.ndarray, truth: np.ndarray, groups: list[str]
) -> tuple[float, float | None, float | None] | None:
    """(distance, low, high): unbiased MMD^2 and its 95 % interval; None with fewer than three clips.

    Args: `features`, `truth` [N, D], row i of one made from the past of row i of the other, on a scale that does not depend
    on them (`descriptor_scale.standardise`); `groups` [N] sessions.
    Row i and row i of the other set are not independent, nor are clips of one session: such pairs are left out, on
    all three sides, so the estimate stays unbiased. The interval is by the jackknife over sessions (a bootstrap would
    draw pairs of a clip with itself, which bias it). With fewer than three sessions each clip is its own group, and there
    is no interval (None): clips of one session do not witness how sessions differ.
    """
    from scipy.special import stdtrit

    if len(features) < 3:
        return None
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    clustered = len(names) >= 3
    if not clustered:
        codes = np.arange(len(features))
    number = int(codes.max()) + 1
    sums, counts = _pair_terms(features, truth, codes, number)
    total, pairs = sums.sum(), counts.sum()
    distance = float(total / pairs)
    if not clustered:
        return distance, None, None
    without = (total - sums.sum(0) - sums.sum(1)) / (pairs - counts.sum(0) - counts.sum(1))  # [G]
    spread = float(np.sqrt((number - 1) / number * np.sum((without - without.mean()) ** 2)))
    half = float(stdtrit(number - 1, 0.975)) * spread
    return distance, distance - half, distance + half


def _describe(clips: Clips) -> np.ndarray:
    from wfm.evaluation.descriptor_scale import standardise
    from wfm.evaluation.features import clip_descriptor

    return standardise(clip_descriptor(clips.maps, len(clips.video)).numpy())


METRIC = SetMetric(
    name="kernel_distance",
    title="kernel distance",
    better="lower",
    definition="unbiased MMD^2, cubic polynomial kernel, on clip descriptors of the same net; 0 = alike",
    describe=_describe,
    compare=kernel_distance,
    place=40,
)
