"""Does the action matter, and does the right one matter rightly? The same past and seeds, once with another window's
action."""

import numpy as np

from wfm.actions import ActionSpec
from wfm.evaluation.bootstrap import Bootstrap
from wfm.evaluation.schema import ActionSensitivity, Gain
from wfm.evaluation.subsets import Subset


def actions_differ(
    right: np.ndarray, shuffled: np.ndarray, spec: ActionSpec, past_frames: int, tolerance: float
) -> np.ndarray:
    """bool [N]: the two action tracks [N, T, A] differ after the last given frame by more than `tolerance` scales
    (RMS over T and A)."""
    apart = (spec.normalise(right) - spec.normalise(shuffled))[:, past_frames - 1 : -1]
    return np.sqrt(np.mean(np.square(apart), axis=(1, 2))) > tolerance


def action_sensitivity(
    right: str,
    shuffled: str,
    videos: dict[str, np.ndarray],
    psnr_db: dict[str, np.ndarray],
    differ: np.ndarray,
    sessions: list[str],
    subsets: list[Subset],
    *,
    resamples: int,
    seed: int,
) -> ActionSensitivity:
    """Compare variant `right` with variant `shuffled` where the actions differ.

    Args: `videos` uint8 [N, T, H, W, 3] predicted frames; `psnr_db` [N] of each variant; `differ` bool [N] from
    `actions_differ`.
    """
    count = int(differ.sum())
    if not count:
        empty = {"outputs_differ": None, "mean_difference": None, "psnr_gain_db": None, "share_of_windows": None}
        reason = "no window got an action that differs from its own"
        return ActionSensitivity(
            right=right, shuffled=shuffled, windows=len(differ), windows_with_another_action=0, absent=reason, **empty
        )
    gain = psnr_db[right] - psnr_db[shuffled]  # [N]
    apart = np.abs(videos[right].astype(np.int16) - videos[shuffled].astype(np.int16)).mean((1, 2, 3, 4))

    def drawn(mask: np.ndarray) -> Bootstrap:
        return Bootstrap([sessions[i] for i in np.flatnonzero(mask)], resamples=resamples, seed=seed)

    by_subset = {}
    for subset in subsets:
        mask = subset.mask & differ
        if mask.any():
            bootstrap = drawn(mask)
            by_subset[subset.name] = Gain(
                psnr_gain_db=bootstrap.mean(gain[mask]),
                share_of_windows=bootstrap.mean((gain[mask] > 0).astype(float), share=True),
                ssim_gain=None,
            )
    every = drawn(differ)
    return ActionSensitivity(
        right=right,
        shuffled=shuffled,
        windows=len(differ),
        windows_with_another_action=count,
        outputs_differ=every.mean((apart[differ] > 0).astype(float), share=True),
        mean_difference=every.mean(apart[differ]),
        psnr_gain_db=every.mean(gain[differ]),
        share_of_windows=every.mean((gain[differ] > 0).astype(float), share=True),
        by_subset=by_subset,
    )
