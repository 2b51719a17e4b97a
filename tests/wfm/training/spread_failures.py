"""Where a rank of a spread training may fail while the others wait for its part of a tensor (`spread_runs`, `fails`)."""

import itertools
from collections.abc import Callable
from typing import Any

from torch import nn

from wfm.errors import DataError
from wfm.families.diffusion.card import FAMILY
from wfm.parallel import spread
from wfm.parallel.ranks import Ranks
from wfm.training import muon

WHERE = ("forward", "backward", "optimizer", "validation", "gathering")
WORDS = "a bad row"
BEFORE = "told "
"""Before one of `WHERE`: the broken twin, in which the rank that fails tells of it by a row."""


def plant(where: str, model: nn.Module, ranks: Ranks) -> Callable[[Any], dict[str, float]] | None:
    """Make rank 1 fail there: in the third pass, at the first matrix, in the first validation or checkpoint that is put
    together; what to validate by."""
    if where.startswith(BEFORE):
        spread.Spread.together = spread.Whole.together  # type: ignore[method-assign]
    where, block = where.removeprefix(BEFORE), FAMILY.blocks(model)[-1]
    fails = ranks.rank == 1
    if where == "forward" and fails:
        block.register_forward_pre_hook(_third(_fail))
    elif where == "backward" and fails:
        block.register_forward_hook(_third(lambda block, given, output: output.register_hook(_fail)))
    elif where == "optimizer" and fails:
        muon.orthogonalise = _fail
    elif where == "gathering" and fails:
        spread.whole = _fail
    elif where == "validation":
        return _fail if fails else _gathers
    return None


def _fail(*given: Any) -> Any:
    raise DataError(WORDS)


def _third(act: Callable[..., Any]) -> Callable[..., None]:
    """Acts at its third call."""
    calls = itertools.count(1)

    def called(*given: Any) -> None:
        if next(calls) == 3:
            act(*given)

    return called


def _gathers(model: nn.Module) -> dict[str, float]:
    """As a forward pass begins."""
    for block in FAMILY.blocks(model):
        block.unshard()
    return {"x": 0.0}
