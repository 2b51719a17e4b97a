import numpy as np
import pytest

from wfm.evaluation.action_sensitivity import action_sensitivity, actions_differ
from wfm.evaluation.config import SubsetConfig
from wfm.evaluation.metrics.psnr import psnr_per_frame
from wfm.evaluation.subsets import subsets

PAST = 5


def judge(made, shuffled: np.ndarray, differ: np.ndarray | None = None):
    truth = made.truth[:, PAST:]
    videos = {"sampled": made.videos["sampled"][:, PAST:], "shuffled_action": shuffled}
    psnr = {name: psnr_per_frame(video, truth).mean(1) for name, video in videos.items()}
    if differ is None:
        differ = actions_differ(made.actions, made.shuffled_actions, made.spec, PAST, 0.05)
    parts = subsets(made.moving, made.actions, made.spec, PAST, SubsetConfig())
    return action_sensitivity(
        "sampled", "shuffled_action", videos, psnr, differ, made.sessions, parts, resamples=200, seed=0
    )


def test_a_model_that_obeys_is_seen_to(make):
    made = make(12)
    found = judge(made, made.videos["shuffled_action"][:, PAST:])
    assert found.outputs_differ.mean == 1.0
    assert found.psnr_gain_db.low > 0
    assert found.share_of_windows.mean == 1.0
    assert found.by_subset["fixed_rate"].psnr_gain_db.mean > 0


def test_a_model_that_ignores_its_action_is_caught(make):
    made = make(12)
    found = judge(made, made.videos["sampled"][:, PAST:])
    assert found.outputs_differ.mean == 0.0
    assert found.mean_difference.mean == 0.0
    assert found.psnr_gain_db.mean == 0.0
    assert found.share_of_windows.mean == 0.0


def test_only_windows_with_another_action_count(make):
    made = make(12)
    same = made.actions.copy()
    same[:4] = made.shuffled_actions[:4]
    differ = actions_differ(same, made.shuffled_actions, made.spec, PAST, 0.05)
    assert not differ[:4].any()
    found = judge(made, made.videos["shuffled_action"][:, PAST:], differ)
    assert found.windows_with_another_action == differ.sum() < 12


def test_a_difference_before_the_prediction_is_none(make):
    made = make(3)
    other = made.actions.copy()
    other[:, : PAST - 1] += 100
    other[:, -1] += 100  # acts after the last frame
    assert not actions_differ(made.actions, other, made.spec, PAST, 0.05).any()
    other[:, PAST - 1] += 100  # acts between the last given and the first predicted frame
    assert actions_differ(made.actions, other, made.spec, PAST, 0.05).all()


def test_nothing_to_compare_is_absent_with_a_reason(make):
    made = make(3)
    found = judge(made, made.videos["sampled"][:, PAST:], np.zeros(3, dtype=bool))
    assert found.psnr_gain_db is None
    assert found.absent


@pytest.mark.parametrize("count", [1, 2])
def test_few_windows_still_give_figures(make, count):
    made = make(count, sessions=1)
    found = judge(made, made.videos["shuffled_action"][:, PAST:], np.ones(count, dtype=bool))
    assert found.psnr_gain_db is not None
