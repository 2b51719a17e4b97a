"""The zip archives that torch writes: `torch.save` (`.pt`) and TorchScript (`.jit`).

Both hold a pickle, `data.pkl`, that says which tensors there are, and one entry for the bytes of each. A pickle can name any
function to call, so neither is loaded with `pickle` or `torch.jit.load`:

- **TorchScript**: `module_pickle` lets the pickle name four kinds of things (the classes of its own modules, which become plain
  records; torch's storages, which become descriptions; the function that builds a tensor, which becomes one that notes
  its shape; lists of numbers). Anything else is refused. The code in the archive is not looked at.
- **torch.save**: `torch.load(weights_only=True, mmap=True)`, behind `allow_pickle_file`, after a look at how much it asks for.
"""

import pickletools
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wfm.errors import DataError
from wfm.models.convert.module_pickle import MAX_INSTRUCTIONS, Machine, Module, StoredTensor, WrongPickle
from wfm.models.convert.tensor_file import ByteRanges, Entry, TensorFile, item_size

MAX_DIRECTORY_BYTES = 8 << 20
"""Longest list of zip entries taken: about 80,000."""
MAX_PICKLE_BYTES = 8 << 20
"""Longest `data.pkl` taken."""
MAX_TENSORS = 100_000
MAX_ATTRIBUTES = 1_000_000
MAX_NAME = 4096
"""Characters of a tensor's dotted path."""

_ALLOCATE = ("bytearray",)
"""What torch's weights-only reader would call, and what makes as many bytes as a number says."""


def is_archive(begin: bytes) -> bool:
    """Whether the first bytes of a file are those of a zip."""
    return begin[:4] == b"PK\x03\x04"


def open_archive(path: Path, *, allow_pickle_file: bool, mapped: bool) -> TensorFile:
    """Open an archive that torch wrote. Raises DataError for any other zip, or a damaged one."""
    members = _members(path)
    root = _pickle_of(path, members).removesuffix("data.pkl")
    if f"{root}constants.pkl" in members:
        return TorchScriptFile(path, members, root, mapped=mapped)
    if not allow_pickle_file:
        raise DataError(
            f"{path}: a .pt archive, which holds a pickle. Pass allow_pickle_file=True (--pt on the command line) to read it "
            "with torch's weights-only reader, or save it as safetensors where it comes from"
        )
    return PickleFile(path)


class PickleFile(TensorFile):
    """What `torch.save` wrote, read with `weights_only`: a dictionary of tensors, perhaps within `model` or `state_dict`."""

    kind = "torch.save archive"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        value = load_pickle_file(path)
        for wrapper in ("model", "module", "state_dict"):
            if isinstance(value, dict) and isinstance(value.get(wrapper), dict):
                value = value[wrapper]
        if not isinstance(value, dict):
            raise DataError(f"{path}: holds a {type(value).__name__}, not a dictionary of tensors")
        # Transformer Engine leaves `*_extra_state` entries that are bytes or None: they hold no weight and are no tensors
        self._tensors = {str(name): held for name, held in value.items() if isinstance(held, Tensor)}
        if strange := [name for name, held in self._tensors.items() if held.layout != torch.strided or held.is_meta]:
            raise DataError(f"{path}: {strange[0]!r} is a sparse tensor, or one without numbers; plain ones are read")
        odd = [
            name
            for name, held in value.items()
            if not isinstance(held, Tensor) and not str(name).endswith("_extra_state")
        ]
        if odd:
            raise DataError(f"{path}: {odd[0]!r} is a {type(value[odd[0]]).__name__}, not a tensor")
        self.entries = {
            name: Entry(str(held.dtype).removeprefix("torch."), tuple(held.shape))
            for name, held in self._tensors.items()
        }

    def read(self, name: str) -> Tensor:
        return self._tensors[name]


def load_pickle_file(path: Path) -> Any:
    """The content of a `torch.save` archive; tensors are mapped, not read. Raises DataError."""
    _refuse_vast(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError, ... by what is wrong
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # torch's first line advises to load the file without the safe reader; what it found stands further down
        reason = next((line.strip() for line in lines if "WeightsUnpickler" in line or "Unsupported" in line), lines[0])
        raise DataError(
            f"{path}: torch's weights-only reader refuses it ({reason}): it is damaged, or would run code"
        ) from None


def _pickle_of(path: Path, members: dict[str, zipfile.ZipInfo]) -> str:
    """The name of the pickle in an archive of torch."""
    pickles = [name for name in members if name.rpartition("/")[2] == "data.pkl" and name.count("/") == 1]
    if len(pickles) != 1:
        raise DataError(f"{path}: a zip without a data.pkl, so not an archive of torch")
    if members[pickles[0]].file_size > MAX_PICKLE_BYTES:
        raise DataError(
            f"{path}: its data.pkl has {members[pickles[0]].file_size:,} bytes; at most {MAX_PICKLE_BYTES:,} are taken"
        )
    return pickles[0]


def _refuse_vast(path: Path) -> None:
    """Refuse a pickle that makes more of its bytes than they are; which names it may call is torch's to say."""
    members = _members(path)
    if packed := [name for name, info in members.items() if info.compress_type != zipfile.ZIP_STORED]:
        raise DataError(f"{path}: entry {packed[0]!r} is compressed; torch stores plain ones")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_pickle_of(path, members)) as file:
            described = file.read(MAX_PICKLE_BYTES + 1)
        for count, (code, argument, _) in enumerate(pickletools.genops(described)):
            if count >= MAX_INSTRUCTIONS:
                raise DataError(f"{path}: its data.pkl has more than {MAX_INSTRUCTIONS:,} instructions")
            if code.name == "GLOBAL" and str(argument).rpartition(" ")[2] in _ALLOCATE:
                raise DataError(f"{path}: its data.pkl names {argument}, which no tensor needs")
    except DataError:
        raise
    except Exception as error:  # pickletools and zipfile raise whatever damaged bytes lead them to
        raise DataError(
            f"{path}: its data.pkl cannot be read, it is damaged ({type(error).__name__}: {str(error)[:160]})"
        ) from None


class TorchScriptFile(TensorFile):
    """The tensors of a TorchScript archive, by the path of their attribute: `encoder.conv_in.0.conv3d.weight`."""

    kind = "TorchScript archive"

    def __init__(self, path: Path, members: dict[str, zipfile.ZipInfo], root: str, *, mapped: bool) -> None:
        super().__init__(path)
        self._members, self._root = members, root
        self._ranges = ByteRanges(path, mapped=mapped)
        try:
            described = self._ranges.bytes(self._start(f"{root}data.pkl"), members[f"{root}data.pkl"].file_size)
            self._tensors = _tensors_of(_unpickle(described, path), path)
            for name, tensor in self._tensors.items():
                self._check(name, tensor)
                self.entries[name] = Entry(tensor.storage.dtype, tensor.shape)
        except BaseException:
            self.close()
            raise

    def read(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        start = self._start(f"{self._root}data/{tensor.storage.key}")
        if tensor.is_contiguous:
            start += tensor.offset * item_size(tensor.storage.dtype)
            return self._ranges.tensor(tensor.storage.dtype, tensor.shape, start)
        flat = self._ranges.tensor(tensor.storage.dtype, (tensor.storage.count,), start)
        return flat.as_strided(tensor.shape, tensor.strides, tensor.offset).contiguous()

    def close(self) -> None:
        self._ranges.close()

    def _check(self, name: str, tensor: "StoredTensor") -> None:
        """A tensor lies within its storage, its storage within an entry of the archive."""
        member = self._members.get(f"{self._root}data/{tensor.storage.key}")
        size = tensor.storage.count * item_size(tensor.storage.dtype)
        if member is None or member.file_size < size:
            raise DataError(
                f"{self.path}: {name!r} needs {size:,} bytes in entry {tensor.storage.key!r}, which has fewer"
            )
        if tensor.last >= tensor.storage.count:
            raise DataError(f"{self.path}: {name!r} reaches beyond its storage of {tensor.storage.count:,} numbers")
        self._start(member.filename)

    def _start(self, member: str) -> int:
        """First byte of an entry's content, behind the entry's own header in the file."""
        info = self._members[member]
        if not 0 <= info.header_offset < self._ranges.size:
            raise DataError(f"{self.path}: damaged: entry {member!r} lies outside the file. Fetch it again")
        header = self._ranges.bytes(info.header_offset, 30)
        if info.compress_type != zipfile.ZIP_STORED or len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise DataError(f"{self.path}: entry {member!r} is compressed or damaged; torch stores plain ones")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        start = info.header_offset + 30 + name_length + extra_length
        if start + info.file_size > self._ranges.size:
            raise DataError(f"{self.path}: truncated: entry {member!r} ends after the file. Fetch it again")
        return int(start)


def _unpickle(described: bytes, path: Path) -> Module:
    try:
        root = Machine(described).run()
    except WrongPickle as error:
        raise DataError(
            f"{path}: its tensors cannot be read without running code, or it is damaged: {str(error)[:160]}"
        ) from None
    if not isinstance(root, Module):
        raise DataError(f"{path}: holds a {type(root).__name__}, not a TorchScript module")
    return root


def _tensors_of(root: Module, path: Path) -> dict[str, StoredTensor]:
    """Every tensor attribute of a module and of the modules within, by dotted path."""
    found: dict[str, StoredTensor] = {}
    waiting: list[tuple[str, Module]] = [("", root)]
    seen = 0
    while waiting:
        prefix, module = waiting.pop()
        for name, value in module.attributes.items():
            seen += 1
            if isinstance(value, StoredTensor):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, Module):
                waiting.append((f"{prefix}{name}.", value))
            # a module may hold itself, under names that grow as it is followed
            if seen + len(prefix) > MAX_ATTRIBUTES or len(found) + len(waiting) > MAX_TENSORS or len(prefix) > MAX_NAME:
                raise DataError(
                    f"{path}: more than {MAX_TENSORS:,} modules or tensors, or names of more than {MAX_NAME:,} characters"
                )
    return found


def _members(path: Path) -> dict[str, zipfile.ZipInfo]:
    """The entries of a zip, after a look at how long their list is."""
    try:
        if (length := _directory_bytes(path)) > MAX_DIRECTORY_BYTES:
            raise DataError(
                f"{path}: its list of entries has {length:,} bytes; at most {MAX_DIRECTORY_BYTES:,} are taken"
            )
        with zipfile.ZipFile(path) as archive:
            return {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, OSError, struct.error, NotImplementedError, ValueError) as error:
        raise DataError(
            f"{path}: begins as a zip archive but is truncated or damaged ({error}). Fetch it again"
        ) from None


def _directory_bytes(path: Path) -> int:
    """Length of a zip's list of entries, from the record at its end. zipfile would read any length at once."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        handle.seek(max(0, size - (1 << 16) - 98))
        tail = handle.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0:
        raise zipfile.BadZipFile("no list of entries at its end")
    (length,) = struct.unpack("<L", tail[end + 12 : end + 16])
    if tail[end - 20 : end - 16] == b"PK\x06\x07":  # an archive of 4 GiB or more has the longer record before it
        (length,) = struct.unpack("<Q", tail[end - 36 : end - 28])
    return int(length)
