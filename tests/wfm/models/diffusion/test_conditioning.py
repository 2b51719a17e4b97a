"""Actions per frame -> features per latent frame, by hand."""

import torch

from wfm.models.diffusion.conditioning import ActionConditioning, accumulated, actions_by_latent


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
    layer = ActionConditioning(1, 8, 4, 24.0)
    later = ramp()
    later[:, 8] = 1000
    given = torch.tensor([1])
    assert torch.equal(layer.features(ramp(), 3, given), layer.features(later, 3, given))


def test_accumulated_feature_is_rate_times_seconds():
    layer = ActionConditioning(1, 8, 4, 24.0)
    features = layer.features(torch.ones(1, 9, 1), 3, torch.tensor([1]))
    assert torch.allclose(features[0, :, 0], torch.tensor([0, 4 / 24, 8 / 24]))
    assert torch.allclose(features[0, 2, 1], torch.sin(torch.tensor(8 / 24)))


def test_null_action_is_learned():
    layer = ActionConditioning(0, 8, 4, 24.0)
    embedding, lora = layer(None, None, 3, torch.tensor([1, 1]))
    assert embedding.shape == (2, 3, 8)
    assert lora.shape == (2, 3, 24)
    (embedding.sum() + lora.sum()).backward()
    assert (layer.null.grad != 0).all()
