"""The closed-form prior: it finds linear worlds exactly and leaves plain EDM alone when unfitted."""

import pytest
import torch

from wfm.models.diffusion import Conditions
from wfm.models.diffusion.prior import LinearPrior


def fitted(latents: torch.Tensor) -> LinearPrior:
    prior = LinearPrior(latents.shape[1], 6, 0.5)
    prior.fit(latents)
    return prior


def test_unfitted_it_is_plain_edm():
    prior = LinearPrior(3, 4, 0.5)
    mean, deviation = prior(torch.randn(2, 3, 4, 5, 5), torch.tensor([1, 2]))
    assert mean.abs().max() == 0
    assert (deviation == 0.5).all()


def test_it_finds_a_linear_world():
    """Frame i + 1 = A frame i with its own A, so lag j must become A^j; the first frame's code differs by a
    factor."""
    torch.manual_seed(0)
    step = torch.linalg.qr(torch.randn(3, 3))[0] * 0.9
    frames = [torch.randn(200, 3, 6, 6)]
    for _ in range(4):
        frames.append(torch.einsum("ij,njhw->nihw", step, frames[-1]))
    latents = torch.stack(frames, dim=2)
    latents[:, :, 0] *= 2
    prior = fitted(latents)
    for given in (1, 2, 3):
        condition = latents.clone()
        condition[:, :, given:] = 99.0  # must not be read
        mean, deviation = prior(condition, torch.full((200,), given))
        error = (mean - latents)[:, :, given:]
        assert error.abs().max() < 0.02
        assert deviation[:, :, given:].max() <= 0.0101  # the floor


def test_it_uses_the_neighbourhood():
    wide = torch.randn(200, 2, 8, 9)
    latents = torch.stack([wide[..., i : i + 6] for i in range(3)], dim=2)  # the world slides by one place a frame
    prior = fitted(latents)
    mean, _ = prior(latents, torch.full((200,), 1))
    error = (mean - latents)[:, :, 1, :, :-1]  # what comes in from outside cannot be known
    assert error.square().mean() < 0.05 * latents.square().mean()


def test_deviation_is_what_is_left():
    torch.manual_seed(0)
    first = torch.randn(300, 2, 6, 6)
    noise = torch.tensor([0.1, 0.4]).view(1, 2, 1, 1)
    latents = torch.stack(
        [first, first + noise * torch.randn_like(first), first + 2 * noise * torch.randn_like(first)], 2
    )
    deviation = fitted(latents)(latents, torch.full((300,), 1))[1][0, :, 1:, 0, 0]
    assert torch.allclose(deviation, torch.tensor([[0.1, 0.2], [0.4, 0.8]]), rtol=0.05)


def test_longer_futures_take_the_longest_lag():
    prior = fitted(torch.randn(50, 2, 3, 4, 4))
    assert torch.equal(prior.weight[0, 2], prior.weight[0, 1])
    assert torch.equal(prior.deviation[1, 5], prior.deviation[1, 0])


def test_nothing_given_nothing_known():
    prior = fitted(torch.randn(50, 2, 3, 4, 4) + 3)
    mean, deviation = prior(torch.randn(1, 2, 3, 4, 4), torch.tensor([0]))
    assert mean.abs().max() == 0
    assert (deviation == 0.5).all()


@pytest.mark.parametrize("objective", ["edm", "flow"])
def test_an_untrained_model_with_a_prior_predicts_it(denoiser, objective):
    """From pure noise, EDM's answer 0 means the guess itself; the flow's, no velocity, means that the noise stays."""
    model = denoiser(objective=objective, linear_prior=True, shaken=False, network={"zero_output": True})
    torch.manual_seed(0)
    latents, noise = torch.randn(50, 3, 4, 4, 4) * 0.5, torch.randn(50, 3, 4, 4, 4)
    model.prior.fit(latents)
    with torch.no_grad():
        out = model.denoise(noise * 8000, 8000.0, Conditions({"past": latents / 0.5, "given": torch.tensor(2)}))
    mean, deviation = model.prior(latents, torch.full((50,), 2))
    wanted = mean + (deviation * noise if objective == "flow" else 0)
    assert torch.allclose(out[:, :, 2:], wanted[:, :, 2:], atol=0.005)
    assert any(name.startswith("prior.") for name in model.state_dict())


def test_it_takes_a_good_guess_and_corrects_it():
    """The truth is the extrapolation of the same frame, brightened: nothing of the last given frame is needed."""
    torch.manual_seed(0)
    extrapolated = torch.randn(200, 3, 5, 6, 6)
    latents = 1.5 * extrapolated
    prior = LinearPrior(3, 6, 0.5, extrapolated=True)
    prior.fit(latents, extrapolated=extrapolated, given=2)
    condition = torch.cat([latents[:, :, :2], extrapolated[:, :, 2:]], dim=2)
    mean, deviation = prior(condition, torch.full((200,), 2))
    assert (mean - latents)[:, :, 2:].abs().max() < 0.02
    assert deviation[:, :, 2:].max() <= 0.0101


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("extrapolated", [False, True])
def test_a_model_in_half_answers_a_state_in_fp32(dtype, extrapolated):
    # As samplers ask; before: "expected scalar type Float but found BFloat16".
    prior, latents, given = (
        LinearPrior(3, 4, 0.5, extrapolated=extrapolated),
        torch.randn(2, 3, 4, 5, 5),
        torch.tensor([1, 2]),
    )
    torch.nn.init.normal_(prior.weight, std=0.2)
    wanted, (mean, _) = prior(latents, given)[0], prior.to(dtype)(latents, given)
    assert mean.dtype == torch.float32
    assert (mean - wanted).norm() < 0.01 * wanted.norm()
