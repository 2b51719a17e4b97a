"""Muon: momentum of matrices, orthogonalised (Jordan et al. 2024).

The momentum of a matrix is replaced by the nearest semi-orthogonal one (five Newton-Schulz steps), so every direction of the
matrix learns at the same speed. That takes the whole matrix. Of matrices that are spread over ranks each keeps the momentum of
its rows; they come together matrix by matrix, each on one rank, which sends every other its rows of the result: two
exchanges for as many matrices as there are ranks, and none is orthogonalised twice.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wfm.parallel.shards import SHARD, mesh_of, part_of

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_NS = (3.4445, -4.7750, 2.0315)
EXCHANGE_BYTES = 64 * 2**20
"""Spread matrices travel in exchanges of at most this size a rank, or of one matrix a rank."""


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised. Parameters are matrices; step size is scaled by sqrt(max(1, rows / columns))."""

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update. Matrices of one shape are orthogonalised together. All ranks that matrices are spread over call it."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
            for shape, parameters in by_shape.items():
                self._update(parameters, shape, group)

    def _update(self, parameters: list[nn.Parameter], shape: tuple[int, int], group: dict[str, Any]) -> None:
        directions = []
        for parameter in parameters:
            gradient = parameter.grad
            assert gradient is not None
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum, here = part_of(state["momentum"]), part_of(gradient)
            momentum.lerp_(here, 1 - group["momentum"])
            directions.append(here.lerp(momentum, group["momentum"]))  # Nesterov
        mesh = mesh_of(parameters)
        updates = orthogonalise(torch.stack(directions)) if mesh is None else _together(directions, shape, mesh)
        scale = max(1.0, shape[0] / shape[1]) ** 0.5
        for parameter, update in zip(parameters, updates, strict=True):
            mine = part_of(parameter)
            mine.mul_(1 - group["lr"] * group["weight_decay"])
            mine.add_(update, alpha=-group["lr"] * scale)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Matrices `[N, rows, columns]` with all singular values moved near 1 (between about 0.7 and 1.2)."""
    a, b, c = _NS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def _together(parts: list[Tensor], shape: tuple[int, int], mesh: "DeviceMesh") -> Iterator[Tensor]:
    """`orthogonalise` of matrices of one shape, of each of which this rank has some rows; these rows of the results."""
    group = mesh.get_group(SHARD)
    ranks, me = group.size(), group.rank()
    rows, columns = shape
    most = -(-rows // ranks)  # rows of a part; the last ones have fewer, or none
    mine = min(most, max(0, rows - me * most))
    each = max(1, EXCHANGE_BYTES // max(1, rows * columns * parts[0].element_size()))  # matrices of a rank at once
    for at in range(0, len(parts), ranks * each):
        some = parts[at : at + ranks * each]
        deep = -(-len(some) // ranks)
        sent = some[0].new_zeros(ranks * deep, most, columns)  # matrix i goes to rank i // deep
        for place, part in enumerate(some):
            sent[place, : part.shape[0]] = part
        taken = torch.empty_like(sent)
        torch.distributed.all_to_all_single(taken, sent, group=group)
        whole = taken.view(ranks, deep, most, columns).transpose(0, 1).reshape(deep, -1, columns)[:, :rows]
        count = min(deep, max(0, len(some) - me * deep))  # the others are no matrices, but padding
        back = whole.new_zeros(deep, ranks * most, columns)
        if count:
            back[:count, :rows] = orthogonalise(whole[:count])
        sent = back.view(deep, ranks, most, columns).transpose(0, 1).reshape_as(sent)
        torch.distributed.all_to_all_single(taken, sent, group=group)
        yield from (taken[place, :mine] for place in range(len(some)))
