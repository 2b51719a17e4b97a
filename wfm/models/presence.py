"""Which samples of a batch have which conditions: what the data say, and what training drops."""

from collections.abc import Mapping

import torch
from torch import Tensor

from wfm.data.seeds import mix
from wfm.models.seeding import seeded_generator
from wfm.models.slots import SlotConfig


def tensors_of(slots: Mapping[str, SlotConfig], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the conditions that a batch holds."""
    return {name: batch[name] for slot in slots.values() for name in slot.tensors if name in batch}


def present_of(
    slots: Mapping[str, SlotConfig], batch: Mapping[str, Tensor], kept: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """bool `[B]` by condition, of those that a batch holds and not every sample has: `has_<tensor>` of the batch and, by
    condition, those that training keeps."""
    found: dict[str, Tensor] = {}
    for name, slot in slots.items():
        masks = [mask for mask in (kept.get(name), batch.get(slot.presence)) if mask is not None]
        if masks and slot.tensors[0] in batch:
            found[name] = masks[0] if len(masks) == 1 else masks[0] & masks[1]
    return found


def kept(seed: int, condition: str, dropout: float) -> Tensor:
    """Whether the sample of this seed keeps a condition, bool: from the seed and the name alone, so that one condition more
    changes no draw of another."""
    return torch.rand((), generator=seeded_generator(mix(seed, condition))) >= dropout
