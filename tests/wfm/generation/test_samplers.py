import math

import pytest
import torch

from wfm.errors import ConfigError
from wfm.generation.samplers import SAMPLERS, karras_sigmas, sample, seeded_noise

MEAN, DEVIATION = 0.3, 0.5


def ideal(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The perfect denoiser of Gaussian data of this mean and deviation: its probability flow has a closed form."""
    return MEAN + (x - MEAN) * DEVIATION**2 / (DEVIATION**2 + sigma**2)


def exact(noise: torch.Tensor, sigma_max: float) -> torch.Tensor:
    return MEAN + (noise * sigma_max - MEAN) * DEVIATION / math.sqrt(DEVIATION**2 + sigma_max**2)


def error(name: str, steps: int) -> float:
    noise = torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigmas = karras_sigmas(steps, sigma_min=1e-4, sigma_max=80.0)
    return float((sample(name, ideal, noise, sigmas) - exact(noise, 80.0)).abs().max())


@pytest.mark.parametrize("name", SAMPLERS)
def test_converges_to_the_exact_flow(name: str) -> None:
    assert error(name, 400) < 0.02


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("res_2ab", 2)])
def test_order_of_convergence(name: str, order: int) -> None:
    seen = math.log2(error(name, 40) / error(name, 80))
    assert order - 0.35 < seen < order + 0.9


def test_one_step_is_the_denoiser_at_the_largest_sigma() -> None:
    noise = torch.randn(8, generator=torch.Generator().manual_seed(0))
    wanted = ideal(noise * 80.0, 80.0)
    for name in SAMPLERS:
        assert torch.equal(sample(name, ideal, noise, karras_sigmas(1)), wanted)


def test_network_calls_per_sampler() -> None:
    counts = {}
    for name in SAMPLERS:
        calls = []
        sample(
            name, lambda x, sigma, calls=calls: calls.append(sigma) or ideal(x, sigma), torch.zeros(1), karras_sigmas(5)
        )
        counts[name] = len(calls)
        assert calls[-1] == pytest.approx(0.002)
    assert counts == {"euler": 5, "heun": 9, "res_2ab": 5}


def test_karras_sigmas_fall_from_max_to_min() -> None:
    sigmas = karras_sigmas(7, sigma_min=0.01, sigma_max=10.0)
    assert sigmas[0] == pytest.approx(10.0)
    assert sigmas[-1] == pytest.approx(0.01)
    assert sigmas == sorted(sigmas, reverse=True)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"steps": 3, "sigma_min": 2.0, "sigma_max": 1.0}])
def test_impossible_schedules_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        karras_sigmas(**bad)  # type: ignore[arg-type]


def test_an_unknown_sampler_names_the_choices() -> None:
    with pytest.raises(ConfigError, match="euler, heun, res_2ab"):
        sample("magic", ideal, torch.zeros(1), [1.0])


def test_noise_of_a_row_depends_on_its_seed_alone() -> None:
    cpu = torch.device("cpu")
    three = seeded_noise((4, 5), [7, 8, 9], device=cpu, dtype=torch.float32)
    assert torch.equal(three[1], seeded_noise((4, 5), [8], device=cpu, dtype=torch.float32)[0])
    assert not torch.equal(three[0], three[1])
