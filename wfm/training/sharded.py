"""Tensors of which each rank writes its parts, and which any number of ranks read again.

    model.rank-00000-of-00004.safetensors      the rows that rank 0 held of each tensor; their places stand in the file's header
    model.safetensors                          or all of each: a file of one process, which is read the same way

What is written and read of which tensor is planned by torch's planners of distributed checkpoints; how it lies there is ours,
since theirs keeps its plan as a pickle: safetensors, whose header has JSON `{tensor: {"offset", "shape"}}` under `wfm.parts`.
Of several copies (HSDP) the first is written, of what no rank shares (buffers, steps) rank 0's. Nobody waits for anybody: each
rank plans for itself, from what it holds and from the headers.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wfm.crash_points import crash_point
from wfm.errors import DataError
from wfm.models.convert.filling import check_entries
from wfm.models.convert.reading import open_tensors
from wfm.models.convert.tensor_file import Entry
from wfm.models.folder import save_tensors
from wfm.parallel.shards import is_spread, mesh_of, place_in

_HEADER = "wfm.parts"
_PART = re.compile(r"(.+)\.rank-([0-9]{5})-of-([0-9]{5})\.safetensors")


@dataclass(frozen=True)
class Piece:
    """A part of a tensor in a file."""

    file: Path
    offset: tuple[int, ...]
    "Where it begins in the whole tensor."
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Stored:
    """The tensors of a stem: what each is, and where its pieces lie."""

    where: str
    entries: dict[str, Entry]
    "By name; with the shape of the whole tensor."
    pieces: dict[str, list[Piece]]

    def check(self, wanted: Mapping[str, Tensor]) -> None:
        """Raise DataError unless these are exactly the tensors `wanted`, each of them whole. Reads headers only."""
        check_entries(wanted, self.entries, self.where)
        for name, entry in self.entries.items():
            count = sum(torch.Size(piece.shape).numel() for piece in self.pieces[name])
            starts = {piece.offset for piece in self.pieces[name]}
            if count != entry.count or len(starts) != len(self.pieces[name]):
                raise DataError(f"{self.where}: {name} has {count} numbers in its parts, of {entry.count}")


def parts_to_write(tensors: Mapping[str, Tensor], rank: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(what this rank writes, where it belongs): the part that it holds of each spread tensor, if it is of the first copy, and
    all of others, if it is rank 0."""
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

    mesh = mesh_of(tensors.values())
    first = mesh is None or place_in(mesh)[1] == 0
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(tensors), is_coordinator=rank == 0)
    found, places = {}, {}
    for item in planner.create_local_plan().items:
        name, data = item.index.fqn, item.tensor_data
        assert data is not None  # tensors are all there is
        if (is_spread(tensors[name]) and not first) or 0 in data.chunk.sizes:
            continue
        if not is_spread(tensors[name]) and rank:
            continue
        found[name] = planner.resolve_data(item)
        places[name] = {"offset": list(data.chunk.offsets), "shape": list(data.size)}
    return found, places  # type: ignore[return-value]


def write_parts(
    parts: Mapping[str, Tensor], places: Mapping[str, Any], folder: Path, stem: str, rank: int, size: int
) -> Path:
    """Write what `parts_to_write` said; the file."""
    path = folder / f"{stem}.rank-{rank:05d}-of-{size:05d}.safetensors"
    save_tensors(parts, path, metadata={_HEADER: json.dumps(places, sort_keys=True)})
    return path


def stored(folder: Path, stem: str) -> Stored:
    """What a folder has of a stem, whole or in parts. Raises DataError where there is none of it, or not all parts."""
    matches = [match for path in folder.glob(f"{stem}.rank-*") if (match := _PART.fullmatch(path.name))]
    files, sizes = [folder / match[0] for match in matches if match[1] == stem], {int(match[3]) for match in matches}
    if files and (len(sizes) > 1 or len(files) != max(sizes)):
        raise DataError(f"{folder}: {len(files)} parts of {stem}, of {', '.join(map(str, sorted(sizes)))}")
    where = str(folder / (f"{stem}.rank-*" if files else f"{stem}.safetensors"))
    found = Stored(where, {}, {})
    for path in sorted(files) or [folder / f"{stem}.safetensors"]:
        with open_tensors(path) as file:
            places = _places(path) if files else {}
            for name, entry in file.entries.items():
                place = places.get(name, {"offset": [0] * len(entry.shape), "shape": list(entry.shape)})
                whole = Entry(entry.dtype, tuple(place["shape"]))
                if found.entries.setdefault(name, whole) != whole:
                    raise DataError(f"{path}: {name} is {whole}, and {found.entries[name]} in another part")
                found.pieces.setdefault(name, []).append(Piece(path, tuple(place["offset"]), entry.shape))
    return found


def _places(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(json.loads((file.metadata() or {})[_HEADER]))
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path}: its header does not say which parts of tensors it holds ({error})") from None


def read_like(wanted: Mapping[str, Tensor], source: Stored) -> dict[str, Tensor]:
    """New tensors of these names and shapes, spread as they are, with what stands in files that were checked."""
    found = {name: torch.zeros_like(tensor) for name, tensor in wanted.items()}
    read_into(found, source)
    return found


def read_into(tensors: Mapping[str, Tensor], source: Stored) -> None:
    """Fill tensors in place, of spread ones the part that is here, from files that were checked."""
    if any(map(is_spread, tensors.values())) or any(len(source.pieces[name]) != 1 for name in tensors):
        _read_planned(tensors, source)
        return
    files = {source.pieces[name][0].file for name in tensors}
    with torch.no_grad():
        for path in sorted(files):
            with open_tensors(path) as file:
                for name in file.entries.keys() & tensors.keys():
                    tensors[name].copy_(file.read(name))


def _read_planned(tensors: Mapping[str, Tensor], source: Stored) -> None:
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
    from torch.distributed.checkpoint.metadata import (
        ChunkStorageMetadata,
        Metadata,
        MetadataIndex,
        TensorProperties,
        TensorStorageMetadata,
    )

    files: dict[MetadataIndex, Path] = {}
    described: dict[str, Any] = {}
    for name in tensors:
        entry, pieces = source.entries[name], source.pieces[name]
        chunks = [ChunkStorageMetadata(torch.Size(piece.offset), torch.Size(piece.shape)) for piece in pieces]
        properties = TensorProperties(dtype=getattr(torch, entry.dtype))
        described[name] = TensorStorageMetadata(properties, torch.Size(entry.shape), chunks)
        files |= {MetadataIndex(name, torch.Size(piece.offset)): piece.file for piece in pieces}
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(tensors), Metadata(described), is_coordinator=True)
    by_file: dict[Path, list[Any]] = {}
    for item in planner.create_local_plan().items:
        by_file.setdefault(files[item.storage_index], []).append(item)
    with torch.no_grad():
        for path, items in by_file.items():
            with open_tensors(path) as file:
                for item in items:
                    rows = tuple(slice(at, at + n) for at, n in zip(item.storage_offsets, item.lengths, strict=True))
                    planner.resolve_tensor(item).copy_(file.read(item.storage_index.fqn)[rows])


def put_together(source: Stored) -> dict[str, Tensor]:
    """All tensors of a stem as wholes, in one process without ranks: the export of a sharded checkpoint."""
    whole = {
        name: torch.empty(entry.shape, dtype=getattr(torch, entry.dtype)) for name, entry in source.entries.items()
    }
    source.check(whole)
    read_into(whole, source)
    return whole


def export(checkpoint: Path, out: Path, *, stem: str = "model") -> None:
    """Write a checkpoint's weights, whoever wrote them, as one safetensors file: `stem` "average" for the averaged ones."""
    save_tensors(put_together(stored(checkpoint, stem)), out)


def half_written() -> None:
    """Where a checkpoint has some of its files."""
    crash_point("half_checkpoint")
