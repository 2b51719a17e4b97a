"""Actions per frame -> features per latent frame, by hand."""

import torch

from wfm.conditions.action import FREQUENCIES, feature_width
from wfm.conditions.action_features import ActionFeatures, accumulated, actions_by_latent
from wfm.models.slots import Place


def ramp(frames: int = 9) -> torch.Tensor:
    return torch.arange(frames, dtype=torch.float32).view(1, frames, 1)


def test_actions_that_lead_to_a_latent_frame() -> None:
    groups = actions_by_latent(ramp(), 3, 4)
    assert groups[0, :, :, 0].tolist() == [[0, 0, 0, 0], [0, 1, 2, 3], [4, 5, 6, 7]]  # action 8 acts after the video


def test_one_frame_has_no_actions() -> None:
    assert actions_by_latent(ramp(1), 1, 4).abs().max() == 0


def test_accumulated_counts_from_the_last_given_frame() -> None:
    groups = actions_by_latent(ramp().repeat(3, 1, 1), 3, 4)
    total = accumulated(groups, torch.tensor([1, 2, 0]))[..., 0]
    assert total.tolist() == [[0, 6, 28], [-6, 0, 22], [0, 6, 28]]


def features(actions: torch.Tensor) -> torch.Tensor:
    found = ActionFeatures(1, 4, 24.0, FREQUENCIES)({"actions": actions}, Place(3, torch.tensor([1])))
    assert isinstance(found, torch.Tensor)
    return found


def test_features_do_not_depend_on_actions_after_the_video() -> None:
    later = ramp()
    later[:, 8] = 1000
    assert torch.equal(features(ramp()), features(later))


def test_accumulated_feature_is_rate_times_seconds() -> None:
    found = features(torch.ones(1, 9, 1))
    assert torch.allclose(found[0, :, 0], torch.tensor([0, 4 / 24, 8 / 24]))
    assert torch.allclose(found[0, 2, 1], torch.sin(torch.tensor(8 / 24)))
    assert found.shape[-1] == feature_width(1, 4)
