"""`docs/commands.md`, renewed from the command line itself: `python -m tests.contracts.commands_page`.

Each command has a section: what its help says, an example and whatever else somebody wrote there, its options. Written text is
kept; help and options are those of today. A command without an example gets its usage for one.
"""

import re
import sys
from typing import Any

from tests.contracts.documents import ROOT, command_tree

PAGE = ROOT / "docs" / "commands.md"
SECTION = re.compile(r"^## (wfm.*)$", re.MULTILINE)
TABLE = re.compile(r"^\| (?:argument|option) .*\n(?:\|.*\n)+", re.MULTILINE)
HIDDEN = {"--install-completion", "--show-completion", "--help"}
STORE = "--store"
"""Said once, at the top of the page: nearly every command has it."""


def renewed(text: str) -> str:
    """The page as it should be, from the page as it is."""
    top, *rest = SECTION.split(text)
    written = dict(zip(rest[::2], rest[1::2], strict=True))
    named = {name: one for name, one in command_tree().items() if name != "wfm" and not one.hidden}
    sections = [section(name, one, written.get(name, "")) for name, one in named.items()]
    return "\n".join([top.rstrip("\n") + "\n", *sections])


def section(name: str, command: Any, before: str) -> str:
    """A command's own: heading, help, what was written, options."""
    help_lines = " ".join((command.help or "").split())
    own = TABLE.sub("", before).strip("\n")
    own = own.partition("\n\n")[2].strip("\n") if own else ""  # its first paragraph is the help of that time
    if not own and not hasattr(command, "commands"):
        own = "    " + usage(name, command)
    return "\n\n".join(part for part in (f"## {name}", escaped(help_lines), own, options(command)) if part) + "\n"


def usage(name: str, command: Any) -> str:
    """The command with all that it cannot do without."""
    words = [name]
    for one in command.params:
        if one.required:
            shown = (one.metavar or one.name).upper()
            words.append(f"{one.opts[0]} {shown}" if one.opts[0].startswith("-") else shown)
    return " ".join(words)


def options(command: Any) -> str:
    """A table of the arguments and options, without those that all have."""
    rows = []
    for one in command.params:
        if HIDDEN & {*one.opts} or STORE in one.opts or getattr(one, "hidden", False):
            continue
        names = [*one.opts, *one.secondary_opts] if one.opts[0].startswith("-") else [(one.metavar or one.name).upper()]
        needed = " Required." if one.required and one.opts[0].startswith("-") else ""
        rows.append(f"| {', '.join(f'`{word}`' for word in names)} | {escaped(one.help or '')}{needed}{default(one)} |")
    return "\n".join(["| option | |", "|---|---|", *rows]) if rows else ""


def default(one: Any) -> str:
    value = one.default
    plain = isinstance(value, int | float | str) and not isinstance(value, bool) and value != ""
    return f" Default: `{value}`." if plain and "efault" not in (one.help or "") and one.name != "store" else ""


def escaped(text: str) -> str:
    """Help as Markdown: what the terminal's markup escapes needs none here, and a bar would end a cell."""
    pieces = re.split(r"(`[^`]*`)", text.replace("\\[", "[").replace("|", "\\|"))
    return "".join(
        piece if piece.startswith("`") else piece.replace("*", "\\*").replace("<", "&lt;") for piece in pieces
    )


def main() -> None:
    """Renew the page."""
    PAGE.write_text(renewed(PAGE.read_text()))
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
