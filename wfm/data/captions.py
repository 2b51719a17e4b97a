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

import torch
from torch import Tensor

from wfm.data.dataset_parts import split_files
from wfm.errors import DataError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact


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


def read_text(artifact: "Artifact", split: str, clips: Sequence[str], mirrored: Sequence[bool]) -> CaptionTable:
    """The text of samples, by their clips and whether each is a mirror image. Raises DataError, with how many and one of them,
    where there is no caption of a clip: every sample has its text, or none has."""
    import pyarrow.parquet as pq

    paths = split_files(artifact, split)
    of: dict[tuple[str, bool], str] = {}
    for path in (path for path in paths if path.endswith("/samples.parquet")):
        table = pq.read_table(artifact.fetch(path)).to_pydict()
        of |= zip(zip(table["clip_id"], table["mirrored"], strict=True), table["caption"], strict=True)
    samples = list(zip(clips, mirrored, strict=True))
    missing = sorted({sample for sample in samples if sample not in of})
    if missing:
        clip, turned = missing[0]
        raise DataError(
            f"{len(missing)} of {len(set(samples))} clips have no text, such as {clip}{' mirrored' if turned else ''}: encode "
            f"the text of the same data set, with {split!r} among encode_text.splits and mirror as encode_latents has it"
        )
    ends = ("/captions.safetensors", "/captions.parquet")
    files, texts = ([artifact.fetch(path) for path in paths if path.endswith(end)] for end in ends)
    return read_captions(files, texts, [of[sample] for sample in samples])


def read_captions(files: Iterable[Path], texts: Iterable[Path], samples: Sequence[str]) -> CaptionTable:
    """Merge the parts' embeddings into one table for samples with the captions `samples`, those that are used alone.

    Raises DataError when a caption has no embedding, a file and its texts do not match, or the parts differ in width.
    """
    import pyarrow.parquet as pq
    from safetensors.torch import load_file

    needed = set(samples)
    known: dict[str, Tensor] = {}
    for file, table in zip(files, texts, strict=True):
        tensors, names = load_file(str(file)), pq.read_table(table).column("caption").to_pylist()
        lengths = tensors["lengths"].tolist()
        if len(lengths) != len(names) or sum(lengths) != len(tensors["embeddings"]):
            raise DataError(
                f"{file}: {len(lengths)} captions of {sum(lengths)} tokens do not fit its table {table.name}"
            )
        parts = tensors["embeddings"].split(lengths)
        known.update({name: part for name, part in zip(names, parts, strict=True) if name in needed})
    missing = sorted(set(samples) - set(known))
    if missing:
        raise DataError(f"{len(missing)} captions have no embedding, such as {missing[0]!r}: encode the text again")
    widths = {part.shape[1] for part in known.values()}
    if len(widths) > 1:
        raise DataError(f"text embeddings are {sorted(widths)} wide in different parts: one encoder must make them all")
    order = sorted(set(samples))
    number = {caption: i for i, caption in enumerate(order)}
    return CaptionTable(
        torch.cat([known[caption] for caption in order]) if order else torch.zeros(0, 0),
        torch.tensor([len(known[caption]) for caption in order], dtype=torch.int64),
        torch.tensor([number[caption] for caption in samples], dtype=torch.int64),
    )


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
