"""Actions per frame -> features per latent frame, by hand."""

import pytest
import torch

from wfm.errors import ConfigError
from wfm.models.diffusion.conditioning import ActionFeatures, Conditions, accumulated, actions_by_latent, last_given


def ramp(frames: int = 9) -> torch.Tensor:
    return torch.arange(frames, dtype=torch.float32).view(1, frames, 1)


def test_actions_that_lead_to_a_latent_frame():
    groups = actions_by_latent(ramp(), 3, 4)
    assert groups[0, :, :, 0].tolist() == [[0, 0, 0, 0], [0, 1, 2, 3], [4, 5, 6, 7]]  # action 8 acts after the video


def test_one_frame_has_no_actions():
    assert actions_by_latent(ramp(1), 1, 4).abs().max() == 0


def test_accumulated_counts_from_the_last_given_frame():
    groups = actions_by_latent(ramp().repeat(3, 1, 1), 3, 4)
    total = accumulated(groups, torch.tensor([1, 2, 0]))[..., 0]
    assert total.tolist() == [[0, 6, 28], [-6, 0, 22], [0, 6, 28]]


def test_features_do_not_depend_on_actions_after_the_video():
    layer = ActionFeatures(1, 4, 24.0)
    later = ramp()
    later[:, 8] = 1000
    given = torch.tensor([1])
    assert torch.equal(layer.features(ramp(), 3, given), layer.features(later, 3, given))


def test_accumulated_feature_is_rate_times_seconds():
    layer = ActionFeatures(1, 4, 24.0)
    features = layer.features(torch.ones(1, 9, 1), 3, torch.tensor([1]))
    assert (features[0, :, 0] == 1).all()  # an action is known
    assert torch.allclose(features[0, :, 1], torch.tensor([0, 4 / 24, 8 / 24]))
    assert torch.allclose(features[0, 2, 2], torch.sin(torch.tensor(8 / 24)))
    assert features.shape[-1] == len(layer.null)


def test_the_null_action_is_learned_and_takes_the_place_of_what_is_not_known():
    layer = ActionFeatures(2, 4, 24.0)
    torch.nn.init.normal_(layer.null)
    given, actions = torch.tensor([1, 1]), torch.randn(2, 9, 2)
    none, mixed = layer(None, None, 3, given), layer(actions, torch.tensor([True, False]), 3, given)
    assert torch.equal(none, layer.null.expand(2, 3, -1))
    assert torch.equal(mixed[1], none[1])
    assert torch.equal(mixed[0], layer(actions, None, 3, given)[0])
    assert not torch.equal(mixed[0], none[0])
    mixed.sum().backward()
    assert (layer.null.grad == 3).all()


def test_last_given_frame():
    past = torch.arange(12.0).view(3, 1, 4, 1, 1)
    assert last_given(past, torch.tensor([1, 4, 0])).flatten().tolist() == [0, 7, 0]


def test_the_unconditional_twin_keeps_the_frames():
    one = Conditions(
        past=torch.ones(1), given=2, text=torch.ones(2), actions=torch.ones(3), known=torch.ones(4), fps=24.0
    )
    both, told = one.without("text", "actions"), one.without("text", text=torch.zeros(5))
    assert (both.text, both.actions, both.known) == (None, None, None)
    assert both.past is one.past
    assert (both.given, both.fps) == (2, 24.0)
    assert told.actions is one.actions
    assert len(told.text) == 5
    with pytest.raises(ConfigError, match="text, actions"):
        one.without("past")
