import math

import numpy as np
import pytest
import torch

from wfm.errors import ConfigError
from wfm.generation.sampler_config import SamplerConfig
from wfm.generation.samplers import SAMPLERS, flow_sigmas, karras_sigmas, noise_levels, sample, seeded_noise

MEAN, DEVIATION = 0.3, 0.5
ORDERS = {"euler": 1, "heun": 2, "res_2ab": 2, "dpm_2m": 2, "flow_euler": 1, "flow_heun": 2}


def ideal(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The perfect denoiser of Gaussian data of this mean and deviation: its probability flow has a closed form."""
    return MEAN + (x - MEAN) * DEVIATION**2 / (DEVIATION**2 + sigma**2)


def exact(noise: torch.Tensor, sigma_max: float) -> torch.Tensor:
    return MEAN + (noise * sigma_max - MEAN) * DEVIATION / math.sqrt(DEVIATION**2 + sigma_max**2)


def levels(name: str, steps: int) -> list[float]:
    return noise_levels(SamplerConfig(sampler=name, steps=steps, sigma_min=1e-4, sigma_max=80.0))


def error(name: str, steps: int) -> float:
    noise = torch.randn(256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = sample(name, ideal, noise, levels(name, steps))
    return float((made - exact(noise, 80.0)).square().mean().sqrt())


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_order_of_convergence(name: str, order: int) -> None:
    """Slope of ln error over ln steps, least squares (measured: 0.99 to 1.00, and 2.02 to 2.08)."""
    steps = [64, 128, 256]
    slope = -np.polyfit(np.log(steps), np.log([error(name, count) for count in steps]), 1)[0]
    assert slope == pytest.approx(order, abs=0.2)
    assert error(name, 256) < 0.01
    assert set(ORDERS) == set(SAMPLERS)


def mixture_denoiser(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """E[x0 | x0 + sigma n = x] of 0.3 N(-1, 0.1^2) + 0.7 N(0.5, 0.2^2)."""
    weight, mean, deviation = (torch.tensor(v, dtype=x.dtype) for v in ([0.3, 0.7], [-1.0, 0.5], [0.1, 0.2]))
    variance = deviation**2 + sigma**2
    score = weight.log() - 0.5 * variance.log() - 0.5 * (x[..., None] - mean) ** 2 / variance
    each = mean + (x[..., None] - mean) * deviation**2 / variance
    return (score.softmax(-1) * each).sum(-1)


@pytest.mark.parametrize(("name", "steps"), [("flow_euler", 400), ("flow_heun", 100), ("res_2ab", 60), ("dpm_2m", 60)])
def test_with_the_exact_velocity_a_mixture_comes_back(name: str, steps: int) -> None:
    """Largest distance between the distribution functions of 20,000 samples and of the mixture (Kolmogorov-Smirnov;
    pure chance gives 0.0096 once in twenty times; measured: 0.0094 to 0.0105, nearly all of it the draw itself)."""
    noise = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = sample(name, mixture_denoiser, noise, levels(name, steps)).sort().values
    normal = torch.distributions.Normal(torch.tensor([-1.0, 0.5]).double(), torch.tensor([0.1, 0.2]).double())
    wanted = normal.cdf(made[:, None]) @ torch.tensor([0.3, 0.7]).double()
    found = torch.arange(1, len(made) + 1) / len(made)
    assert float((found - wanted).abs().max()) < 0.014


def test_one_step_is_the_denoiser_at_the_largest_sigma() -> None:
    noise = torch.randn(8, generator=torch.Generator().manual_seed(0))
    wanted = ideal(noise * 80.0, 80.0)
    for name in SAMPLERS:
        made = sample(name, ideal, noise, levels(name, 1))
        assert torch.allclose(made, wanted, rtol=1e-5) if name.startswith("flow_") else torch.equal(made, wanted)


def test_network_calls_per_sampler() -> None:
    counts = {}
    for name in SAMPLERS:
        calls = []
        sample(name, lambda x, s, calls=calls: calls.append(s) or ideal(x, s), torch.zeros(1), levels(name, 5))
        counts[name] = len(calls)
        assert calls[0] == pytest.approx(80.0)
        assert calls[-1] == pytest.approx(levels(name, 5)[-1])
    assert counts == {"euler": 5, "heun": 9, "res_2ab": 5, "dpm_2m": 5, "flow_euler": 5, "flow_heun": 9}


def test_eulers_step_is_the_same_point_in_both_variables() -> None:
    noise = torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, two = (sample(name, ideal, noise, karras_sigmas(9)) for name in ("euler", "flow_euler"))
    assert torch.allclose(one, two, atol=1e-12)


def test_the_network_sees_the_dtype_of_the_noise() -> None:
    seen = set()
    for name in SAMPLERS:
        made = sample(
            name, lambda x, s: seen.add(x.dtype) or ideal(x, s), torch.zeros(2, dtype=torch.bfloat16), levels(name, 3)
        )
        assert made.dtype == torch.bfloat16
    assert seen == {torch.bfloat16}


def test_karras_sigmas_fall_from_max_to_min() -> None:
    sigmas = karras_sigmas(7, sigma_min=0.01, sigma_max=10.0)
    assert sigmas[0] == pytest.approx(10.0)
    assert sigmas[-1] == pytest.approx(0.01)
    assert sigmas == sorted(sigmas, reverse=True)


def test_flow_levels_are_even_times_and_a_shift_moves_them_to_noise() -> None:
    plain, moved = (flow_sigmas(4, shift=shift, sigma_max=1e9, sigma_data=2.0) for shift in (1.0, 3.0))
    assert [s / (s + 2.0) for s in plain] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert [s / (s + 2.0) for s in moved] == pytest.approx([1.0, 0.9, 0.75, 0.5])


@pytest.mark.parametrize("bad", [{"steps": 0}, {"steps": 3, "sigma_min": 2.0, "sigma_max": 1.0}])
def test_impossible_schedules_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        karras_sigmas(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [{"steps": 0}, {"steps": 3, "shift": 0.0}, {"steps": 3, "sigma_max": -1.0}])
def test_impossible_flow_schedules_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=list(bad)[-1]):
        flow_sigmas(**bad)  # type: ignore[arg-type]


def test_an_unknown_sampler_names_the_choices() -> None:
    with pytest.raises(ConfigError, match="euler, heun, res_2ab, dpm_2m, flow_euler, flow_heun"):
        sample("magic", ideal, torch.zeros(1), [1.0])


def test_noise_of_a_row_depends_on_its_seed_alone() -> None:
    cpu = torch.device("cpu")
    three = seeded_noise((4, 5), [7, 8, 9], device=cpu, dtype=torch.float32)
    assert torch.equal(three[1], seeded_noise((4, 5), [8], device=cpu, dtype=torch.float32)[0])
    assert not torch.equal(three[0], three[1])


def test_noise_of_no_seeds_is_refused() -> None:
    # Before: RuntimeError, "stack expects a non-empty TensorList".
    with pytest.raises(ConfigError, match="no seeds"):
        seeded_noise((2,), [], device=torch.device("cpu"), dtype=torch.float32)
