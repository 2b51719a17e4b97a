"""Where packets are missing in an MPEG transport stream, told from its own counters.

The codec library marks a packet of the video near each place where a counter jumps, seldom the one that lost its data, and
marks one where two whole streams were joined as well. Each transport packet of a track carries a counter of 4 bits: a jump
inside a picture tears it, a jump before one tears the picture before, unless the programme table's own counter jumps between
the two, as it does where a stream begins.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

SIZE = 188
"Bytes of a transport packet; streams of longer ones (192, 204) are left to the codec library's marks."
_AT_ONCE = 1 << 16
"Packets read at once: 12 MB."
_TABLE = 0
"Number of the track that holds the programme table."


def torn_pictures(path: Path, track: int) -> frozenset[int] | None:
    """Byte offsets at which the torn pictures of a track begin; None for a file that is no plain run of packets."""
    found: list[int] = []
    last_begin, last_rejoin = -1, -1
    video, table = _Counter(track), _Counter(_TABLE)
    for offset, rows in _rows(path):
        if (rows[:, 0] != 0x47).any():
            return None
        own, jumps = video.follow(rows)
        begins = np.concatenate([[last_begin], offset + SIZE * own[(rows[own, 1] & 0x40) != 0]])
        rejoins = np.concatenate([[last_rejoin], offset + SIZE * table.follow(rows)[1]])
        for at in offset + SIZE * jumps:
            begun = int(begins[np.searchsorted(begins, at) - 1])
            rejoined = begun < int(rejoins[np.searchsorted(rejoins, at) - 1])
            if begun >= 0 and not (at in begins and rejoined):
                found.append(begun)
        last_begin, last_rejoin = int(begins[-1]), int(rejoins[-1])
    return frozenset(found)


class _Counter:
    """The packets of one track, from one stretch of the stream to the next."""

    def __init__(self, track: int) -> None:
        self._track, self._last = track, -1

    def follow(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(the rows of the track that carry data, those before which its counter jumps)."""
        track = (rows[:, 1].astype(int) & 0x1F) << 8 | rows[:, 2]
        own = np.flatnonzero((track == self._track) & ((rows[:, 3] & 0x10) != 0))
        if own.size == 0:
            return own, own
        now = rows[own, 3].astype(int) & 0x0F
        before = np.concatenate([[self._last if self._last >= 0 else now[0]], now[:-1]])
        self._last = int(now[-1])
        return own, own[(now != before) & (now != (before + 1) % 16)]  # a packet may be sent twice


def _rows(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """(byte offset, uint8 [N, 188]) of whole packets."""
    with path.open("rb") as file:
        offset = 0
        while data := file.read(_AT_ONCE * SIZE):
            count = len(data) // SIZE
            if count:
                yield offset, np.frombuffer(data, np.uint8, count * SIZE).reshape(count, SIZE)
            offset += count * SIZE
