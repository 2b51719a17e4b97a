"""Tensors of which each rank holds a part: what is here of one, all of it, and norms of many.

A parameter that is spread over ranks (`wfm.parallel.spread`) is a DTensor, and so are its gradient and whatever an optimiser
keeps like it. What is done number by number is done on the part that is here; any other tensor is its own part, so code written
for parts is the code of one process too. torch's package of DTensors, which takes seconds to load, is loaded where there are
some.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

SHARD, REPLICATE = "shard", "replicate"
"""Names of a mesh's dimensions: along the first parameters are cut by rows, along the second they are held alike."""


def is_spread(tensor: Tensor) -> bool:
    """Whether this is one of a tensor's parts, and other ranks hold more of them, or copies."""
    return hasattr(tensor, "placements")


def part_of(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, in the same memory."""
    return _spread(tensor).to_local() if is_spread(tensor) else tensor  # type: ignore[no-any-return]


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor. Every rank has to ask, in the same order."""
    return _spread(tensor).full_tensor() if is_spread(tensor) else tensor  # type: ignore[no-any-return]


def mesh_of(tensors: Iterable[Tensor]) -> "DeviceMesh | None":
    """The ranks that tensors are spread over; None where none of them is."""
    return next((_spread(tensor).device_mesh for tensor in tensors if is_spread(tensor)), None)


def place_in(mesh: "DeviceMesh") -> tuple[int, int]:
    """Which part this rank holds of tensors spread over `mesh`, and of which copy."""
    copied = REPLICATE in (mesh.mesh_dim_names or ())
    return mesh.get_local_rank(SHARD), mesh.get_local_rank(REPLICATE) if copied else 0


def first_row(tensor: Tensor) -> int:
    """The row of a whole tensor at which this rank's part begins. Parts have equally many rows, the last ones fewer or none."""
    mesh = mesh_of([tensor])
    if mesh is None:
        return 0
    rows = tensor.shape[0]
    return min(place_in(mesh)[0] * -(-rows // mesh.get_group(SHARD).size()), rows)


def with_part(tensor: Tensor, part: Tensor) -> Tensor:
    """A tensor spread as `tensor` is, of which this rank holds `part`."""
    if not is_spread(tensor):
        return part
    from torch.distributed.tensor import DTensor

    like = _spread(tensor)
    return DTensor.from_local(  # type: ignore[no-any-return]
        part, like.device_mesh, like.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The norm of all numbers of some tensors, all of them spread or none: the same on all ranks, and all have to ask. Of plain
    tensors it is torch's own."""
    given = list(tensors)
    norm = torch.nn.utils.get_total_norm([part_of(tensor) for tensor in given])
    mesh = mesh_of(given)
    if mesh is None:
        return norm
    assert all(map(is_spread, given))  # a plain one would count once for each rank
    squares = norm.square()
    torch.distributed.all_reduce(squares, group=mesh.get_group(SHARD))
    return squares.sqrt()


def scale_down(gradients: Sequence[Tensor], limit: float, norm: Tensor) -> None:
    """Scale gradients in place so that their norm, which is `norm`, is at most `limit`: torch's `clip_grads_with_norm_`, for
    parts too."""
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    by_type: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for part in map(part_of, gradients):
        by_type.setdefault((part.device, part.dtype), []).append(part)
    for (device, _), parts in by_type.items():
        torch._foreach_mul_(parts, factor.to(device))


def _spread(tensor: Tensor) -> Any:
    return tensor
