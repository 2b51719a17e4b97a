"""What steps are made of: samples by source and row, with all that says which part of them, and with what seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from wfm.data.order.columns import Column
from wfm.data.order.draws import Drawn
from wfm.data.order.hashing import hash64
from wfm.data.order.sources import Pieces


@dataclass(frozen=True, eq=False)
class Pack:
    """Samples that are trained on as one sequence, or as one batch."""

    table: np.ndarray
    "int64 [6, n]: what the properties below name, a row each."

    @property
    def sources(self) -> np.ndarray:
        """Index of the lane's source."""
        return self.table[0]

    @property
    def rows(self) -> np.ndarray:
        """Row of the sample in its source."""
        return self.table[1]

    @property
    def starts(self) -> np.ndarray:
        """First token of the sample that is in the pack: 0 unless the sample was above the budget and split."""
        return self.table[2]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens from there on."""
        return self.table[3]

    @property
    def epochs(self) -> np.ndarray:
        """Of the source, in the stream that the sample is from."""
        return self.table[4]

    @property
    def seeds(self) -> np.ndarray:
        """63 bits each: of the noise, crop and dropout of (seed, sample, part of it, epoch, repeat)."""
        return self.table[5]

    @property
    def tokens(self) -> int:
        """Of all its samples."""
        return int(self.lengths.sum())


def digest_of(number: int, lane: str, packs: Sequence[Pack]) -> str:
    """sha256 of a step: of all that is in it, in its order."""
    digest = sha256(f"{number}\x1f{lane}".encode())
    for pack in packs:
        digest.update(pack.table.astype("<i8").tobytes())
    return digest.hexdigest()


def of_pieces(values: Sequence[Column], drawn: Drawn) -> np.ndarray:
    """Of what was drawn, its value; `values`: of each source, one for each of its pieces."""
    if len(values) == 1:
        return values[0][drawn.pieces]
    found = np.empty(len(drawn.pieces), values[0].dtype)
    for index, mine in enumerate(values):
        here = drawn.sources == index
        found[here] = mine[drawn.pieces[here]]
    return found


def table_of(pieces: Sequence[Pieces], drawn: Drawn, key: int) -> np.ndarray:
    """int64 [6, n]: the table of a pack of all that was drawn; `key`: what its seeds hang on beside the samples."""
    rows, starts, lengths = (
        of_pieces([getattr(held, name) for held in pieces], drawn) for name in ("rows", "starts", "lengths")
    )
    keys = of_pieces([held.keys for held in pieces], drawn)
    seeds = (hash64(key, keys, starts, drawn.epochs, drawn.repeats) >> np.uint64(1)).astype(np.int64)
    return np.stack([drawn.sources, rows, starts, lengths, drawn.epochs, seeds])


def replaced(pack: Pack, place: int, held: Pieces, source: int, piece: int, epoch: int, seed: int) -> Pack:
    """`pack` with a piece of `source`, which `held` are of, at `place`."""
    table = pack.table.copy()
    table[:, place] = source, held.rows[piece], held.starts[piece], held.lengths[piece], epoch, seed
    return Pack(table)
