"""The key/value cache: what earlier positions left behind, so that a decoding step costs its own tokens only."""

import torch
from torch import Tensor

from wfm.errors import ConfigError
from wfm.models.rotary import Rope


class KeyValueCache:
    """Keys and values of every layer for up to ``capacity`` positions; memory is taken once, at the start.

    Keys are stored after the rotary embedding. A step calls ``extend(layer, k, v)`` in each layer and then
    ``advance(n)`` once, so all layers of a step write at the same offset. size: token frame (height, width); rope: the
    rotation of every position, worked out once.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        capacity: int,
        kv_heads: int,
        head_dim: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        size: tuple[int, int] | None = None,
        rope: Rope | None = None,
    ) -> None:
        shape = (layers, batch, capacity, kv_heads, head_dim)
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros(shape, dtype=dtype, device=device)
        self.capacity, self._size, self._rope = capacity, size, rope
        self.length = 0
        """Positions every layer has seen."""

    def next_rope(self, positions: int) -> Rope | None:
        """The rotation of the next ``positions``; None without tables, or past their end."""
        end = self.length + positions
        if self._rope is None or end > self.capacity:
            return None
        return Rope(*(table[self.length : end] for table in self._rope))

    def require(self, layers: int, batch: int, kv_heads: int, head_dim: int, size: tuple[int, int]) -> None:
        """Raise ConfigError unless this cache was made for such a model, batch and frame size."""
        if self._size is not None and self._size != tuple(size):
            raise ConfigError(
                f"the key/value cache was made for token frames of {self._size}, these are of {tuple(size)}: make one for them "
                "with this model's new_cache"
            )
        held, wanted = self._keys.shape, (layers, batch, self.capacity, kv_heads, head_dim)
        if held != wanted:
            raise ConfigError(
                f"the key/value cache holds (layers, batch, positions, key/value heads, head width) = {tuple(held)}, this "
                f"model and batch need {wanted}: make one with this model's new_cache"
            )

    def truncate(self, length: int) -> None:
        """Forget all but the first ``length`` positions. Raises ConfigError for more than there are."""
        if not 0 <= length <= self.length:
            raise ConfigError(f"the key/value cache holds {self.length} positions: it cannot be cut to {length}")
        self.length = length

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store ``k, v [B, n, kv_heads, head_dim]`` behind what is there; returns all of it, ``[B, length + n,
        ...]``."""
        end = self.length + k.shape[1]
        if end > self.capacity:
            raise ConfigError(
                f"the key/value cache holds {self.capacity} positions, {end} are needed: decode fewer frames"
            )
        self._keys[layer, :, self.length : end] = k
        self._values[layer, :, self.length : end] = v
        return self._keys[layer, :, :end], self._values[layer, :, :end]

    def advance(self, positions: int) -> None:
        """All layers have stored ``positions`` more."""
        self.length += positions
