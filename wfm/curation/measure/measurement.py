"""A measurement is a declared row: its column, what it means, how it is read of a clip, which limits may be set on it.

    MEASUREMENTS = (
        Measurement(
            name="blockiness",
            kind=float,
            words="How much more brightness jumps at the seams of coding blocks than elsewhere.",
            of=lambda seen: seen.seams,
            limits=(Limit(reason="blocky", option="measured.maximum_blockiness"),),
        ),
    )

A file of `wfm/curation/measure/measurements` that defines such rows is all there is to a measurement. From the row follow its
column in ``measures.parquet`` of the scores and in the public table of clips, and its words in the README of a data set; from a
limit follow the option of select_clips (off until somebody sets it), the filter and its reason, its line in the report of
thresholds, and what the page of a run says of a clip that it refused.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from wfm.errors import ConfigError

if TYPE_CHECKING:
    from wfm.curation.one_pass import Consumer

LAST = 1000
"""Place of whatever was declared later than the rest: after it, in order of the files' names."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A filter from a measurement: refuses what is above the option's value, or below."""

    reason: str
    "Code that a refused clip carries."
    option: str
    """Field of select_clips, ``measured.maximum_...`` or ``measured.minimum_...``: its name says on which side. One that
    `SelectConfig` and `FirstLimits` do not have is made from this row, and is off."""
    words: str = ""
    "What the option means, where it is made from this row; the measurement's own words if empty."
    evidence: str | None = None
    "What the page says of a refused clip, such as ``{:.0%} of frames black``. None: its name and value. Empty: nothing."
    of: Callable[[Any], float | None] | None = None
    "What is held against the option, from the whole row of the table; None: the measurement itself."
    place: int = LAST
    "Filters go by it: the first that refuses a clip names the reason."

    def __post_init__(self) -> None:
        """Raises ConfigError for an option whose name does not say on which side it refuses."""
        if not re.fullmatch(r"(measured\.)?(maximum|minimum)_[a-z0-9_]+", self.option):
            raise ConfigError(f"limit {self.option!r}: name it maximum_... or minimum_..., under measured")

    @property
    def above(self) -> bool:
        """Whether it refuses what is above."""
        return self.option.rpartition(".")[2].startswith("maximum_")

    @property
    def ours(self) -> str:
        """Name of the option among those ``measured``; empty for one of select_clips itself."""
        return self.option.removeprefix("measured.") if self.option.startswith("measured.") else ""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number (or word) of a clip."""

    name: str
    "Its column."
    of: Callable[[Any], Any]
    "`score.Seen` of a clip, after the pass -> the value, None where it is not known."
    table: Literal["scores", "measures"] = "measures"
    "``scores``: a column of `wfm.curation.rows.Score`, where its type and words stand; every clip has it."
    kind: type = float
    "float, int, bool or str."
    words: str = ""
    "What it means, with its unit in brackets: a sentence or two."
    share: bool = False
    "Whether it lies between 0 and 1, and so do limits on it."
    null: bool = True
    "Whether it may be missing: of the columns that the first tables of measures did not have, older tables hold none."
    time: bool = False
    "Whether it takes time to see: then it is null for a still image, and limits on it say nothing of one."
    asked: str = ""
    "The option of score_clips that it needs beside measures=true, such as ``nsfw=true``."
    watch: "Callable[[Any], Consumer] | None" = None
    """A consumer of its own in the pass over a clip, from the `score.Watch` that it joins, which makes the usual ones
    (`gather`); `Seen.own` gives it back."""
    limits: tuple[Limit, ...] = ()
    place: int = LAST
    "Columns go by it."

    def evidence(self, limit: Limit) -> str:
        """A format of the value for people; empty for nothing to say."""
        return f"{self.name.replace('_', ' ')} {{:.3g}}" if limit.evidence is None else limit.evidence

    def judged(self, limit: Limit) -> Callable[[Any], Any]:
        """What a limit looks at: a row of the table -> the value."""
        return limit.of or operator.attrgetter(self.name)
