"""The one style of all tables: no frame, columns as wide as what stands in them, numbers to the right, nothing cut off.

A column in which nothing stands is not shown. Prose gives way: it is wrapped in the width that is left, and where that is
little it stands below its row. Where even the rest is too wide for the terminal its last columns go below too, each with its
heading. No word is ever shortened: a name or a state that a terminal abbreviates cannot be typed again.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

_GAP = 2
_INDENT = 4
_LEAST_PROSE = 40
"""Where less than this is left [columns], prose that takes more than a line stands below its row."""
_NUMBER = re.compile(r"[-+~]?[\d.,:]*\d[\d.,:]*(?: ?(?:%|[A-Za-z]{1,4}))?")


class Cell(NamedTuple):
    """A word with a style of its own."""

    text: str
    style: str = ""


class Table:
    """Rows under headings, for `rich` to print. ``prose``: heading of the one column that gives way; it comes last. `caption`:
    what stands below all rows, wrapped."""

    def __init__(self, *headings: str, prose: str | None = None, title: str = "", caption: str = "") -> None:
        self._headings = [*headings, *([] if prose is None else [prose])]
        self._has_prose, self._title, self._caption = prose is not None, title, caption
        self._rows: list[tuple[list[Cell], str]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, *cells: "str | Cell", style: str = "") -> None:
        """Add a row; a row may end early."""
        made = [cell if isinstance(cell, Cell) else Cell(cell) for cell in cells]
        self._rows.append((made + [Cell("")] * (len(self._headings) - len(made)), style))

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Text]":
        from rich.text import Text

        if self._title:
            yield Text(self._title, style="bold")
        used = [at for at in range(len(self._headings)) if any(cells[at].text for cells, _ in self._rows)]
        prose = used.pop() if self._has_prose and used and used[-1] == len(self._headings) - 1 else None
        widths = {at: self._width(at) for at in used}
        beside, below = list(used), list[int]()
        while len(beside) > 1 and _together(widths, beside) > options.max_width:
            below.insert(0, beside.pop())
        left = options.max_width - _together(widths, beside) - _GAP if not below else 0
        headings = [Cell(heading, "bold") for heading in self._headings]
        if any(headings[at].text for at in [*beside, *([] if prose is None else [prose])]):
            last = headings[prose].text if prose is not None and left >= len(headings[prose].text) else ""
            yield _bare(self._line(headings, "", beside, widths).append(last, "bold"))
        for cells, style in self._rows:
            words = Text(cells[prose].text, cells[prose].style) if prose is not None else Text("")
            line = self._line(cells, style, beside, widths)
            if left >= _LEAST_PROSE or words.cell_len <= left:
                first, *more = words.wrap(console, max(left, 1)) or [Text("")]
                yield _bare(line.append_text(first))
                yield from (
                    _bare(Text(" " * (_together(widths, beside) + _GAP), style).append_text(part)) for part in more
                )
                words = Text("")
            else:
                yield _bare(line)
            told = ", ".join(f"{self._headings[at]} {cells[at].text}" for at in below if cells[at].text)
            for part in (Text(told), words):
                yield from (
                    _bare(Text(" " * _INDENT, style).append_text(each))
                    for each in part.wrap(console, options.max_width - _INDENT)
                    if each
                )
        if self._caption:
            yield from map(_bare, Text(self._caption, "dim").wrap(console, options.max_width))

    def _width(self, at: int) -> int:
        from rich.cells import cell_len

        return max(cell_len(text) for text in (self._headings[at], *(cells[at].text for cells, _ in self._rows)))

    def _right(self, at: int) -> bool:
        """Whether a column is of numbers."""
        return all(_NUMBER.fullmatch(cells[at].text) for cells, _ in self._rows if cells[at].text)

    def _line(self, cells: Sequence[Cell], style: str, beside: Sequence[int], widths: dict[int, int]) -> "Text":
        """The columns that stand beside each other, with a gap behind each."""
        from rich.cells import cell_len
        from rich.text import Text

        line = Text(style=style)
        for at in beside:
            text, of = cells[at]
            pad = " " * (widths[at] - cell_len(text))
            line.append(pad + text if self._right(at) else text + pad, of or None).append(" " * _GAP)
        return line


def _bare(line: "Text") -> "Text":
    line.rstrip()
    return line


def _together(widths: dict[int, int], beside: Sequence[int]) -> int:
    return sum(widths[at] for at in beside) + _GAP * max(len(beside) - 1, 0)
