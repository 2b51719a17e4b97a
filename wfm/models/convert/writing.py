"""Tensors to safetensors: one file, or shards with an index. Nothing is copied that need not be.

    model.safetensors                                   one file, or
    model-00001-of-00002.safetensors ...                shards of at most `max_shard_bytes` (a larger tensor has its own)
    model.safetensors.index.json                        {"metadata": {"total_size"}, "weight_map": {tensor: shard}}

Both forms are those that diffusers and transformers read.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wfm.artifacts.atomic import replace_on_disk, whole_file
from wfm.errors import ConfigError

INDEX_SUFFIX = ".safetensors.index.json"


def save_tensors(tensors: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as one safetensors file, atomically; the same tensors always give the same bytes."""
    from safetensors.torch import save_file

    apart = _apart({name: tensors[name] for name in sorted(tensors)})
    with whole_file(path) as temporary:
        save_file(apart, str(temporary), dict(metadata) if metadata else None)


def save_sharded(
    tensors: Mapping[str, Tensor],
    folder: Path,
    stem: str,
    *,
    max_shard_bytes: int | None = None,
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write tensors into `folder` as `stem.safetensors`, or as shards where they are more than `max_shard_bytes`.

    `dtype` converts floating-point tensors, one shard at a time. What an earlier write of the same stem left is removed, last
    of all. Returns the files written. Raises ConfigError for a size that is not positive.
    """
    if max_shard_bytes is not None and max_shard_bytes < 1:
        raise ConfigError(f"max_shard_bytes: {max_shard_bytes}; give a size of at least 1 byte, or None for one file")
    plan = list(_plan(tensors, max_shard_bytes, dtype))
    count = len(plan)
    names = (
        [f"{stem}.safetensors"]
        if count == 1
        else [f"{stem}-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    )
    for name, shard in zip(names, plan, strict=True):
        save_tensors({key: _converted(tensors[key], dtype) for key in shard}, folder / name, metadata=metadata)
    written = [folder / name for name in names]
    index = folder / f"{stem}{INDEX_SUFFIX}"
    if count > 1:
        total = sum(_bytes(tensor, dtype) for tensor in tensors.values())
        homes = {key: name for name, shard in zip(names, plan, strict=True) for key in shard}
        write_json({"metadata": {"total_size": total}, "weight_map": dict(sorted(homes.items()))}, index)
        written.append(index)
    for old in [index, folder / f"{stem}.safetensors", *folder.glob(f"{stem}-[0-9]*-of-[0-9]*.safetensors")]:
        if old not in written:
            old.unlink(missing_ok=True)
    return written


def find_tensors(folder: Path, stem: str) -> Path:
    """The file to open for what `save_sharded` wrote: the one file, or the index."""
    index = folder / f"{stem}{INDEX_SUFFIX}"
    return index if index.is_file() else folder / f"{stem}.safetensors"


def _plan(tensors: Mapping[str, Tensor], limit: int | None, dtype: torch.dtype | None) -> Iterator[list[str]]:
    """Names in order, cut into shards."""
    shard: list[str] = []
    used = 0
    for name, tensor in tensors.items():
        size = _bytes(tensor, dtype)
        if shard and limit is not None and used + size > limit:
            yield shard
            shard, used = [], 0
        shard.append(name)
        used += size
    yield shard


def _bytes(tensor: Tensor, dtype: torch.dtype | None) -> int:
    kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return tensor.numel() * kind.itemsize


def _converted(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU that share no memory: safetensors takes no others. Only what must be is copied."""
    apart = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    end = 0
    for name in sorted(apart, key=lambda name: (apart[name].data_ptr(), apart[name].nbytes)):
        tensor = apart[name]
        if tensor.data_ptr() < end and tensor.nbytes:
            apart[name] = tensor.clone()
        end = max(end, tensor.data_ptr() + tensor.nbytes)
    return apart


def write_json(values: Mapping[str, Any], path: Path, indent: int = 1) -> None:
    """Write JSON, atomically, keys sorted."""
    replace_on_disk(path, (json.dumps(values, indent=indent, sort_keys=True) + "\n").encode(), fsync=False)
