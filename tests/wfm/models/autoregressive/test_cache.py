import pytest
import torch

from wfm.errors import ConfigError
from wfm.models.autoregressive.cache import KeyValueCache


def make() -> KeyValueCache:
    return KeyValueCache(2, 1, 3, 1, 2, dtype=torch.float32, device=torch.device("cpu"))


def test_layers_of_a_step_write_at_the_same_place() -> None:
    cache = make()
    for layer in range(2):
        cache.extend(layer, torch.full((1, 2, 1, 2), 1.0 + layer), torch.zeros(1, 2, 1, 2))
    cache.advance(2)
    k, v = cache.extend(1, torch.full((1, 1, 1, 2), 9.0), torch.full((1, 1, 1, 2), 8.0))
    assert k[0, :, 0, 0].tolist() == [2.0, 2.0, 9.0]
    assert v[0, :, 0, 0].tolist() == [0.0, 0.0, 8.0]


def test_a_full_cache_says_so() -> None:
    cache = make()
    cache.advance(2)
    with pytest.raises(ConfigError, match="holds 3 positions, 4 are needed"):
        cache.extend(0, torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2))
