"""A file of tensors, opened: what is in it is known before a byte of any tensor is read.

    with open_tensors(path) as file:
        file.entries["proj_out.weight"]     # Entry(dtype="bfloat16", shape=(64, 4096))
        file.read("proj_out.weight")        # that tensor, and no other

The kind of a file is told from its content, not its name:

| content | read |
|---|---|
| safetensors | always; the header is checked in full: names once, known dtypes, sizes that agree, no byte unaccounted for |
| index of safetensors shards (`*.index.json`) | always; shards lie beside the index |
| TorchScript archive (`.jit`) | always: tensors alone, nothing in it is run (see `archive`) |
| other archive of `torch.save` (`.pt`, `.pth`) | with `allow_pickle_file` only, by torch's `weights_only` reader |
| pickle of the old kind (no zip) | never |

Whatever is wrong with a file is a DataError that names it, and costs no more memory than its header (at most 4 MiB).
"""

import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from wfm.errors import DataError
from wfm.models.convert.archive import is_archive, open_archive
from wfm.models.convert.tensor_file import ByteRanges, Entry, TensorFile

MAX_HEADER_BYTES = 4 << 20
"""Longest safetensors header or shard index taken: about 35,000 tensors; the largest preset has 1,000."""

_SAFETENSORS_DTYPES: dict[str, str] = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


class SafetensorsFile(TensorFile):
    """One safetensors file: 8 bytes of header length, a JSON header, then the tensors without gaps."""

    kind = "safetensors"

    def __init__(self, path: Path, *, mapped: bool = True) -> None:
        super().__init__(path)
        self._ranges = ByteRanges(path, mapped=mapped)
        try:
            self._starts = self._read_header()
        except BaseException:
            self.close()
            raise

    def read(self, name: str) -> Tensor:
        entry = self.entries[name]
        return self._ranges.tensor(entry.dtype, entry.shape, self._starts[name])

    def close(self) -> None:
        self._ranges.close()

    def _read_header(self) -> dict[str, int]:
        """Fill `entries`; the first byte of each tensor."""
        size = self._ranges.size
        length = int.from_bytes(self._ranges.bytes(0, 8), "little")
        if size < 10 or length < 2:
            raise self._wrong(f"{size} bytes with a header of {length}")
        if length > MAX_HEADER_BYTES:
            raise self._wrong(
                f"its first 8 bytes say that the header has {length:,} bytes; at most {MAX_HEADER_BYTES:,} are taken"
            )
        if 8 + length > size:
            raise self._truncated(f"the header alone has {length:,} bytes, the file {size:,}")
        header = self._parse(self._ranges.bytes(8, length))
        data = 8 + length
        spans: list[tuple[int, int, str]] = []
        for name, value in header.items():
            if name == "__metadata__":
                continue
            self.entries[name], begin, end = self._entry(name, value)
            spans.append((begin, end, name))
        position = 0
        for begin, end, name in sorted(spans):
            if begin != position:
                raise self._wrong(f"{name!r} begins at byte {begin} of the data, not {position}: a gap or an overlap")
            position = end
        if data + position != size:
            problem = f"its header describes {data + position:,} bytes, the file has {size:,}"
            raise self._truncated(problem) if data + position > size else self._wrong(problem)
        return {name: data + begin for begin, _, name in spans}

    def _parse(self, raw: bytes) -> dict[str, Any]:
        try:
            header = json.loads(raw, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise self._wrong(f"its header is not JSON with each name once ({_short(error)})") from None
        if not isinstance(header, dict):
            raise self._wrong("its header is not a JSON object")
        return header

    def _entry(self, name: str, value: Any) -> tuple[Entry, int, int]:
        try:
            dtype, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
            whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
        except (TypeError, KeyError, ValueError):
            raise self._wrong(f"{name!r} is described as {_short(value)}") from None
        if not whole or len(shape) > 16:
            raise self._wrong(f"{name!r} has the shape {_short(shape)} at {_short([begin, end])}")
        if dtype not in _SAFETENSORS_DTYPES:
            raise self._wrong(f"{name!r} has the dtype {_short(dtype)}; known are {', '.join(_SAFETENSORS_DTYPES)}")
        entry = Entry(_SAFETENSORS_DTYPES[dtype], tuple(shape))
        if end - begin != entry.nbytes:
            raise self._wrong(f"{name!r} is {dtype} {shape}, {entry.nbytes:,} bytes, but {end - begin:,} are set aside")
        return entry, begin, end

    def _wrong(self, problem: str) -> DataError:
        return DataError(f"{self.path}: not a readable safetensors file: {problem}")

    def _truncated(self, problem: str) -> DataError:
        return DataError(f"{self.path}: not a readable safetensors file: truncated: {problem}. Fetch it again")


class ShardedFile(TensorFile):
    """Several safetensors files behind an index: `{"weight_map": {tensor: file}}`."""

    kind = "safetensors shards"

    def __init__(self, path: Path, *, mapped: bool = True) -> None:
        super().__init__(path)
        if path.stat().st_size > MAX_HEADER_BYTES:
            raise DataError(
                f"{path}: {path.stat().st_size:,} bytes, too many for an index (at most {MAX_HEADER_BYTES:,})"
            )
        try:
            homes = json.loads(path.read_bytes(), object_pairs_hook=_once)["weight_map"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(
                f"{path}: not an index of shards, that is JSON with a weight_map ({_short(error)})"
            ) from None
        if not isinstance(homes, dict) or not all(_plain_name(home) for home in homes.values()):
            raise DataError(f"{path}: weight_map must give each tensor the name of a file that lies beside the index")
        self._homes: dict[str, str] = homes
        self._shards: dict[str, SafetensorsFile] = {}
        try:
            self._open_shards(mapped)
        except BaseException:
            self.close()
            raise

    def _open_shards(self, mapped: bool) -> None:
        for home in sorted(set(self._homes.values())):
            file = self.path.with_name(home)
            if not file.is_file():
                raise DataError(f"{self.path}: the shard {home} is missing beside it: fetch it too")
            shard = self._shards[home] = SafetensorsFile(file, mapped=mapped)
            listed = {name for name, its_home in self._homes.items() if its_home == home}
            if odd := sorted(listed ^ shard.entries.keys()):
                raise DataError(f"{self.path}: the index and {home} do not agree about {', '.join(map(repr, odd[:5]))}")
            self.entries |= shard.entries

    def read(self, name: str) -> Tensor:
        return self._shards[self._homes[name]].read(name)

    def close(self) -> None:
        for shard in self._shards.values():
            shard.close()


def read_json(path: Path) -> Any:
    """What a small JSON file beside weights holds. Raises OSError, ValueError or RecursionError."""
    if (size := path.stat().st_size) > MAX_HEADER_BYTES:
        raise ValueError(f"{size:,} bytes; at most {MAX_HEADER_BYTES:,} are taken")
    return json.loads(path.read_bytes())


def open_tensors(path: str | os.PathLike[str], *, allow_pickle_file: bool = False, mapped: bool = True) -> TensorFile:
    """Open a file of tensors of whatever kind. Raises DataError for one that is missing, damaged or not to be trusted."""
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such file of tensors")
    if file.name.endswith(".json"):
        return ShardedFile(file, mapped=mapped)
    with file.open("rb") as handle:
        begin = handle.read(16)
    if is_archive(begin):
        return open_archive(file, allow_pickle_file=allow_pickle_file, mapped=mapped)
    if begin[:1] == b"\x80" and begin[1:2] in b"\x02\x03\x04\x05" and begin[3:8] != bytes(5):  # no header's length
        raise DataError(
            f"{file}: a pickle of the old kind, which cannot be read without trusting it; "
            "open it where you trust it and save it as safetensors"
        )
    return SafetensorsFile(file, mapped=mapped)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object that names nothing twice (json alone would keep the last)."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


def _plain_name(home: Any) -> bool:
    """A file beside the index, not somewhere else on the disk."""
    return isinstance(home, str) and home not in ("", ".", "..") and Path(home).name == home and "\\" not in home


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
