"""What a small video file may cost: claims that are looked at before memory is set aside for them.

    mp4_claims        an index that counts more samples than the file has bytes
    PictureLimit      the codec library refuses a larger picture before it makes room for one, in the midst of a stream too
    PacketCount       packets of next to nothing, by the million

The codec library believes an mp4's index: some 24 bytes of memory for each sample that a field of four bytes claims.
"""

import dataclasses
import errno
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

LARGEST_PICTURE = 2**26
"""Most pixels of a picture that is decoded to find out what a file holds."""
LARGEST_CHANGE = 8192 * 4352
"""Most pixels that a picture may grow to in the midst of a stream, unless the header already claims more."""
MOST_PACKETS = 2**24
"""Of one file: 155 hours at 30 frames a second. Each costs 16 bytes and some 10 microseconds."""
MOST_EDITS = 2**26
"""Entries of an edit list times samples: the library goes through the samples once for each entry."""
LARGEST_PACKED_INDEX = 2**26
"""Bytes that a packed index (``cmov``) may claim to hold."""

_FEW_PACKETS = 100_000
_LEAST_BYTES = 8  # of a packet, on the average over more than a few
_MP4 = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"moof", b"sidx", b"pnot", b"uuid")
_WITHIN = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"cmov")
_DEEPEST = 8
_FEW_SAMPLES = 2**22
_TRUN_FIELDS = (0x100, 0x200, 0x400, 0x800)


def pixel_options() -> dict[str, str]:
    """What the codec library is told as a file is opened."""
    return {"max_pixels": str(LARGEST_PICTURE)}


class PictureLimit:
    """Has a codec context that is not open yet refuse pictures that outgrow its stream."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._was_known = context.width * context.height > 0
        self.most = max(context.width * context.height, LARGEST_CHANGE)
        "Most pixels of a picture."
        self.bind(context)

    def bind(self, context: Any) -> None:
        """Hold a context to it, the stream's own or another that decodes it."""
        if context is not self._context or not context.is_open:
            context.options = {**context.options, "max_pixels": str(self.most)}
        self._context = context

    def outgrown(self, error: BaseException) -> str:
        """Why decoding failed, when it was for a picture that is too large, else "". The library leaves the size that it
        refused, or 0, in the context."""
        pixels = self._context.width * self._context.height
        refused = self._was_known or getattr(error, "errno", None) == errno.EINVAL  # damage is another number
        if pixels > self.most or (refused and pixels == 0):
            return f"a picture grows to {f'{pixels:,}' if pixels else 'more'} pixels, at most {self.most:,} are allowed here"
        return ""


class TooManyPackets(ValueError):
    """Packets that no video has so many of."""


@dataclasses.dataclass
class PacketCount:
    """Counts packets as they are read."""

    packets: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """One more. Raises `TooManyPackets`."""
        self.packets += 1
        self.bytes += size
        if self.packets % _FEW_PACKETS == 0:
            if self.packets >= MOST_PACKETS:
                raise TooManyPackets(f"more than {MOST_PACKETS:,} packets")
            if self.bytes < _LEAST_BYTES * self.packets:
                raise TooManyPackets(f"{self.packets:,} packets of {self.bytes / self.packets:.1f} bytes")


def mp4_claims(path: Path, head: bytes) -> str:
    """Why the index of an mp4 or QuickTime file cannot be true, or "". Reads the headers of its boxes and no table.

    Raises OSError.
    """
    if head[4:8] not in _MP4:
        return ""
    size = path.stat().st_size
    with path.open("rb") as file:
        return next(_problems(file, size), "")


@dataclasses.dataclass
class _Track:
    """What one track claims."""

    samples: int = 0
    sample_bytes: int = 0
    edits: int = 0
    is_sound: bool = False
    is_counted: bool = False
    "Its times are one step a sample: of sound so written the library keeps chunks, not samples."


def _problems(file: BinaryIO, size: int) -> Iterator[str]:
    track, fragments = _Track(), 0
    for kind, start, end in _boxes(file, 0, size, 0):
        if kind == b"trak":
            track = _Track()
        elif kind == b"hdlr":
            track.is_sound = _numbers(file, start, end, ">8x4s") == (b"soun",)
        elif kind == b"elst":
            track.edits = _first(file, start, end, ">4xI")
        elif kind == b"stts":
            track.is_counted = _numbers(file, start, end, ">4xI4xI") == (1, 1)  # one entry, of one step
        elif kind in (b"stsz", b"stz2"):
            found = _numbers(file, start, end, ">4xII")
            if found:
                track.sample_bytes, track.samples = found
                yield from _of_table(kind, track, end - start)
        elif kind == b"trun":
            flags, samples = _numbers(file, start, end, ">II") or (0, 0)
            each = 4 * sum(bool(flags & field) for field in _TRUN_FIELDS)
            fragments += samples
            if each * samples > end - start or fragments > size:
                yield f"its fragments claim {fragments:,} samples, the file has {size:,} bytes"
        elif kind == b"cmvd" and (packed := _first(file, start, end, ">I")) > LARGEST_PACKED_INDEX:
            yield f"its packed index claims to hold {packed:,} bytes, at most {LARGEST_PACKED_INDEX:,} are unpacked"
        if kind in (b"stsz", b"stts", b"stz2", b"elst", b"hdlr"):
            yield from _of_track(track, size)


def _of_table(kind: bytes, track: _Track, room: int) -> Iterator[str]:
    """A size for each sample is written down, or one for all."""
    bits = 32
    if kind == b"stz2":
        bits, track.sample_bytes = track.sample_bytes & 0xFF, 0
    if track.sample_bytes == 0 and track.samples * bits // 8 > room:
        yield f"its index claims the sizes of {track.samples:,} samples in {room:,} bytes"


def _of_track(track: _Track, size: int) -> Iterator[str]:
    # old QuickTime counts a sound's samples before they were packed: there may be more than bytes
    few = track.is_sound and (track.is_counted or track.samples < _FEW_SAMPLES)
    if track.sample_bytes * track.samples > size and not few:
        yield f"its index claims {track.samples:,} samples of {track.sample_bytes:,} bytes, the file has {size:,}"
    if track.edits * track.samples > MOST_EDITS:
        yield f"its edit list claims {track.edits:,} entries over {track.samples:,} samples"


def _boxes(file: BinaryIO, start: int, end: int, depth: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, first byte of the content, end) of each box, and of those within."""
    while start + 8 <= end:
        file.seek(start)
        header = file.read(16)
        if len(header) < 8:
            return
        length, kind = struct.unpack(">I4s", header[:8])
        begin = start + 8
        if length == 1 and len(header) == 16:
            (length,) = struct.unpack(">Q", header[8:])
            begin += 8
        stop = end if length == 0 else min(start + length, end)
        if stop < begin:
            return
        yield kind, begin, stop
        if kind in _WITHIN and depth < _DEEPEST:
            yield from _boxes(file, begin, stop, depth + 1)
        start = stop


def _numbers(file: BinaryIO, start: int, end: int, form: str) -> tuple[Any, ...]:
    """Numbers at the beginning of a box; () where it is too short."""
    count = struct.calcsize(form)
    if end - start < count:
        return ()
    file.seek(start)
    data = file.read(count)
    return struct.unpack(form, data) if len(data) == count else ()


def _first(file: BinaryIO, start: int, end: int, form: str) -> int:
    found = _numbers(file, start, end, form)
    return int(found[0]) if found else 0
