"""What is ordered: samples by their lengths in tokens, and what becomes of one that no pack can hold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from wfm.data.order.columns import Column, Places, Products, any_of, blocks, has_twice, zeros
from wfm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from wfm.data.samples import Samples

Oversize = Literal["refuse", "leave_out", "cut", "split"]
"""A sample above the budget: an error before the first step; never drawn; its first frames that fit; or all of its frames,
in as few pieces as hold them, of lengths that differ by one frame at most, each drawn as a sample is."""
SHIFT = 32
"""Weights are whole numbers of 2**-32: sums of them are exact, in any order and on any machine."""
LARGEST_BITS = 21
"""Frames, height and width are below 2**LARGEST_BITS each: together they are one whole number."""
REPEAT_BITS = 20
"""Weights are below 2**REPEAT_BITS, and so are the repeats of a sample in an epoch."""
_SHOWN = 4


def sample_keys(sample_ids: Sequence[str]) -> np.ndarray:
    """uint64: what samples are known by in the order, of their ids alone."""
    digests = b"".join([blake2b(f"sample\x1f{each}".encode(), digest_size=8).digest() for each in sample_ids])
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def keys_of(samples: "Samples") -> np.ndarray:
    """uint64 [N]: the same of samples, as they know them (`Samples.order_keys`): of a million it takes a second to hash ids."""
    known: np.ndarray | None = getattr(samples, "order_keys", None)
    return sample_keys(samples.ids) if known is None else known


@dataclass(frozen=True, eq=False)
class Source:
    """Samples that are drawn at one rate.

    Raises DataError for arrays that do not describe samples, naming the first that does not.
    """

    name: str
    lengths: Column
    "int64 [N]: tokens of each sample."
    keys: np.ndarray
    "uint64 [N]: `sample_keys`. The randomness of a sample hangs on its key, never on its place."
    rate: int = 1
    "Of all draws, rate / (sum of the rates of the sources beside it) are from here."
    weights: np.ndarray | None = None
    "float [N]: how often a sample is drawn in an epoch, in the mean; None: each once."
    frames: Column | None = None
    "int64 [N]: tokens of one latent frame, between which a sample may be cut; None: anywhere."
    shapes: np.ndarray | None = None
    "int64 [N, 3]: frames, height, width, whose product the lengths are; None: of no interest to packs, wanted by buckets."
    rows: np.ndarray | None = None
    "int64 [N]: rows of the samples that these are, where they are not all of them; None: 0 to N - 1."
    distinct: bool = False
    "Whether somebody has seen already that all keys differ."

    def __post_init__(self) -> None:
        count = len(self.lengths)
        if not count:
            raise DataError(f"source {self.name!r} has no samples: there is nothing to train on")
        held = {"keys": self.keys, "weights": self.weights, "frames": self.frames}
        for name, values in (held | {"shapes": self.shapes, "rows": self.rows}).items():
            if values is not None and len(values) != count:
                raise DataError(f"source {self.name!r}: {len(values)} {name} for {count} lengths")
        for name, values in {"lengths": self.lengths, "frames": self.frames}.items():
            if values is not None and values.dtype.kind not in "iu":
                raise DataError(f"source {self.name!r}: {name} are {values.dtype}, whole numbers of tokens are wanted")
        if not self.distinct and has_twice(self.keys):
            raise DataError(f"source {self.name!r}: two of its samples have the same key: each wants an id of its own")
        if any_of(wrong for rows in blocks(count) for wrong, _, _ in self._lies(rows)):
            for wrong, name, why in self._lies(slice(None)):
                self._refuse(wrong, name, why)
        if self.weights is not None and not (self.weights > 0).any():
            raise DataError(f"source {self.name!r}: the weights of all {count} samples are 0")

    def _lies(self, rows: slice) -> Iterator[tuple[np.ndarray, str, str]]:
        """Of some rows, bool each, what cannot be true of them: where, of which field, and why."""
        lengths = self.lengths[rows]
        yield lengths < 1, "lengths", "a sample has 1 token or more"
        if self.frames is not None:
            frames = self.frames[rows]
            yield frames < 1, "frames", "a frame has 1 token or more"
            yield lengths % np.maximum(frames, 1) != 0, "lengths", "it is no multiple of the tokens of a frame"
        if self.shapes is not None:
            shapes = self.shapes[rows]
            torn = Products(shapes)[:] != lengths
            for side in shapes.T:
                torn |= (side < 1) | (side >= 2**LARGEST_BITS)
            yield torn, "shapes", "frames, height and width are 1 or more, and their product the length"
        if self.rows is not None:
            before = self.rows[rows.start - 1] if rows.start else -1
            yield np.diff(self.rows[rows], prepend=before) < 1, "rows", "rows ascend from 0"
        if self.weights is not None:
            weights = self.weights[rows]
            held = np.isfinite(weights) & (weights >= 0) & (weights <= 2**REPEAT_BITS - 1)
            yield ~held, "weights", f"a weight is at least 0 and at most {2**REPEAT_BITS - 1}"

    def _refuse(self, wrong: np.ndarray, name: str, why: str) -> None:
        if wrong.any():
            rows = np.flatnonzero(wrong)
            raise DataError(
                f"source {self.name!r}: {name}[{rows[0]}] is {getattr(self, name)[rows[0]]}, and so wrong are {len(rows)} in "
                f"all: {why}"
            )

    @cached_property
    def sha256(self) -> str:
        """Of all that the order reads of it."""
        digest = sha256(f"{self.name}\x1f{self.rate}".encode())
        more = (values for values in (self.shapes, self.rows) if values is not None)
        for values in (self.lengths, self.keys, self.weights, self.frames, *more):
            kind = "<f8" if values is not None and values.dtype.kind == "f" else "<u8"
            if values is None:
                digest.update(b"-")
                continue
            for rows in blocks(len(values)):
                digest.update(np.ascontiguousarray(values[rows], kind).data)
        return digest.hexdigest()

    @classmethod
    def of(
        cls, name: str, samples: "Samples", rate: int = 1, weights: Sequence[float] | np.ndarray | None = None
    ) -> "Source":
        """All of `samples`, cut between frames where one has to be."""
        shapes = np.asarray(samples.shapes, np.int64).reshape(-1, 3)
        held = None if weights is None else np.asarray(weights, np.float64)
        distinct = getattr(samples, "keys_differ", False)
        frames = Products(shapes[:, 1:])
        return cls(name, Products(shapes), keys_of(samples), rate, held, frames, shapes, distinct=distinct)

    def only(self, chosen: np.ndarray) -> "Source":
        """The samples where `chosen`, bool [N], holds; they keep their rows and keys, and all that is random of them."""

        def part(values: Any) -> Any:
            return None if values is None else values[chosen]

        rows = Places(len(self.lengths)) if self.rows is None else self.rows
        return Source(
            self.name,
            self.lengths[chosen],
            self.keys[chosen],
            self.rate,
            part(self.weights),
            part(self.frames),
            part(self.shapes),
            rows[chosen],
            self.distinct,
        )


@dataclass(frozen=True, eq=False)
class Pieces:
    """What of a source is drawn: a whole sample, or a part of one, under the budget. Of int64 [M]."""

    rows: Column
    "Ascending."
    keys: np.ndarray
    "uint64 [M]: of the samples that they are of."
    starts: np.ndarray
    lengths: Column
    shapes: np.ndarray | None
    "int64 [M, 3]: those of the pieces."
    weights: np.ndarray | None
    "uint64 [M], in units of 2**-`SHIFT`."
    oversized: int
    "Samples above the budget."
    tokens_left: int
    "Tokens of those that are never drawn."


def pieces_of(source: Source, budget: int, rule: Oversize) -> Pieces:
    """The pieces of a source for packs of `budget` tokens, by `rule`.

    Raises DataError for a sample above the budget where the rule is to refuse it, for one with a single frame above it where it
    is to be cut, and when nothing is left.
    """
    if rule not in get_args(Oversize):
        raise ConfigError(f"oversize: {rule!r} is none of {', '.join(get_args(Oversize))}")
    count = len(source.lengths)
    weights = None if source.weights is None else np.round(source.weights * 2.0**SHIFT).astype(np.uint64)
    own = Places(count) if source.rows is None else source.rows
    shapes = None if source.shapes is None else source.shapes.astype(np.int64, copy=False)
    if not any_of(source.lengths[rows] > budget for rows in blocks(count)):
        whole_ones = (
            source.lengths.astype(np.int64, copy=False) if isinstance(source.lengths, np.ndarray) else source.lengths
        )
        return Pieces(own, source.keys, zeros(count), whole_ones, shapes, weights, 0, 0)
    lengths = np.asarray(source.lengths[:], np.int64)
    frames = np.ones_like(lengths) if source.frames is None else np.asarray(source.frames[:], np.int64)
    over = lengths > budget
    refused = over if rule == "refuse" else over & (frames > budget) if rule != "leave_out" else np.zeros_like(over)
    if refused.any():
        rows = np.flatnonzero(refused)
        shown = ", ".join(f"{row} ({lengths[row]})" for row in rows[:_SHOWN])
        what = "a budget of" if rule == "refuse" else "one frame is above the budget of"
        raise DataError(
            f"source {source.name!r}: {len(rows)} samples do not fit a pack, {what} {budget} tokens: rows (tokens) {shown}; "
            f"raise the budget, or choose another rule for oversize samples ({', '.join(get_args(Oversize))})"
        )
    most = np.maximum(budget // frames, 1)
    whole = lengths // frames
    counts = {"split": -(-whole // most), "leave_out": np.where(over, 0, 1)}.get(rule, np.ones_like(lengths))
    rows = np.repeat(np.arange(len(lengths)), counts)
    if not len(rows):
        raise DataError(f"source {source.name!r}: all {len(lengths)} samples are above the budget of {budget} tokens")
    nth = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    held = np.minimum(whole, most) if rule == "cut" else whole
    firsts, ends = (held[rows] * number // counts[rows] * frames[rows] for number in (nth, nth + 1))
    if shapes is not None:
        shapes = np.column_stack([(ends - firsts) // shapes[rows, 1:].prod(1), shapes[rows, 1:]])
    left = int(lengths.sum() - (ends - firsts).sum())
    weights = None if weights is None else weights[rows]
    return Pieces(own[rows], source.keys[rows], firsts, ends - firsts, shapes, weights, int(over.sum()), left)
