"""Text embeddings of a data set's samples: each distinct caption is held once, a batch is padded to its longest.

A caption is of a whole clip, so its sample is the clip, or the clip's mirror image, and windows of any length share it. Layout
of a part (of an artifact of kind `text`, written by `wfm.training.encode_text`), for each split that it has clips of:

    <split>/samples.parquet         clip_id, mirrored, caption
    <split>/captions.safetensors    embeddings [sum of lengths, D], one distinct caption after the other; lengths int32 [K]
    <split>/captions.parquet        caption: the K texts, in the same order
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from wfm.data.dataset_parts import split_files
from wfm.errors import DataError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact


_TOLD = pa.schema([("clip_id", pa.string()), ("mirrored", pa.bool_()), ("caption", pa.string())])


@dataclass(frozen=True)
class CaptionTable:
    """Embeddings of distinct captions, and which of them each sample has."""

    embeddings: Tensor
    "`[sum of lengths, D]`."
    lengths: Tensor
    "int64 `[K]`, at least 1 each."
    of_sample: Tensor
    "int64 `[N]`: the caption of each sample."

    @property
    def width(self) -> int:
        """Width of one token's embedding."""
        return int(self.embeddings.shape[1])

    @cached_property
    def _starts(self) -> Tensor:
        """int64 `[K]`: the first token of each caption."""
        return self.lengths.cumsum(0) - self.lengths

    def row(self, sample: int) -> dict[str, Tensor]:
        """`text` fp32 `[L, D]` and `text_lengths` int64 `[]` of one sample."""
        caption = self.of_sample[sample]
        start, length = int(self._starts[caption]), int(self.lengths[caption])
        return {"text": self.embeddings[start : start + length].float(), "text_lengths": self.lengths[caption]}

    def rows(self, index: Tensor) -> dict[str, Tensor]:
        """`text` fp32 `[B, L, D]`, zero past each length, and `text_lengths` int64 `[B]` of samples `index` `[B]`."""
        captions = self.of_sample[index]
        lengths = self.lengths[captions]
        starts = self._starts[captions]
        text = torch.zeros(len(index), int(lengths.max()) if len(index) else 0, self.width)
        for row, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            text[row, :length] = self.embeddings[start : start + length]
        return {"text": text, "text_lengths": lengths}


def read_text(artifact: "Artifact", split: str, clips: pa.ChunkedArray, mirrored: np.ndarray) -> CaptionTable:
    """The text of samples, by their clips (text `[N]`) and whether each is a mirror image (bool `[N]`). Raises DataError, with
    how many and one of them, where there is no caption of a clip: every sample has its text, or none has."""
    paths = split_files(artifact, split)
    told = [pq.read_table(artifact.fetch(path)) for path in paths if path.endswith("/samples.parquet")]
    texts = pa.concat_tables(told) if told else _TOLD.empty_table()
    turned = texts.column("mirrored").to_numpy()
    rows = np.full(len(clips), -1, np.int64)
    for side in (False, True):
        mine, theirs = np.flatnonzero(mirrored == side), np.flatnonzero(turned == side)
        found = pc.index_in(clips.take(pa.array(mine)), value_set=texts.column("clip_id").take(pa.array(theirs)))
        places = pc.fill_null(found, -1).to_numpy()
        rows[mine] = np.where(places >= 0, theirs[places] if len(theirs) else -1, -1)
    if (lost := np.flatnonzero(rows < 0)).size:
        missing = sorted({(clips[row].as_py(), bool(mirrored[row])) for row in lost.tolist()})
        clip, side = missing[0]
        every = sum(len(pc.unique(clips.filter(pa.array(mirrored == of)))) for of in (False, True))
        raise DataError(
            f"{len(missing)} of {every} clips have no text, such as {clip}{' mirrored' if side else ''}: encode "
            f"the text of the same data set, with {split!r} among encode_text.splits and mirror as encode_latents has it"
        )
    ends = ("/captions.safetensors", "/captions.parquet")
    files, names = ([artifact.fetch(path) for path in paths if path.endswith(end)] for end in ends)
    return read_captions(files, names, texts.column("caption").take(pa.array(rows)))


def read_captions(
    files: Iterable[Path], texts: Iterable[Path], samples: Sequence[str] | pa.ChunkedArray
) -> CaptionTable:
    """Merge the parts' embeddings into one table for samples with the captions `samples`, those that are used alone.

    Raises DataError when a caption has no embedding, a file and its texts do not match, or the parts differ in width.
    """
    from safetensors.torch import load_file

    wanted = samples if isinstance(samples, pa.ChunkedArray) else pa.chunked_array([pa.array(samples, pa.string())])
    distinct = pc.unique(wanted)
    order = distinct.take(pc.sort_indices(distinct))
    parts: list[Tensor] = []
    source, first, length = (np.full(len(order), start, np.int64) for start in (-1, 0, 0))
    for file, table in zip(files, texts, strict=True):
        tensors, names = load_file(str(file)), pq.read_table(table).column("caption")
        lengths = tensors["lengths"].numpy().astype(np.int64)
        if len(lengths) != len(names) or lengths.sum() != len(tensors["embeddings"]):
            raise DataError(
                f"{file}: {len(lengths)} captions of {lengths.sum()} tokens do not fit its table {table.name}"
            )
        places = pc.fill_null(pc.index_in(names, value_set=order), -1).to_numpy()
        used = np.flatnonzero(places >= 0)
        source[places[used]], length[places[used]] = len(parts), lengths[used]
        first[places[used]] = (np.cumsum(lengths) - lengths)[used]
        parts.append(tensors["embeddings"])
    if (missing := np.flatnonzero(source < 0)).size:
        some = order[int(missing[0])].as_py()
        raise DataError(f"{len(missing)} captions have no embedding, such as {some!r}: encode the text again")
    widths = {parts[part].shape[1] for part in np.unique(source).tolist()}
    if len(widths) > 1:
        raise DataError(f"text embeddings are {sorted(widths)} wide in different parts: one encoder must make them all")
    number = pc.index_in(wanted, value_set=order).to_numpy().astype(np.int64)
    return CaptionTable(_gathered(parts, source, first, length), torch.from_numpy(length), torch.from_numpy(number))


def _gathered(parts: Sequence[Tensor], source: np.ndarray, first: np.ndarray, length: np.ndarray) -> Tensor:
    """`[sum of lengths, D]`: of each caption the rows from `first` on of the part that has it, one after the other."""
    if not len(source):
        return torch.zeros(0, 0)
    starts = np.cumsum(length) - length
    found = parts[source[0]].new_empty((int(length.sum()), parts[source[0]].shape[1]))
    for number, part in enumerate(parts):
        mine = np.flatnonzero(source == number)
        along = np.arange(int(length[mine].sum())) - np.repeat(np.cumsum(length[mine]) - length[mine], length[mine])
        to, at = (torch.from_numpy(np.repeat(begin[mine], length[mine]) + along) for begin in (starts, first))
        found[to] = part[at]
    return found


_SIDES = {
    "left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise",
    "anticlockwise": "clockwise",
}  # fmt: skip
_SIDED = re.compile(r"\b(left|right|(?:counter-?|anti-?)?clockwise)(most|-?wards?|-?hand(?:ed)?|)\b", re.IGNORECASE)


def mirrored_caption(caption: str) -> str:
    """What a caption says of the left-right mirror image: left and right, and the two ways round, change places."""

    def turn(word: re.Match[str]) -> str:
        side, ending = word.groups()
        other = _SIDES[side.lower().replace("-", "")]
        if side.isupper():
            return other.upper() + ending
        return (other.capitalize() if side[0].isupper() else other) + ending

    return _SIDED.sub(turn, caption)
