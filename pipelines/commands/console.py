"""What the commands share: where answers are printed, the options several of them take, and how a failure ends.

Answers go to standard output, everything else to standard error. Where output is not a terminal tables are wide, so that a
script or a test finds whole names. Nothing that is printed commands the terminal: names of files and words of others are made
harmless here (`wfm.log.printable`), and only the colours and lines of our own tables stay.
"""

import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pipelines.runs.display import careful_console
from pipelines.wfm_home import home, write_private
from wfm.artifacts.runs import SUBMISSION
from wfm.credentials import without_credentials
from wfm.errors import InputError, WfmError
from wfm.log import printable

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
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there already under that name.")]
STORE_DEFAULT = ""
LAST = "last"
_WIDTH_WITHOUT_TERMINAL = 200


def open_store(url: str) -> "Store":
    """The store of a command."""
    from wfm.artifacts import environment

    return environment.open_store(url)


def open_run(store: "Store", run_id: str) -> "Run":
    """A run by its id, the beginning of one, or ``last``."""
    if run_id != LAST:
        return store.runs.open(run_id)
    for newest in store.runs.list():
        try:
            if newest.read(SUBMISSION) is None:  # one that a cluster is asked for has its spec later
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


def say(text: str) -> None:
    """One plain line of an answer (or several of our own)."""
    print(printable(text), flush=True)


def warn(text: str) -> None:
    """One line beside the answer, whole: it may name a file or a command to copy."""
    print(printable(text), file=sys.stderr, flush=True)


def age(unix_seconds: float) -> str:
    """``2026-11-22 12:30:05`` in local time; empty for 0."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_seconds)) if unix_seconds else ""


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
    if "prefect" in sys.modules:
        os._exit(code)  # its threads take seconds to say goodbye, and there is nothing left to do
    sys.exit(code)


def _complain(text: str) -> None:
    print(f"wfm: {printable(text)}", file=sys.stderr, flush=True)
