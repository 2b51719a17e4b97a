"""Tensors of which each rank writes its parts, and which any number of ranks read again.

    model.rank-00000-of-00004.safetensors      the rows that rank 0 held of each tensor; their places stand in the file's header
    model.safetensors                          or all of each: a file of one process, which is read the same way

What is written and read of which tensor is planned by torch's planners of distributed checkpoints; how it lies there is ours,
since theirs keeps its plan as a pickle: safetensors, whose header has JSON `{tensor: {"offset", "shape"}}` under `wfm.parts`.
Of several copies (HSDP) the first is written, of what no rank shares (buffers, steps) rank 0's. Nobody waits for anybody: each
rank plans for itself, from what it holds and from the headers.

Of a checkpoint only the files that its record names are read, and no header is believed: parts have to be runs of rows that
make up each tensor, each number once, before memory is set aside for it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wfm.artifacts.checkpoint_record import read_folder, verify
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
        self.require_whole()

    def require_whole(self) -> None:
        """Raise DataError unless the pieces of each tensor are runs of rows, one after the other, from first to last."""
        for name, entry in self.entries.items():
            pieces = sorted((piece for piece in self.pieces[name] if prod(piece.shape)), key=lambda piece: piece.offset)
            end = 0
            for piece in pieces:
                if piece.offset[1:] != (0,) * len(piece.offset[1:]) or piece.shape[1:] != entry.shape[1:]:
                    raise DataError(f"{piece.file}: its part of {name} is no run of whole rows of {list(entry.shape)}")
                first = piece.offset[0] if piece.offset else 0
                if first != end:
                    what = "no part has" if first > end else "two parts have"
                    raise DataError(
                        f"{piece.file}: {what} the rows {min(first, end)} to {max(first, end) - 1} of {name}"
                    )
                end = first + (piece.shape[0] if piece.shape else 1)
            rows = (entry.shape[0] if entry.shape else 1) if entry.count else 0
            if end != rows:
                raise DataError(f"{self.where}: {name} has {end} rows in its parts, of {rows}")


def parts_to_write(tensors: Mapping[str, Tensor], rank: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(what this rank writes, where it belongs): the part that it holds of each spread tensor, if it is of the first copy, and
    all of others, and those without a number, if it is rank 0."""
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

    mesh = mesh_of(tensors.values())
    first = mesh is None or place_in(mesh)[1] == 0
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(tensors), is_coordinator=rank == 0)
    found: dict[str, Any] = {}
    places: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if rank == 0 and not tensor.numel():  # no rank holds a row of it, and who reads looks for it
            found[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
            places[name] = {"offset": [0] * tensor.ndim, "shape": list(tensor.shape)}
    for item in planner.create_local_plan().items:
        name, data = item.index.fqn, item.tensor_data
        assert data is not None  # tensors are all there is
        if (is_spread(tensors[name]) and not first) or 0 in data.chunk.sizes:
            continue
        if not is_spread(tensors[name]) and rank:
            continue
        found[name] = planner.resolve_data(item)
        places[name] = {"offset": list(data.chunk.offsets), "shape": list(data.size)}
    return found, places


def write_parts(
    parts: Mapping[str, Tensor], places: Mapping[str, Any], folder: Path, stem: str, rank: int, size: int
) -> Path:
    """Write what `parts_to_write` said; the file."""
    path = folder / f"{stem}.rank-{rank:05d}-of-{size:05d}.safetensors"
    save_tensors(parts, path, metadata={_HEADER: json.dumps(places, sort_keys=True)})
    return path


def stored(folder: Path, stem: str, files: Iterable[str]) -> Stored:
    """What a folder has of a stem in `files`, the names that its record gives, whole or in parts. Raises DataError where there
    is none of it, or not all parts, and for headers that cannot be right."""
    names = sorted(files)
    matches = [match for name in names if (match := _PART.fullmatch(name)) and match[1] == stem]
    one = f"{stem}.safetensors"
    sizes = sorted({int(match[3]) for match in matches})
    if matches and (len(sizes) > 1 or [int(match[2]) for match in matches] != list(range(sizes[0]))):
        raise DataError(f"{folder}: {len(matches)} parts of {stem}, of {', '.join(map(str, sizes))}")
    if bool(matches) == (one in names):
        raise DataError(
            f"{folder}: its record names {'both' if matches else 'neither'} {one} {'and' if matches else 'nor'} parts"
        )
    found = Stored(str(folder / (f"{stem}.rank-*" if matches else one)), {}, {})
    for path in [folder / match[0] for match in matches] or [folder / one]:
        with open_tensors(path) as file:
            whole_ones = {
                name: (Piece(path, (0,) * len(entry.shape), entry.shape), entry) for name, entry in file.entries.items()
            }
            for name, (piece, whole) in (_placed(path, file.entries) if matches else whole_ones).items():
                if found.entries.setdefault(name, whole) != whole:
                    raise DataError(f"{path}: {name} is {whole}, and {found.entries[name]} in another part")
                found.pieces.setdefault(name, []).append(piece)
    return found


def _placed(path: Path, entries: Mapping[str, Entry]) -> dict[str, tuple[Piece, Entry]]:
    """The piece of each tensor that a file of parts has, and what the whole is, by the file's header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            places = json.loads((file.metadata() or {})[_HEADER])
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: its header does not say which parts of tensors it holds ({error})") from None
    if not isinstance(places, dict) or places.keys() != entries.keys():
        raise DataError(f"{path}: its header does not say of each of its tensors, and of no other, which part it is")
    found = {}
    for name, entry in entries.items():
        place = places[name]
        offset, shape = (_numbers(place, key) for key in ("offset", "shape"))
        if offset is None or shape is None or not len(offset) == len(shape) == len(entry.shape):
            raise DataError(
                f"{path}: {name}, {list(entry.shape)}, stands at {str(place)[:80]}: no offset and shape of as many numbers"
            )
        if any(at + count > all_ for at, count, all_ in zip(offset, entry.shape, shape, strict=True)):
            raise DataError(f"{path}: {name}, {list(entry.shape)} from {list(offset)} on, is no part of {list(shape)}")
        found[name] = Piece(path, offset, entry.shape), Entry(entry.dtype, shape)
    return found


def _numbers(place: Any, key: str) -> tuple[int, ...] | None:
    """A list of sizes or places in a header; None for what is none, or too large for any tensor."""
    found = place.get(key) if isinstance(place, dict) else None
    if not isinstance(found, list) or not all(type(number) is int and number >= 0 for number in found):
        return None
    return tuple(found) if prod(max(number, 1) for number in found) < 2**63 else None


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

    filled = {name: tensor for name, tensor in tensors.items() if tensor.numel()}  # a planner knows no empty ones
    files: dict[MetadataIndex, Path] = {}
    described: dict[str, Any] = {}
    for name in filled:
        entry = source.entries[name]
        pieces = [piece for piece in source.pieces[name] if prod(piece.shape)]
        chunks = [ChunkStorageMetadata(torch.Size(piece.offset), torch.Size(piece.shape)) for piece in pieces]
        properties = TensorProperties(dtype=getattr(torch, entry.dtype))
        described[name] = TensorStorageMetadata(properties, torch.Size(entry.shape), chunks)
        files |= {MetadataIndex(name, torch.Size(piece.offset)): piece.file for piece in pieces}
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(filled), Metadata(described), is_coordinator=True)
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
    """All tensors of a stem as wholes, in one process without ranks: the export of a sharded checkpoint. Raises DataError
    unless they are whole; as much memory is set aside as the files have numbers."""
    source.require_whole()
    whole = {
        name: torch.empty(entry.shape, dtype=getattr(torch, entry.dtype)) for name, entry in source.entries.items()
    }
    read_into(whole, source)
    return whole


def export(checkpoint: Path, out: Path, *, stem: str = "model") -> None:
    """Write a checkpoint's weights, whoever wrote them, as one safetensors file: `stem` "average" for the averaged ones. Raises
    DataError for a checkpoint that is not as its record says."""
    record = read_folder(checkpoint)
    verify(checkpoint, record)
    save_tensors(put_together(stored(checkpoint, stem, record.names)), out)


def half_written() -> None:
    """Where a checkpoint has some of its files."""
    crash_point("half_checkpoint")
