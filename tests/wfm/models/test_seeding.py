import numpy as np
import pytest
import torch

from wfm.errors import ConfigError
from wfm.families.autoregressive.decoding import TopP
from wfm.generation.samplers import seeded_noise
from wfm.models.autoregressive.config import AutoregressiveObjectiveConfig
from wfm.models.autoregressive.objective import AutoregressiveObjective
from wfm.models.seeding import check_seed, seed_everything, seeded_generator
from wfm.models.slots import SlotConfig

LARGE = (7 + 2**32, 7 + 2**33, 7 + 2**63)
"""Seeds that are alike in their lower half, and like 7."""


def numbers(seed: int) -> torch.Tensor:
    return torch.randn(50, generator=seeded_generator(seed))


def test_every_bit_of_a_seed_counts():
    # Before: all of these drew the numbers of seed 7.
    drawn = [numbers(seed) for seed in (7, *LARGE)]
    assert len({tuple(row.tolist()) for row in drawn}) == 4
    long = torch.stack([torch.randn(20000, generator=seeded_generator(seed)) for seed in LARGE])
    assert float((torch.corrcoef(long) - torch.eye(3)).abs().max()) < 0.03


@pytest.mark.parametrize("seed", [0, 7, 2**31, 2**32 - 1])
def test_seeds_of_32_bits_draw_what_they_always_drew(seed):
    assert torch.equal(numbers(seed), torch.randn(50, generator=torch.Generator().manual_seed(seed)))


def test_a_large_seed_draws_the_numbers_of_numpys_twister_in_the_same_state():
    words = torch.empty(700, dtype=torch.int32).random_(generator=seeded_generator(LARGE[0]))
    twister, key = np.random.MT19937(), np.random.SeedSequence(LARGE[0]).generate_state(624)
    key[0] = 0x80000000
    twister.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": 624}}
    assert words.tolist() == (twister.random_raw(700) % 2**31).tolist()


def test_large_seeds_draw_as_evenly_as_small_ones():
    drawn = torch.stack([torch.randn(100, generator=seeded_generator(2**40 + i)) for i in range(500)])
    assert abs(float(drawn.mean())) < 0.02
    assert float(drawn.std()) == pytest.approx(1, abs=0.02)


def test_torchs_own_generators_take_it_whole_too():
    with torch.random.fork_rng():
        drawn = []
        for seed in (7, *LARGE):
            seed_everything(seed)
            drawn.append(torch.randn(4))
        torch.manual_seed(7)
        assert torch.equal(drawn[0], torch.randn(4))
    assert len({tuple(row.tolist()) for row in drawn}) == 4


def test_sampling_and_training_see_all_of_it():
    noise = seeded_noise((4,), [7, *LARGE], device=torch.device("cpu"), dtype=torch.float32)
    assert len(noise.unique(dim=0)) == 4  # before: 1
    logits = torch.zeros(2, 64, 1, 50)
    one, other = TopP([7, LARGE[0]])(logits)
    assert not torch.equal(one, other)
    objective = AutoregressiveObjective(AutoregressiveObjectiveConfig(text_dropout=0.5))
    text = SlotConfig(slot="context", width=4, tensors=("text", "text_lengths"))
    seeds = torch.tensor([i << 32 for i in range(64)])
    assert 0 < int(objective.keep("text", text, seeds).sum()) < 64


@pytest.mark.parametrize("wrong", [-1, 2**64, 1.5, "7", True, None])
def test_what_is_no_seed_is_refused(wrong):
    with pytest.raises(ConfigError, match="give a whole number from 0 to"):
        check_seed(wrong)
