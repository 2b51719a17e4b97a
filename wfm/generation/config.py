"""How futures are drawn, as far as every family shares it. Torch-free: keys are computed from it."""

import functools
from copy import copy

import pydantic

from wfm.config import Config
from wfm.models.family import Family


class SamplingConfig(Config):
    """How a family draws: its own fields stand beside these, in a class of its own (`Family.sampling`)."""

    batch_size: int = pydantic.Field(16, ge=1)
    """Sequences that go through the network together. The last batch is filled up by repetition, so that every matrix
    product has the same shape and a sequence's result does not depend on how many others were asked for."""


@functools.cache
def with_sampling(kind: type[Config], family: Family) -> type[Config] | None:
    """The class `kind` of a family, whose field `sampling` is the family's own; None for one that draws no futures."""
    if family.makes != "world_model" or not family.draw:
        return None
    own, named = family.sampling or SamplingConfig, copy(kind.model_fields["family"])
    named.default = family.name
    return pydantic.create_model(
        f"{family.name}_{kind.__name__}", __base__=kind, family=(str, named), sampling=(own, own())
    )
