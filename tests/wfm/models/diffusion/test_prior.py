"""The closed-form prior: it finds linear worlds exactly and leaves plain EDM alone when unfitted."""

import pytest
import torch

from wfm.models.diffusion import Conditions
from wfm.models.diffusion.prior import KINDS, LinearPrior, PriorFit, _neighbourhood


def fitted(latents: torch.Tensor) -> LinearPrior:
    prior = LinearPrior(latents.shape[1], 6, 0.5)
    return fit(prior, [(latents,)])


def fit(prior: LinearPrior, windows, **how) -> LinearPrior:
    fitting = PriorFit(prior, **how)
    for each in windows:
        fitting.add(*each)
    fitting.finish()
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
    fit(model.prior, [(latents,)])
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
    fit(prior, [(latents, extrapolated)], given=2)
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


def at_once(
    prior: LinearPrior, latents: torch.Tensor, extrapolated: torch.Tensor | None = None, given: int = 0
) -> None:
    """The plain twin: every row of every window in memory, in fp64."""
    frames = latents.shape[2]
    for kind in range(KINDS) if extrapolated is None else [int(given > 1)]:
        for lag in range(1, min(prior.max_lag, frames - (1 + kind if extrapolated is None else given)) + 1):
            lasts = [given - 1] if extrapolated is not None else [0] if kind == 0 else range(1, frames - lag)
            rows, goals = [], []
            for last in lasts:
                near = [_neighbourhood(latents[:, :, last])]
                if extrapolated is not None:
                    near.append(_neighbourhood(extrapolated[:, :, last + lag]))
                rows.append(torch.cat(near, dim=1).transpose(1, 2).flatten(0, 1).double())
                goals.append(latents[:, :, last + lag].flatten(2).transpose(1, 2).flatten(0, 1).double())
            seen, wanted = torch.cat(rows), torch.cat(goals)
            seen = torch.cat([seen, torch.ones(len(seen), 1).double()], dim=1)
            damping = 1e-4 * len(seen) * torch.eye(seen.shape[1]).double()
            solution = torch.linalg.solve(seen.T @ seen + damping, seen.T @ wanted)
            prior.weight[kind, lag - 1 :], prior.bias[kind, lag - 1 :] = solution[:-1].T.float(), solution[-1].float()
            deviation = (wanted - seen @ solution).square().mean(0).sqrt().float()
            prior.deviation[kind, lag - 1 :] = deviation.clamp(min=0.02 * prior.sigma_data)


@pytest.mark.parametrize("extrapolated", [False, True])
def test_one_pass_in_batches_is_the_fit_of_all_at_once(extrapolated):
    torch.manual_seed(0)
    latents = torch.randn(120, 2, 4, 5, 5).cumsum(2) * 0.4
    shown = latents + 0.2 * torch.randn_like(latents) if extrapolated else None
    one, two, short = (LinearPrior(2, 4, 0.5, extrapolated=extrapolated) for _ in range(3))
    at_once(one, latents, shown, given=2 * extrapolated)
    for prior, count in ((two, 120), (short, 90)):
        pieces = zip(latents[:count].split(30), *([shown[:count].split(30)] if extrapolated else []), strict=True)
        fit(prior, pieces, given=2 * extrapolated)

    def apart(other: LinearPrior) -> float:
        return max(
            float((getattr(one, name) - getattr(other, name)).abs().max()) for name in ("weight", "bias", "deviation")
        )

    assert apart(two) < 5e-6  # measured: 1.2e-6; weights are about 1
    assert apart(short) > 1e-3, "a pass that loses a batch is told from one that does not"


def test_windows_of_several_lengths_are_fitted_together():
    torch.manual_seed(0)
    long = torch.randn(60, 2, 4, 4, 4).cumsum(2)
    both = fit(LinearPrior(2, 6, 0.5), [(long[:30],), (long[30:, :, :1],), (long[30:, :, :3, :2],)])
    assert torch.equal(both.weight[0, 2], fitted(long[:30]).weight[0, 2]), "only the long ones have this lag"
    assert not torch.equal(both.weight[0, 1], fitted(long[:30]).weight[0, 1])
    images = fit(LinearPrior(2, 6, 0.5), [(long[:, :, :1],)])
    assert torch.equal(images.deviation, LinearPrior(2, 6, 0.5).deviation), "nothing follows an image"
