"""What has to be alike on all ranks of a run, so that they take the same steps."""

import hashlib
from collections.abc import Sequence

import torch
from torch import nn

from wfm.errors import ConfigError
from wfm.parallel.shards import mesh_of, part_of, place_in


def hash_of(module: nn.Module) -> str:
    """sha256 of all parameters and buffers, of spread ones of the part that is here."""
    found = hashlib.sha256()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        part = part_of(tensor.detach())
        found.update(f"{name} {part.dtype} {list(part.shape)}".encode())
        found.update(part.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def parts_held(modules: Sequence[nn.Module]) -> list[int]:
    """Which part this rank holds of each module's spread parameters; 0 where they are whole."""
    meshes = [mesh_of(module.parameters()) for module in modules]
    return [0 if mesh is None else place_in(mesh)[0] for mesh in meshes]


def refuse_batch_statistics(module: nn.Module) -> None:
    """Raise ConfigError for layers that normalise by the samples of a batch: a rank sees only its share of them."""
    for name, layer in module.named_modules():
        running = isinstance(layer, nn.modules.instancenorm._InstanceNorm) and layer.track_running_stats
        batch = isinstance(layer, nn.modules.batchnorm._BatchNorm) and not isinstance(layer, nn.SyncBatchNorm)
        if running or batch:
            raise ConfigError(
                f"layer {name!r} is a {type(layer).__name__}, whose statistics are of the samples that it sees: with several "
                "ranks that is a share of the batch. Use GroupNorm, LayerNorm or SyncBatchNorm, or one rank"
            )
