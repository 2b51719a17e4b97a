"""Logging and progress.

One logger tree under ``wfm``; lines go to standard error so that standard output stays a command's answer. ``progress``
shows a bar with rate and ETA on a terminal, and a plain line every few seconds where output is captured (a run's log).
What files and buckets are called is not ours: `printable` makes it harmless before a terminal sees it.
"""

import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_SECONDS_BETWEEN_LINES = 5.0
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves a cursor, colours, renames a window, fills a clipboard, or turns the direction of what follows; and halves of
characters, which no stream can encode. Newlines and tabs stay."""
_NEWLINES = re.compile(r"[\n\t]")


def printable(text: str, *, one_line: bool = False) -> str:
    """`text` with everything a terminal would obey written out as ``\\u001b``, as JSON does, so that JSON keeps its meaning.

    `one_line`: newlines and tabs too, for a name that must not pass for several.
    """
    text = _COMMANDS.sub(_written_out, text)
    return _NEWLINES.sub(_written_out, text) if one_line else text


def _written_out(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def get_logger(name: str) -> logging.Logger:
    """The logger of a module; ``name`` is usually ``__name__``."""
    return logging.getLogger(name if name.startswith("wfm") else f"wfm.{name}")


def set_up(level: str = "INFO") -> None:
    """Send wfm's log lines to standard error. Called by entry points only, never at import."""
    logger = logging.getLogger("wfm")
    logger.setLevel(level.upper())
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Printable(_FORMAT, "%H:%M:%S"))
        logger.addHandler(handler)
        logger.propagate = False


class _Printable(logging.Formatter):
    """Log lines that a terminal, or whoever reads the log later, can show. Their clock is UTC, as all times that wfm tells."""

    converter = time.gmtime  # type: ignore[assignment]  # also called with nothing

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class Progress(Protocol):
    """What ``progress`` yields."""

    def advance(self, n: float = 1, note: str = "") -> None:
        """Count ``n`` units as done; ``note`` is shown beside the bar (such as the loss)."""


@contextmanager
def progress(total: float | None, description: str, unit: str = "items", *, before: float = 0.0) -> Iterator[Progress]:
    """Show how far a long piece of work is, in ``unit`` a second and with the time left.

    ``before``: how much of ``total`` was done by an earlier process: it counts as done and not as speed.
    """
    if sys.stderr.isatty():
        with _bar(total, description, unit, before) as bar:
            yield bar
    else:
        lines = _Lines(total, description, unit, before)
        yield lines
        lines.close()


_told = ""


def last_progress() -> str:
    """The last line of progress that this process told, whatever of; "" before the first."""
    return _told


class _Lines:
    """Progress as log lines, at most one every few seconds."""

    def __init__(self, total: float | None, description: str, unit: str, before: float) -> None:
        self._total, self._description, self._unit, self._before = total, description, unit, before
        self._done, self._note = before, ""
        self._start = self._last = time.monotonic()
        self._log = get_logger("wfm.progress")

    def advance(self, n: float = 1, note: str = "") -> None:
        self._done, self._note = self._done + n, note
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            self._print(now, note)

    def _print(self, now: float, note: str) -> None:
        global _told
        seconds = max(now - self._start, 1e-9)
        rate = (self._done - self._before) / seconds
        of = f"/{self._total:g}" if self._total else ""
        left = f", {(self._total - self._done) / rate:.0f} s left" if self._total and rate > 0 else ""
        note = f", {note}" if note else ""
        _told = f"{self._description}: {self._done:g}{of} {self._unit}, {rate:.3g}/s{left}{note}"
        self._log.info("%s", _told)

    def close(self) -> None:
        seconds = time.monotonic() - self._start
        note = f", {self._note}" if self._note else ""
        before = f" ({self._before:g} of them before)" if self._before else ""
        self._log.info("%s: %g %s in %.1f s%s%s", self._description, self._done, self._unit, seconds, before, note)


@contextmanager
def _bar(total: float | None, description: str, unit: str, before: float) -> Iterator[Progress]:
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn(unit),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[note]}", markup=False),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(description, total=total, completed=before, note="")  # type: ignore[arg-type]

        class Bar:
            def advance(self, n: float = 1, note: str = "") -> None:
                bars.update(task, advance=n, note=printable(note, one_line=True))

        yield Bar()
