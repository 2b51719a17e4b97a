"""What the commands share: where answers are printed, the options several of them take, and how a failure ends.

Answers go to standard output, everything else to standard error. On a terminal prose is wrapped between words; where output is
no terminal each line and each row of a table is one line, however long, so that a script finds whole names. Times are UTC, as
the store writes them: ``2026-11-22 12:30:05``, and headings say so. Nothing that is printed commands the terminal: names of
files and words of others are made harmless here (`wfm.log.printable`), and only the colours of our own tables stay.
"""

import codecs
import io
import os
import re
import shutil
import sys
import textwrap
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

from pipelines.runs.display import careful_console
from pipelines.wfm_home import home, write_private
from wfm.artifacts.address import ID_PATTERN
from wfm.artifacts.runs import FAILED_PLAN, SUBMISSION
from wfm.credentials import without_credentials
from wfm.errors import InputError, WfmError
from wfm.log import printable
from wfm.terminal_table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

StoreOption = Annotated[
    str,
    typer.Option(
        "--store", metavar="URL", envvar="WFM_STORE", help="Store: a folder, s3:// or gs:// (default ./wfm-store)."
    ),
]
NameOption = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Call what is made so: dataset/NAME, model/NAME-FAMILY. Default: the recipe's names."
    ),
]
PromoteOption = Annotated[
    bool, typer.Option("--promote/--no-promote", help="Give results their names; else only keys lead to them.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there already under that name.")]
STORE_DEFAULT = ""
LAST = "last"
_WIDTH_WITHOUT_TERMINAL = 10_000
_DIGITS = 8
_LETTERS_TO_CHANGE = 4
"""So much of an id do commands want that cancel, suspend, resume a run or run it again: the 8 digits at its end are random, and
any single one begins those of some run."""
_LETTERS = str.maketrans("✔✘▶↻■–—·…×→“”‘’", "+x>~#--..x>\"\"''")
"""What stands for our marks on a terminal that has ASCII alone, one for one, so that columns stay."""


def open_store(url: str, *, new: bool = False) -> "Store":
    """The store of a command; `new`: it may be one that is not there yet, for commands that write. Raises InputError else."""
    from wfm.artifacts import environment

    store = environment.open_store(url)
    if not new:
        from wfm.artifacts.missing_store import require_store

        return require_store(store)
    return store


def open_run(store: "Store", run_id: str, *, change: bool = False) -> "Run":
    """A run by its id, the beginning of one, or ``last``; to ``change`` it, by a beginning that is no slip of the hand."""
    if run_id != LAST:
        return store.runs.open(run_id, at_least=_LETTERS_TO_CHANGE if change else 1)
    for newest in store.runs.list():
        try:
            # one that a cluster is asked for has its spec later, and one whose plan failed there has none
            if newest.read(SUBMISSION) is None and newest.read(FAILED_PLAN) is None:
                newest.spec()
        except InputError as error:  # one that was never whole must not stand before the others for ever
            warn(f"passed over: {error}")
            continue
        return newest
    raise InputError(f"{store.url} has no runs yet: `wfm run world_model` makes one")


def answers() -> "Console":
    """Standard output."""
    return _console(stderr=False)


def notices() -> "Console":
    """Standard error."""
    return _console(stderr=True)


def _console(stderr: bool) -> "Console":
    stream = sys.stderr if stderr else sys.stdout
    return careful_console(stderr=stderr, width=None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL)


def table(*headings: str, prose: str | None = None, title: str = "") -> Table:
    """A table in the style of all commands (`wfm.terminal_table`): `row` fills it, `show_table` prints it. ``prose``:
    heading of the last column, whose text gives way."""
    return Table(*headings, prose=prose, title=title)


def show_table(made: Table) -> None:
    """Print a table as an answer."""
    answers().print(made)


def say(text: str) -> None:
    """One plain line of an answer (or several of our own)."""
    print(_fitted(text, sys.stdout), flush=True)


def warn(text: str) -> None:
    """One line beside the answer, whole: it may name a file or a command to copy."""
    print(_fitted(text, sys.stderr), file=sys.stderr, flush=True)


def _fitted(text: str, stream: TextIO) -> str:
    """Harmless, and on a terminal wrapped between words; a path or an id that is longer stays whole."""
    text = printable(text)
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(
            line,
            width,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        ) or [""]
    return "\n".join(lines)


def age(unix_seconds: float) -> str:
    """``2026-11-22 12:30:05`` in UTC; empty for 0. Headings say ``(UTC)``, sentences put it behind."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(unix_seconds)) if unix_seconds else ""


def moment(written: str) -> str:
    """A time as the store writes it (``2026-11-22T12:30:05.123Z``) in the same form."""
    return written[:19].replace("T", " ")


def spell_out() -> None:
    """Let both streams take any text: what their encoding lacks is spelt with ASCII marks, or as ``\\u9ad8``."""
    codecs.register_error("wfm_spelt", _spelt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="wfm_spelt")


def _spelt(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_LETTERS)
    return text.encode("ascii", "backslashreplace").decode(), error.end


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Run ids as a list shows them: of those that we make the 8 digits at their end, which `open_run` takes (the time before
    them stands in a column of its own); one that was given is a name, and whole. So are all where output is no terminal."""
    every = list(ids)
    if not sys.stdout.isatty():
        return dict(zip(every, every, strict=True))
    ends = Counter(name[-_DIGITS:] for name in every)
    return {
        name: name[-_DIGITS:] if ID_PATTERN.fullmatch(name) and ends[name[-_DIGITS:]] == 1 else name for name in every
    }


def many(count: int, one: str, more: str = "") -> str:
    """``1 file``, ``2 files``; `more`: the plural where it is another word than with an s."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def guarded(command: Callable[[], Any]) -> NoReturn:
    """Run a command line to the end of the process: errors as one message and an exit code, never a stack trace."""
    code = 0
    try:
        answer = command()
        code = answer if isinstance(answer, int) else 0
    except typer.Exit as leaving:
        code = leaving.exit_code
    except (typer.Abort, KeyboardInterrupt):
        _complain("interrupted")
        code = 143
    except WfmError as error:
        _complain(str(error))
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `wfm ... | head` is no error
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "format_message"):  # click's usage errors, whoever vendors click
            if near := getattr(error, "possibilities", None):
                error.message, error.possibilities = f"{error.message}. Did you mean {' or '.join(near)}?", None  # type: ignore[attr-defined]
            error.show()
            _leave(InputError.exit_code)
        story = _without_secrets(f"wfm {' '.join(sys.argv[1:])}\n{traceback.format_exc()}")
        try:
            where = home().parent / "errors" / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.txt"
            write_private(where, story)
            story = f"the whole story is in {where}"
        except (WfmError, OSError):  # a home that is not ours, or cannot be written: told here instead
            pass
        _complain(f"this is a bug of ours: {type(error).__name__}: {_without_secrets(str(error))}\n{story}")
        code = 1
    _leave(code)


def _without_secrets(text: str) -> str:
    """Addresses lose what they carry: such a text is sent to others."""
    return re.sub(r"\S+://\S+", lambda address: without_credentials(address[0]), text)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is said. Prefect's threads take seconds to say goodbye; pyarrow's (26.0.1) may abort the process in its
    # destructors ("terminate called without an active exception", 134), and so turn what was done into a failure.
    if "prefect" in sys.modules or "pyarrow" in sys.modules:
        os._exit(code)
    sys.exit(code)


def _complain(text: str) -> None:
    warn(f"wfm: {text}")
