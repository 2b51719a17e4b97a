"""What the ranks of a stage tell one another, on the board (`board.py`), and how they end."""

import dataclasses
import faulthandler
import re
import tempfile
from typing import Annotated, Literal

from pydantic import Field

from wfm.artifacts.schema import Count, Short
from wfm.errors import Outcome
from wfm.pulse import Sign

_MOST_WORDS = 20_000
_MOST_STACKS = 20_000  # characters of one rank
_OF_ANOTHER = re.compile(r"\brank [0-9]+ of [0-9]+[:,]")


@dataclasses.dataclass(frozen=True)
class End:
    """How a rank ended, or all of them."""

    outcome: Outcome
    reason: Annotated[str, Field(max_length=100_000)]
    exit_code: Annotated[int, Field(ge=0, lt=256)]

    @property
    def good(self) -> bool:
        """Whether it came to its end as it should."""
        return self.outcome in ("done", "cached")

    @property
    def told(self) -> "End":
        """The same in words that fit on a board, whatever an error says."""
        return dataclasses.replace(self, reason=self.reason[:_MOST_WORDS].encode(errors="replace").decode())

    @property
    def borrowed(self) -> bool:
        """Whether it only says that another rank failed or was lost (`wfm.parallel.ranks`)."""
        return bool(_OF_ANOTHER.search(self.reason))


@dataclasses.dataclass(frozen=True)
class Said:
    """What a rank says of itself; its whole word, rewritten again and again."""

    mark: Count
    "Counted up each time: a rank whose mark stands still does not answer."
    sign: Sign
    machine: Short
    host: Short
    pid: Annotated[int, Field(ge=0, lt=2**31)]
    pid_start: Short
    plan: Literal["", "make", "leave"] = ""
    "Rank 0's word on the key: there is something to make, or it is there already."
    key: Short = ""
    attempt: Count = 0
    "Number of the attempt that rank 0 opened."
    asks: bool = False
    "Rank 0 wants to see the stacks."
    stacks: Annotated[str, Field(max_length=10 * _MOST_STACKS)] = ""
    end: End | None = None
    heard: bool = False
    "This rank knows how all ended and leaves."


def stacks_of_all_threads() -> str:
    """Where every thread of this process is now; why that cannot be told, where no file can be made."""
    try:
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file=file, all_threads=True)
            file.seek(0)
            return file.read(_MOST_STACKS).decode(errors="replace")
    except OSError as error:  # a full disk must not keep a watch from ending what hangs
        return f"not to be seen: {error}"
