"""Clips and still images at their own shape: whole, at their own size, aspect and rate, as far as a tokenizer divides them.

Of a picture the sides become multiples of what the tokenizer packs into one latent position, within a limit of pixels: it is
scaled down as one, so that its aspect stays, never up, and what is over on either side of the middle (less than one position)
is cut off. Of a clip the frames become 1 + n x what it packs into one latent frame; what is over at the end is counted.
"""

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wfm.data.clip_frames import open_frames, row_of
from wfm.data.shards import iter_samples
from wfm.data.windows import Window, window_at
from wfm.errors import DataError


class TooSmall(DataError):
    """A side of a picture is shorter than one latent position."""


@dataclass(frozen=True)
class OwnSize:
    """Sizes of pictures (height, width) for a tokenizer of `multiple` pixels a latent position."""

    max_pixels: int
    "Of a picture; larger ones are scaled down."
    multiple: int

    def __call__(self, height: int, width: int) -> tuple[int, int]:
        """What a picture of that size is scaled to; `cut` takes the middle of it. Raises TooSmall."""
        tall, wide = self.sides(height, width)
        if tall * width >= wide * height:  # the width is over
            return tall, width * tall // height
        return height * wide // width, wide

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """The sides that are left of a picture of that size. Raises TooSmall."""
        tall, wide = height, width
        if height * width > self.max_pixels:
            tall, wide = (math.isqrt(self.max_pixels * a // b) for a, b in ((height, width), (width, height)))
        tall, wide = tall // self.multiple * self.multiple, wide // self.multiple * self.multiple
        if not tall or not wide:
            raise TooSmall(
                f"a picture of {height}x{width} pixels, at most {self.max_pixels} of them, has a side of less than the "
                f"{self.multiple} pixels of one latent position"
            )
        return tall, wide


@dataclass(frozen=True)
class OwnShape:
    """What a tokenizer takes of a clip."""

    size: OwnSize
    temporal: int
    "Frames of a latent frame after the first."
    max_frames: int = 0
    "Of a sample; a longer clip gives several, one after the other. 0: any number."

    def samples(self, shards: Iterable[Path], exclude: Collection[str], counts: Counter[str]) -> Iterator[Window]:
        """What is taken of the clips of some shards, without the keys of `exclude`, one sample in memory.

        Counts `clips`; those of which nothing is taken by reason, `too_small` or `too_short` (no second latent frame: it would
        be a still image); and frames that are left over at the end of a clip, `frames_left_over`. Where a clip's row says how
        many frames it has, none that is left over is decoded.
        """
        for path in shards:
            for sample in iter_samples(path):
                if sample.key in exclude:
                    continue
                counts["clips"] += 1
                try:
                    with open_frames(sample, self.size) as frames:
                        yield from self.pieces(sample.key, row_of(sample), frames, counts)
                except TooSmall:
                    counts["too_small"] += 1

    def pieces(
        self, clip_id: str, row: Mapping[str, Any], frames: Iterable[np.ndarray], counts: Counter[str]
    ) -> Iterator[Window]:
        """The samples of one clip, one after the other, as its frames come; not one more is asked for than they need."""
        still = self.temporal == 1 or self.max_frames == 1 or row.get("kind") == "image"
        least = 1 if still else 1 + self.temporal
        most = self._taken(self.max_frames)
        said = row.get("num_frames")
        stated = said if isinstance(said, int) and said > 0 else None
        wanted = None if stated is None else self._wanted(stated, least)
        held: list[np.ndarray] = []
        seen = taken = 0
        # The first one is looked at in any case: it tells whether the clip is too small.
        for frame in itertools.islice(frames, None if wanted is None else max(1, wanted)):
            seen += 1
            if self.max_frames and most < least:
                continue  # no sample is long enough: frames are counted alone
            held.append(self._middle(frame))
            if len(held) == most:
                yield window_at(clip_id, row, taken, np.stack(held))
                taken, held = taken + most, []
        rest = self._taken(len(held))
        if rest >= least:
            yield window_at(clip_id, row, taken, np.stack(held[:rest]))
            taken += rest
        counts["too_short"] += not taken
        total = seen if wanted is None or seen < max(1, wanted) else max(seen, stated or 0)
        counts["frames_left_over"] += total - taken

    def _wanted(self, total: int, least: int) -> int:
        """How many frames of a clip's `total` are taken."""
        most = self._taken(self.max_frames or total)
        if most < least:
            return 0
        whole = total // most * most
        rest = self._taken(total - whole)
        return whole + (rest if rest >= least else 0)

    def _middle(self, frame: np.ndarray) -> np.ndarray:
        """What is left of a frame."""
        height, width = frame.shape[:2]
        tall, wide = (side // self.size.multiple * self.size.multiple for side in (height, width))
        top, left = (height - tall) // 2, (width - wide) // 2
        return frame[top : top + tall, left : left + wide]

    def _taken(self, frames: int) -> int:
        """The most frames, of so many, that the tokenizer takes; 0 of none."""
        return 1 + (frames - 1) // self.temporal * self.temporal if frames > 0 else 0
