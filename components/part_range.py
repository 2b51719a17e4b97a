"""Part ranges: a process that makes a share of a stage's parts and no artifact; the plain call finds the parts and commits.

    --parts 3/7                       the fourth of seven ranges, counted from 0 as Kubernetes counts the pods of an Indexed Job
    --parts JOB_COMPLETION_INDEX/7    the same, its number taken from a variable that the cluster sets in each of them

A range is every seventh part in order of name, beginning with the third. The stage's key says which parts there are, so all
ranges of a key see the same ones: together they are all parts, each is in one range, and no range has two more than another.
Which range a part is in decides nothing of what is in it, and each is made under a lease of its own: ranges that overlap, since
a lost one was started again or the number of ranges was changed, make nothing twice.
"""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass

from wfm.errors import ConfigError

IN_PARTS = (
    "caption_clips",
    "embed_clips",
    "encode_latents",
    "encode_signals",
    "encode_text",
    "generate_videos",
    "ingest_videos",
    "score_clips",
    "simulate_videos",
    "split_clips",
    "write_shards",
)
"""Components that make their work in parts (`Context.map_parts`). The others look at the whole at once: dedup_clips compares
every clip with every other, select_clips, cluster_clips and classify_clips choose among all of them from tables alone,
evaluate_model's intervals are over all windows, a training has ranks instead."""
MOST_RANGES = 1_000_000
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_RANGE = re.compile(r"([0-9]{1,7})/([0-9]{1,7})")


class RangeDone(Exception):
    """The parts of a range are there: what follows in a stage's ``run`` needs all parts, and is for the plain call."""


@dataclass(frozen=True)
class PartRange:
    """Range `index` (counted from 0) of `of` ranges."""

    index: int
    of: int

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def among(self, names: Collection[str]) -> list[str]:
        """Those of the parts `names` that are in this range, in order of name."""
        return sorted(names)[self.index :: self.of]

    @classmethod
    def parse(cls, text: str) -> "PartRange":
        """``3/7``. Raises ConfigError for anything else, and for a range that there is not."""
        match = _RANGE.fullmatch(text)
        if match is None:
            name = text.partition("/")[0]
            hint = f"; no variable {name} is set here" if _VARIABLE.fullmatch(name) else ""
            forms = "I/N, such as 3/7, or VARIABLE/N, such as JOB_COMPLETION_INDEX/7"
            raise ConfigError(f"--parts {text[:100]!r} is not of the form {forms}{hint}")
        index, of = int(match[1]), int(match[2])
        if not 1 <= of <= MOST_RANGES:
            raise ConfigError(f"--parts {text}: {of} ranges; choose 1 to {MOST_RANGES}")
        if index >= of:
            raise ConfigError(f"--parts {text}: of {of} ranges the last is {of - 1}/{of}: they are counted from 0")
        return cls(index, of)


def with_index(text: str) -> str:
    """``JOB_COMPLETION_INDEX/7`` -> ``3/7`` where that variable is 3; any other text as it is."""
    name, slash, of = text.partition("/")
    return f"{os.environ.get(name, name)}{slash}{of}" if _VARIABLE.fullmatch(name) else text


def check_in_parts(component: str) -> None:
    """Raise ConfigError for a component that does not work in parts."""
    if component not in IN_PARTS:
        raise ConfigError(
            f"--parts: {component} does not work in parts, it looks at all of its inputs at once: call it without. "
            f"These work in parts: {', '.join(IN_PARTS)}"
        )
