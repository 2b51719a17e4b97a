"""The EDM objective: its randomness belongs to the sample, its options do what they say, and a small model learns."""

import pytest
import torch

from wfm.errors import ConfigError
from wfm.models.diffusion import DiffusionConfig, DiffusionTransformer, EDMConfig, EDMObjective

CONFIG = DiffusionConfig(
    in_channels=3, num_attention_heads=2, attention_head_dim=12, num_layers=1, adaln_lora_dim=4, action_width=1,
    temporal_compression=4,
)  # fmt: skip
SHAPE = torch.Size((3, 3, 4, 4))


def model() -> DiffusionTransformer:
    torch.manual_seed(0)
    return DiffusionTransformer(CONFIG)


def batch(seeds=(1, 2, 3, 4)) -> dict:
    generator = torch.Generator().manual_seed(0)
    count = len(seeds)
    return {
        "latents": torch.randn(count, *SHAPE, generator=generator),
        "actions": torch.randn(count, 9, 1, generator=generator),
        "seeds": torch.tensor(seeds),
    }


def draw(count: int = 4000, **values) -> dict:
    return EDMObjective(EDMConfig(**values)).draw(torch.arange(count), torch.Size((1, 1, 1, 1)))


def test_a_sample_draws_the_same_in_any_batch():
    objective = EDMObjective(EDMConfig())
    alone, together = objective.draw(torch.tensor([7]), SHAPE), objective.draw(torch.tensor([3, 7]), SHAPE)
    for name, value in alone.items():
        assert torch.equal(value[0], together[name][1])
        assert name in ("given", "known") or not torch.equal(together[name][0], together[name][1])


def test_loss_is_a_function_of_the_batch():
    objective = EDMObjective(EDMConfig())
    torch.manual_seed(1)
    first = objective.loss(model(), batch(), 0)[0]
    torch.manual_seed(2)
    assert torch.equal(objective.loss(model(), batch(), 0)[0], first)
    assert not torch.equal(objective.loss(model(), batch((5, 6, 7, 8)), 0)[0], first)


def test_an_untrained_model_has_loss_one():
    """F = 0 predicts c_skip x, whose weighted error is the variance of the data over sd^2: 1 in expectation."""
    network = model()
    objective, losses = EDMObjective(EDMConfig(condition_latents=(0,))), []
    for start in range(0, 400, 4):
        one = batch(range(start, start + 4))
        one["latents"] = (one["latents"] - one["latents"].mean()) / one["latents"].std()
        losses.append(float(objective.loss(network, one, 0)[0].detach()))
    assert sum(losses) / len(losses) == pytest.approx(1.0, abs=0.05)


def test_given_frames_cost_nothing():
    objective = EDMObjective(EDMConfig(condition_latents=(3,)))  # everything given: nothing left to be wrong about
    one = batch()
    assert float(objective.loss(model(), one, 0)[0].detach()) == 0


def test_options_do_what_they_say():
    assert (draw(pure_noise_probability=0.25)["sigma"] == 80).float().mean() == pytest.approx(0.25, abs=0.03)
    assert (draw(pure_noise_probability=1.0, sigma_max=20.0)["sigma"] == 20).all()
    quiet = draw(pure_noise_probability=0.0, noise_mean=-1.0, noise_std=0.5)["sigma"].log()
    assert float(quiet.mean()) == pytest.approx(-1.0, abs=0.05)
    assert float(quiet.std()) == pytest.approx(0.5, abs=0.05)
    assert (~draw(action_dropout=0.3)["known"]).float().mean() == pytest.approx(0.3, abs=0.03)
    counts = draw(condition_latents=(0, 2))["given"]
    assert set(counts.tolist()) == {0, 2}
    assert (counts == 2).float().mean() == pytest.approx(0.5, abs=0.04)
    loud, soft = (draw(augment_mean=m)["augment"].abs().mean() for m in (0.0, -4.0))
    assert loud > 20 * soft


def test_samples_without_actions_see_the_null_action():
    network = model()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    objective = EDMObjective(EDMConfig(action_dropout=0.0))
    one = {**batch(), "has_actions": torch.zeros(4, dtype=torch.bool)}
    other = {**one, "actions": one["actions"] + 5}
    assert torch.equal(objective.loss(network, one, 0)[0], objective.loss(network, other, 0)[0])
    one["has_actions"] = other["has_actions"] = torch.ones(4, dtype=torch.bool)
    assert not torch.equal(objective.loss(network, one, 0)[0], objective.loss(network, other, 0)[0])


def test_it_learns():
    """A world that repeats its past: the loss at pure noise falls far below 1, the loss of a blind guess."""
    network = model()
    objective = EDMObjective(EDMConfig(pure_noise_probability=1.0, condition_latents=(1,)))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    data = torch.randn(8, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 3, -1, -1) * 0.9
    for step in range(120):
        one = {"latents": data, "seeds": torch.arange(8) + 8 * step}
        loss = objective.loss(network, one, step)[0]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.3


def test_config_refuses_nonsense():
    with pytest.raises(ConfigError, match="condition_latents"):
        EDMConfig.parse({"condition_latents": []})
