"""Pieces of Markdown: text from outside made harmless, tables, and the front matter that Hugging Face reads."""

import json
from collections.abc import Sequence
from typing import Any

from wfm.log import printable

_MARKS = "\\`*_{}[]<>#|&!~$"


def text(value: object, most: int = 400) -> str:
    """Text from outside on one line: no mark-up, no HTML, no link comes of it."""
    line = " ".join(printable(str(value)).split())
    line = line if len(line) <= most else f"{line[: most - 1]}…"
    for mark in _MARKS:
        line = line.replace(mark, "\\" + mark)
    return line.replace("://", ":\\//").replace("www.", "www\\.")


def code(value: str) -> str:
    """A word in a code span; what a code span cannot hold becomes plain text."""
    return (
        f"`{value}`"
        if value and not {"`", "|"} & set(value) and value == printable(value, one_line=True)
        else text(value)
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0) -> list[str]:
    """Lines of a table, padded to be read as they are; `numbers`: so many of the last columns are set to the right. Cells are
    Markdown already."""
    widths = [max(3, *(len(row[k]) for row in (heads, *rows))) for k in range(len(heads))]
    right = [k >= len(heads) - numbers for k in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(wide) if far else cell.ljust(wide) for cell, wide, far in zip(cells, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (wide - 1) + ":" if far else "-" * wide for wide, far in zip(widths, right, strict=True)]
    return [line(heads), line(rule), *(line(row) for row in rows)]


def front_matter(values: dict[str, Any]) -> list[str]:
    """The values as YAML between two rules. Every text is quoted as in JSON, which YAML reads alike."""
    return ["---", *_yaml(values, ""), "---"]


def _yaml(values: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_yaml(value, indent + "  ")]
        elif isinstance(value, list):
            lines.append(f"{indent}{name}:")
            for one in value:
                inner = _yaml(one, indent + "  ") if isinstance(one, dict) else [f"{indent}  {_scalar(one)}"]
                lines += [f"{indent}- {inner[0].lstrip()}", *inner[1:]]
        else:
            lines.append(f"{indent}{name}: {_scalar(value)}")
    return lines


def _scalar(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)
