"""What a file of tensors is to whoever reads it, whatever its kind: names with dtype and shape, and one tensor at a time."""

import ctypes
import mmap
import os
import sys
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from wfm.errors import DataError


@dataclass(frozen=True)
class Entry:
    """What is known of a tensor without reading it."""

    dtype: str
    "torch's name of the dtype, such as `float32`."
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Numbers in the tensor."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the tensor [bytes]."""
        return self.count * item_size(self.dtype)


def item_size(dtype: str) -> int:
    """Bytes of one number of a torch dtype, by name."""
    return int(getattr(torch, dtype).itemsize)


def drop_pages(tensor: Tensor) -> None:
    """Let the system take back the memory of a tensor that nobody will read again: mapped pages that were read count as
    the process's own until then."""
    if (
        sys.platform == "linux" and tensor.nbytes and tensor.is_contiguous()
    ):  # an expanded one has fewer bytes than it says
        first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages only: the ends have neighbours
        last = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


class TensorFile:
    """A file of tensors. Subclasses fill `entries` when they open and read one tensor in `read`."""

    kind: str = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU, in the dtype of the file. Raises KeyError for a name that is not in `entries`."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the file; tensors that were read stay good."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _private_map(handle: int) -> mmap.mmap:
    """A file as memory whose changes stay with this process. Linux would promise memory for a copy of the whole file, and
    refuses where it is larger than all the machine has; NORESERVE asks for no promise."""
    if sys.platform != "linux":
        return mmap.mmap(handle, 0, access=mmap.ACCESS_COPY)
    flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000)  # named from Python 3.12 on
    return mmap.mmap(handle, 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


class ByteRanges:
    """Ranges of a file as tensors: copied into fresh memory, or mapped (`mapped`).

    A mapped tensor costs memory only where it is touched, and that memory can be dropped again by the system; writing to it
    changes a private copy, never the file. But a file that is cut short while mapped kills the process, so what lives
    long is better copied.
    """

    def __init__(self, path: Path, *, mapped: bool) -> None:
        self.path = path
        self._file = path.open("rb")
        self.size = os.fstat(self._file.fileno()).st_size
        self._mapped = mapped
        self._map: mmap.mmap | None = None

    def bytes(self, start: int, count: int) -> bytes:
        """A few bytes, such as a header. Short at the end of the file."""
        return os.pread(self._file.fileno(), count, start)

    def tensor(self, dtype: str, shape: tuple[int, ...], start: int) -> Tensor:
        """A contiguous tensor that begins at byte `start`; the caller has checked that it lies within the file."""
        kind = getattr(torch, dtype)
        if prod(shape) == 0:
            return torch.empty(shape, dtype=kind)
        if self._mapped:
            if self._map is None:
                self._map = _private_map(self._file.fileno())
            return torch.frombuffer(self._map, dtype=kind, count=prod(shape), offset=start).reshape(shape)
        whole = torch.empty(shape, dtype=kind)
        left = memoryview(whole.flatten().view(torch.uint8).numpy())  # type: ignore[arg-type]
        while left:
            got = os.preadv(self._file.fileno(), [left], start)
            if got == 0:
                raise DataError(f"{self.path}: ended while it was read; it was changed meanwhile. Fetch it again")
            left, start = left[got:], start + got
        return whole

    def close(self) -> None:
        """Close the handle; mapped tensors keep their mapping."""
        self._file.close()
