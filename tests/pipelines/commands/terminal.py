"""A terminal of 80 columns and 24 lines for ``wfm`` in this process, and what is made of its output so that it is the same
every day: ids, keys, times and this machine's folders are replaced by as many letters."""

import getpass
import io
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.commands.cli import app
from pipelines.commands.console import guarded

COLUMNS, LINES = 80, 24
CHANGING = (
    (re.compile(r"\b(?!2026010[12])\d{8}T\d{9}-[0-9a-f]{8}\b"), "20260101T000000000-00000000"),
    (re.compile(r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{12,64}\b"), "k"),
    (re.compile(r"\b20\d\d-\d\d-\d\d(?=[ T])"), "2026-01-01"),
    (re.compile(r"(?<=2026-01-01[ T])\d\d:\d\d(:\d\d(\.\d+)?)?"), "0"),
    (re.compile(r"\b30:0\d:\d\d\b"), "30:00:00"),  # what runs in `small_store` has run so long, and has so much left
    (re.compile(r"(?<= is )(planned|running)(?= on local)"), "pending"),  # of one that was submitted just now
    (re.compile(r"\b49:5\d:\d\d\b"), "50:00:00"),
)
"""What changes from day to day; a letter or digit stands for each of theirs, so that columns stay."""


class Screen(io.StringIO):
    """A stream that says it is a terminal; what is written to it stands on the glass too, where others write."""

    encoding = "utf-8"

    def __init__(self, glass: io.StringIO) -> None:
        super().__init__()
        self._glass = glass

    def write(self, text: str) -> int:
        self._glass.write(text)
        return super().write(text)

    def isatty(self) -> bool:
        return True


class Terminal:
    """Types a command line, and reads what comes: output and errors, as on a screen."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        for name, value in (("COLUMNS", str(COLUMNS)), ("LINES", str(LINES)), ("TERM", "dumb"), ("NO_COLOR", "1")):
            patch.setenv(name, value)
        patch.setattr("pipelines.commands.console.os._exit", sys.exit)

    def __call__(self, line: str) -> tuple[int, str, str]:
        """(exit code, what stands on the screen, what of it is standard output) of ``wfm ...``; of what a
        shell does it knows ``$(cat FILE)`` alone."""
        words = shlex.split(re.sub(r"\$\(cat (\S+)\)", lambda found: Path(found[1]).read_text().strip(), line))
        glass = io.StringIO()
        out, err = Screen(glass), Screen(glass)
        with self._patch.context() as patch:
            patch.setattr(sys, "argv", words)
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as leaving:
                guarded(lambda: app(args=words[1:], prog_name="wfm", standalone_mode=False))
        return int(leaving.value.code or 0), glass.getvalue(), out.getvalue()


def steady(text: str, *, sizes: bool = True) -> str:
    """The same text on every day and machine; `sizes`: so are those of files, and no key is of digits alone."""
    text = text.replace(f"{getpass.getuser()}@{socket.gethostname()}", "me@here")
    text = text.replace(os.getcwd(), "/tmp/wfm-snapshot"[: len(os.getcwd())])
    text = re.sub(r"/\S+/films/", "films/", text)
    if not sizes:
        text = re.sub(r"\b\d+(\.\d+)? K?i?B\b", "0.0 KiB", text)
        text = re.sub(r"\b(?!(\d)\1{11}\b)[0-9]{12}\b", "k" * 12, text)  # one key in 280; those of one digit are ours
    for pattern, by in CHANGING:
        text = pattern.sub(lambda found, by=by: by if len(by) > 1 else _of_length(found[0], by), text)
    return text


def _of_length(text: str, letter: str) -> str:
    return re.sub(r"[0-9a-f]", letter, text)


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, command) of every command and group, the whole first."""
    import typer

    group = group or typer.main.get_command(app)
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


def asked(file: Path) -> list[str]:
    """The command lines of a snapshot."""
    return [line[2:] for line in file.read_text().splitlines() if line.startswith("$ wfm")]
