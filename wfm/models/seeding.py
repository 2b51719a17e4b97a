"""Generators of torch that take a seed of 64 bits whole.

Torch's generator on the CPU is a Mersenne Twister that looks at the lowest 32 bits of its seed alone: seeds that differ above
them draw the same numbers. A larger seed therefore sets the whole state, to the words over which numpy's SeedSequence spreads
it. Seeds below 2**32 draw what they always drew.
"""

import numpy as np
import torch
from torch import Tensor

from wfm.errors import ConfigError

_STATE = slice(24, 24 + 624 * 8)
"""The 624 words, 8 bytes each, within the bytes of a generator's state."""


def seeded_generator(seed: int) -> torch.Generator:
    """A generator on the CPU. Raises ConfigError for what is no seed (see `check_seed`)."""
    made = torch.Generator().manual_seed(check_seed(seed))
    if seed >> 32:
        made.set_state(_spread(made.get_state(), seed))
    return made


def seed_everything(seed: int) -> None:
    """Seed torch's own generators, on the CPU and on every device. Raises ConfigError for what is no seed."""
    torch.manual_seed(check_seed(seed))
    if seed >> 32:
        torch.set_rng_state(_spread(torch.get_rng_state(), seed))


def check_seed(seed: int) -> int:
    """The seed. Raises ConfigError unless it is a whole number from 0 to 2**64 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ConfigError(f"seed is {seed!r}; give a whole number from 0 to 2**64 - 1 ({2**64 - 1})")
    return int(seed)


def _spread(state: Tensor, seed: int) -> Tensor:
    """A freshly seeded `state` whose words follow from both halves of the seed."""
    words = np.random.SeedSequence(seed).generate_state(624).astype(np.uint64)
    words[0] = 0x80000000  # never all zero
    spread: Tensor = state.clone()
    spread[_STATE] = torch.from_numpy(words.view(np.uint8))
    return spread
