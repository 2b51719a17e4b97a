"""The log of an attempt as numbered objects: an object store cannot append, and a log may grow without end.

    attempts/<n>/log/<offset of its first byte, 15 digits>.txt

A piece is closed when it is full; the last one is rewritten as it grows. Of a long log the first pieces and the last ones are
kept: what lies between is never written, or deleted, and whoever reads says how many bytes are left out. So neither the log
nor what a writer holds in memory ever exceeds `KEPT_BYTES` by more than a piece, also while the store does not answer.
"""

import re
import threading
from dataclasses import dataclass, field
from typing import NamedTuple

from wfm.artifacts.objects import Objects

PIECE_BYTES = 256 * 2**10
HEAD_PIECES = 8
TAIL_PIECES = 24
KEPT_BYTES = (HEAD_PIECES + TAIL_PIECES) * PIECE_BYTES
_NAME = re.compile(r"([0-9]{15})\.txt")


class Piece(NamedTuple):
    """A piece that is there: `start` is the offset of its first byte in the whole log."""

    start: int
    name: str


@dataclass(eq=False)
class _Growing:
    start: int
    size: int = 0
    data: bytearray = field(default_factory=bytearray)
    "Empty when the store has all of it, and no more will come."
    unsaved: bool = False
    "Whether the store lacks some of it."
    stored: bool = False
    "Whether the store may have some of it."


class LogPieces:
    """The pieces of one log on their way into the store. `add` and `ship` may be called from two threads."""

    def __init__(self, piece: int = PIECE_BYTES, head: int = HEAD_PIECES, tail: int = TAIL_PIECES) -> None:
        self._piece, self._head, self._tail = piece, head, tail
        self._pieces: list[_Growing] = []
        self._dropped: list[_Growing] = []
        self._lock = threading.Lock()

    def add(self, data: bytes) -> None:
        """Append bytes; nothing is written yet."""
        with self._lock:
            while data:
                last = self._pieces[-1] if self._pieces else self._begin(0)
                room = self._piece - last.size
                if len(data) <= room:
                    taken = len(data)
                else:  # a piece ends with a line where it can
                    taken = data.rfind(b"\n", 0, room) + 1 or (room if not last.data.endswith(b"\n") else 0)
                last.data += data[:taken]
                last.size += taken
                last.unsaved = last.unsaved or taken > 0
                data = data[taken:]
                if data:
                    self._begin(last.start + last.size)

    def _begin(self, start: int) -> _Growing:
        """A new last piece; of too many, the first after the head falls out."""
        self._pieces.append(_Growing(start))
        if len(self._pieces) > self._head + self._tail:
            middle = self._pieces.pop(self._head)
            middle.data = bytearray()
            if middle.stored:
                self._dropped.append(middle)
        return self._pieces[-1]

    def ship(self, objects: Objects, folder: str) -> None:
        """Write what the store lacks, and delete what fell out; always to the same place. Raises what the store raises; the
        next call goes on."""
        with self._lock:  # looked at once: one who writes on meanwhile must not keep this going
            unsaved = [piece for piece in self._pieces if piece.unsaved]
        for piece in unsaved:
            with self._lock:
                data, piece.unsaved = bytes(piece.data), False
                if piece not in self._pieces:  # fallen out by now
                    continue
                piece.stored = True  # or may be, if the next line raises: to be deleted when it falls out
            try:
                objects.replace(_path(folder, piece), data)
            except BaseException:
                piece.unsaved = True
                raise
            with self._lock:
                if not piece.unsaved and piece is not self._pieces[-1]:
                    piece.data = bytearray()
        while self._dropped:
            objects.delete(_path(folder, self._dropped[0]))
            del self._dropped[0]


def _path(folder: str, piece: _Growing) -> str:
    return f"{folder}/{piece.start:015d}.txt"


def pieces_of(objects: Objects, folder: str) -> list[Piece]:
    """The pieces of a log that are there, in order; what else lies among them is not ours."""
    return [Piece(int(match[1]), match[0]) for match in map(_NAME.fullmatch, objects.names(folder)) if match]


def read_from(objects: Objects, folder: str, pieces: list[Piece], start: int) -> tuple[bytes, int]:
    """The log from byte `start` on, and the offset behind its last byte. Where pieces are missing a line says how much."""
    found, at = [], start
    for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
        if following is not None and following.start <= start:
            continue
        try:
            data = objects.read(f"{folder}/{piece.name}")
        except FileNotFoundError:  # it fell out of a log that grows meanwhile
            continue
        if piece.start + len(data) <= at:
            continue
        if piece.start > at:
            found.append(f"\n[... {piece.start - at:,} bytes of this log are left out here ...]\n".encode())
            at = piece.start
        found.append(data[at - piece.start :])
        at = piece.start + len(data)
    return b"".join(found), at
