"""The errors of wfm, and what each means to whoever decides about a retry.

Lower storeys raise these; only ``components/entrypoint.py`` and the CLI turn them into outcomes and exit codes. 78 is what
sysexits.h calls a configuration error; 64 and 65 are codes of Argo's own, and 64 was ours for wrong input before: records of
that time say so. `outcome_of` says what an error means, wherever it is caught; `may_retry` and `is_final` are the one place
that decides about another try, for engines and stages alike.

| error            | outcome       | exit code | retried? |
|------------------|---------------|-----------|----------|
| `InputError`     | `wrong_input` | 78        | never: the same input gives the same answer |
| `TryAgain`       | `try_again`   | 75        | with back-off, up to the stage's limit |
| `Cancelled`      | `cancelled`   | 143       | by whoever cancelled; work so far is kept |
| any other        | `bug`         | 1         | once at most: it is ours to mend |

A message names the field or file, the value seen, the choices, and what to do.
"""

import difflib
import errno
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

Outcome = Literal["done", "cached", "wrong_input", "try_again", "cancelled", "bug"]
"""How a try ends."""

BUG_RETRIES = 1
"""A bug is tried once more: it may have been the machine."""


_PASSING = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.EAGAIN,
    errno.ENOMEM,
    errno.ETIMEDOUT,
)
"""Errors of the system that may be gone at the next try: a disk that was full, a device that hiccuped."""


def did_you_mean(name: str, choices: Iterable[str], where: Path | None = None) -> str:
    """`` Did you mean 'world_model'?`` for a name that is none of the choices, to be put behind a sentence; "" where none is
    near. `where`: the folder that they stand in."""
    near = difflib.get_close_matches(name, list(choices), n=1)
    return f" Did you mean {str(where / near[0]) if where else near[0]!r}?" if near else ""


class WfmError(Exception):
    """Base of every error that wfm raises on purpose."""

    outcome: ClassVar[Outcome] = "bug"
    exit_code: ClassVar[int] = 1


class InputError(WfmError):
    """Wrong input or configuration: trying again cannot help."""

    outcome = "wrong_input"
    exit_code = 78


class ConfigError(InputError):
    """A configuration field is unknown, mistyped or contradicts another."""


class DataError(InputError):
    """Bytes that are not what they claim to be: corrupt, truncated, or of another hash."""


class MissingPackage(InputError):
    """An optional package is needed for this and not installed."""

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}, which is not installed: pip install 'wfm[{extra}]'")
        self.package, self.extra, self.purpose = package, extra, purpose

    def __reduce__(self) -> tuple[object, tuple[str, str, str]]:
        """Crosses processes: the default would call the constructor with the message alone."""
        return _missing_package, (self.package, self.extra, self.purpose)


def _missing_package(package: str, extra: str, purpose: str) -> MissingPackage:
    return MissingPackage(package, extra=extra, purpose=purpose)


class TryAgain(WfmError):
    """A passing trouble (network, quota, a peer that died): the same call may succeed later."""

    outcome = "try_again"
    exit_code = 75


class Cancelled(WfmError):
    """Someone asked to stop (SIGTERM): what is whole has been committed, the rest continues next time."""

    outcome = "cancelled"
    exit_code = 143


EXIT_OUTCOMES = {
    0: "done",
    **{kind.exit_code: kind.outcome for kind in (InputError, TryAgain, Cancelled)},
}
"""What a stage says by its exit code, where it wrote no outcome; any other code is a bug."""


def outcome_of(error: BaseException) -> Outcome:
    """What an error means for whoever decides about another try."""
    if isinstance(error, WfmError):
        return error.outcome
    passing = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _PASSING)
    return TryAgain.outcome if passing else WfmError.outcome


def exit_code_of(outcome: str) -> int:
    """The exit code that says the same as an outcome."""
    codes: dict[str, int] = {kind.outcome: kind.exit_code for kind in (InputError, TryAgain, Cancelled)}
    return 0 if outcome in ("done", "cached") else codes.get(outcome, WfmError.exit_code)


def is_final(outcomes: Sequence[str]) -> bool:
    """Whether a node whose tries of this key in this run ended so (in order) is beyond help, whatever an engine thinks."""
    if not outcomes:
        return False
    return outcomes[-1] == "wrong_input" or (outcomes[-1] == "bug" and outcomes.count("bug") > BUG_RETRIES)


def may_retry(outcomes: Sequence[str], retries: int) -> bool:
    """Whether an engine that may try `retries` times more than once gives a node another try after these."""
    return len(outcomes) <= retries and outcomes[-1] in ("try_again", "bug") and not is_final(outcomes)
