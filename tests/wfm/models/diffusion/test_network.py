"""The diffusion transformer: shapes, the given past, actions, preconditioning."""

import pytest
import torch

from wfm.errors import ConfigError
from wfm.models.diffusion import DiffusionConfig, DiffusionTransformer
from wfm.models.diffusion.network import given_mask

SMALL = {
    "in_channels": 3, "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "adaln_lora_dim": 4,
    "action_width": 2, "temporal_compression": 4,
}  # fmt: skip


def make(**more) -> DiffusionTransformer:
    torch.manual_seed(0)
    model = DiffusionTransformer(DiffusionConfig.parse({**SMALL, **more}))
    for name, parameter in model.named_parameters():  # zero-initialised layers would hide every effect
        if float(parameter.detach().abs().max()) == 0:
            torch.nn.init.normal_(parameter, std=0.1 if "null" in name else 0.3)
    return model.eval()


def inputs(frames: int = 4) -> dict:
    generator = torch.Generator().manual_seed(1)
    return {
        "noisy": torch.randn(2, 3, frames, 4, 6, generator=generator),
        "condition": torch.randn(2, 3, frames, 4, 6, generator=generator),
        "actions": torch.randn(2, 1 + 4 * (frames - 1), 2, generator=generator),
    }


@torch.no_grad()
def denoise(model, given=1, sigma=1.0, **more):
    batch = {**inputs(), **more}
    return model.denoise(batch.pop("noisy"), sigma, given=given, **batch)


def test_given_frames_come_back_as_they_are():
    out = denoise(make(), given=2)
    assert out.shape == (2, 3, 4, 4, 6)
    assert torch.equal(out[:, :, :2], inputs()["condition"][:, :, :2])
    assert not torch.equal(out[:, :, 2:], inputs()["condition"][:, :, 2:])


def test_only_given_frames_of_the_condition_are_read():
    model = make()
    condition = inputs()["condition"].clone()
    condition[:, :, 2:] = 99.0
    assert torch.equal(denoise(model, given=2), denoise(model, given=2, condition=condition))


def test_the_past_matters_and_noise_on_given_frames_does_not():
    model = make()
    condition = inputs()["condition"].clone()
    condition[:, :, 0] += 1
    assert not torch.allclose(denoise(model, given=2)[:, :, 2:], denoise(model, given=2, condition=condition)[:, :, 2:])
    noisy = inputs()["noisy"].clone()
    noisy[:, :, 0] += 1
    assert torch.equal(denoise(model, given=1), denoise(model, given=1, noisy=noisy))


def test_repeat_last_changes_what_it_claims_to():
    with_it, without = make(), make(repeat_last=False)
    assert with_it.patch_embed.proj.in_features == (2 * 3 + 1) * 4
    assert without.patch_embed.proj.in_features == (3 + 1) * 4
    assert denoise(without).shape == denoise(with_it).shape


def test_rope_options_change_what_they_claim_to():
    plain = denoise(make())
    for change in ({"rope_theta": 100.0}, {"rope_scale": [2.0, 1.0, 1.0]}):
        assert not torch.allclose(denoise(make(**change)), plain)


def test_actions_matter_each_for_its_own_sample():
    model = make()
    actions = inputs()["actions"].clone()
    actions[0, 6] += 1
    before, after = denoise(model), denoise(model, actions=actions)
    assert not torch.allclose(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_unknown_actions_are_the_null_action():
    model = make()
    none = denoise(model, actions=None)
    masked = denoise(model, known=torch.tensor([False, True]))
    assert torch.allclose(none[0], masked[0], atol=1e-6)
    assert torch.allclose(masked[1], denoise(model)[1], atol=1e-6)
    assert not torch.allclose(none[1], masked[1])


def test_numbers_of_given_frames_differ_within_a_batch():
    model = make()
    mixed = denoise(model, given=torch.tensor([1, 3]))
    assert torch.allclose(mixed[0], denoise(model, given=1)[0], atol=1e-5)
    assert torch.allclose(mixed[1], denoise(model, given=3)[1], atol=1e-5)
    assert denoise(model, given=0).isfinite().all()


def test_preconditioning_limits():
    model = make()
    quiet = denoise(model, sigma=1e-4)
    assert torch.allclose(quiet[:, :, 1:], inputs()["noisy"][:, :, 1:], atol=1e-2)  # nothing to remove
    loud = denoise(model, sigma=80.0, noisy=inputs()["noisy"] * 80)
    assert loud[:, :, 1:].std() < 5  # a guess in the units of data, not of noise


def test_normalise_uses_two_columns():
    model = make()
    mean, std = torch.randn(3, 2), torch.rand(3, 2) + 0.5
    model.set_statistics(mean, std)
    latents = torch.randn(2, 3, 4, 4, 6)
    units = model.normalise(latents)
    assert torch.allclose(model.denormalise(units), latents, atol=1e-5)
    assert torch.allclose(units[0, 1, 0], (latents[0, 1, 0] - mean[1, 0]) / std[1, 0] / 2, atol=1e-5)
    assert torch.allclose(units[0, 1, 3], (latents[0, 1, 3] - mean[1, 1]) / std[1, 1] / 2, atol=1e-5)
    assert {"latents_mean", "latents_std"} <= set(model.state_dict())


def test_a_fresh_model_predicts_nothing():
    model = DiffusionTransformer(DiffusionConfig.parse(SMALL))
    batch = inputs()
    with torch.no_grad():
        out = model(batch["noisy"], torch.zeros(2), condition=batch["condition"], given=torch.tensor([1, 1]))
    assert out.abs().max() == 0


def test_patch_order_is_kept():
    """Un-patching the head's tokens puts every value at the place its token came from."""
    model = make()
    grid = (1, 2, 3)
    tokens = torch.arange(6.0).view(1, 1, 6, 1).expand(1, 1, 6, 12)
    out = model._unpatch(tokens, grid)
    assert out.shape == (1, 3, 1, 4, 6)
    assert out[0, 0, 0, ::2, ::2].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_open_gates_start_near_one_and_closed_ones_near_zero():
    found = []
    for opened in (True, False):
        torch.manual_seed(0)
        model = DiffusionTransformer(DiffusionConfig.parse({**SMALL, "open_gates": opened}))
        embedding, lora = model.time_embed(torch.tensor([-1.0, 0.0, 1.0])[:, None])
        found.append(model.transformer_blocks[0].norm1.modulation(embedding, lora)[2].detach())
    assert torch.allclose(found[0], torch.ones_like(found[0]), atol=0.35)
    assert found[1].abs().max() < 0.1


def test_wrong_sizes_are_refused():
    model = make()
    with pytest.raises(ConfigError, match="3 components given"):
        denoise(model, actions=torch.zeros(2, 13, 3))
    with pytest.raises(ConfigError, match="12 needed"):
        denoise(model, actions=torch.zeros(2, 11, 2))
    with pytest.raises(ConfigError, match="patch_size"):
        DiffusionConfig.parse({"patch_size": [2, 2, 2]})


def test_given_mask():
    assert given_mask(torch.tensor([0, 2]), 3)[:, 0, :, 0, 0].tolist() == [[False] * 3, [True, True, False]]
