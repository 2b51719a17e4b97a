"""The written pages, read as a newcomer types from them: blocks of code, commands, links, anchors."""

import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer
from typer._click.exceptions import ClickException

from pipelines.commands.cli import app

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:^(?: {4}| {8,}).*\n|^\n(?= {4}))+", re.MULTILINE)
FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"``([^`]+)``|`([^`]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
HEREDOC = re.compile(r"<<-? *'?(\w+)'?.*\n(?:.*\n)*? *\1$", re.MULTILINE)
SAID = re.compile(r"\s{2,}(?![-&|>\\])|\s#\s")
"""Where what is said of a command begins: after two blanks, or a hash."""


FIRST = {"wfm schedule": "serve"}
"""Group -> the command that is meant where the next word is none of its commands."""


class Line(NamedTuple):
    """A command as it stands on a page."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def pages() -> dict[str, str]:
    """Every page that people read, by its path from the root."""
    names = ["README.md", "CONTRIBUTING.md", "images/README.md", "examples/README.md"]
    names += [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))]
    return {name: (ROOT / name).read_text() for name in names if (ROOT / name).is_file()}


def blocks(text: str) -> list[str]:
    """What is set as code: indented by four, or fenced."""
    fenced = FENCE.findall(text)
    indented = BLOCK.findall(FENCE.sub("", text))
    return [re.sub("^ {4}", "", one, flags=re.MULTILINE).strip("\n") for one in indented if one.strip()] + fenced


def spans(text: str) -> Iterator[str]:
    """What stands in backticks between the words of a page."""
    for double, single in CODE.findall(BLOCK.sub("", FENCE.sub("", text))):
        yield double or single


def commands(text: str, page: str = "") -> Iterator[Line]:
    """Every `wfm`, `make` and `python -m` line of the blocks of a page, without what is said of it beside.

    A line that ends with a backslash goes on. Names stand before a command as the shell takes them (`WFM_STORE=… wfm run`);
    of a pipe or a list (`a | b`, `a && b`, `a & b`) each piece is a command.
    """
    for block in blocks(text):
        for line in re.sub(r"\s*\\\n\s*", " ", HEREDOC.sub("", block)).splitlines():
            for piece in re.split(r"\s(?:\|\|?|&&?|;)\s|\s{2,}(?=wfm )", line.strip().removeprefix("$ ")):
                words = _words(SAID.split(piece.strip())[0])
                if words[:1] in (["wfm"], ["make"]) or words[:2] == ["python", "-m"]:
                    yield Line(page, tuple(words))


def _words(text: str) -> list[str]:
    text = re.sub(r"\s*&?[<>]{1,2}\s*[\w./-]+$", "", text)
    try:
        words = shlex.split(text)
    except ValueError:
        return []
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    return words


@functools.cache
def command_tree() -> dict[str, Any]:
    """Name -> command, of all that `wfm` has; groups too, under their own name."""
    found: dict[str, Any] = {}

    def walk(command: Any, name: str) -> None:
        found[name] = command
        for word, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{name} {word}")

    walk(typer.main.get_command(app), "wfm")
    return found


def wrong(words: list[str]) -> str:
    """What of a command is not there, or "": its name and its options, not their values."""
    command, rest = _found(words)
    if hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        return f"no command {rest[0]!r}; there are {', '.join(sorted(command.commands))}"
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options |= {"-h", "--help", "--version"}
    missing = [word for word in rest if word.startswith("-") and word.partition("=")[0] not in options]
    return f"no option {', '.join(missing)}; there are {', '.join(sorted(options))}" if missing else ""


def refused(words: list[str]) -> str:
    """What the command line says against a command, or "": nothing is run, but every option and value is taken."""
    command, context, rest = command_tree()["wfm"], None, list(words[1:])
    if not rest or {"-h", "--help", "--version"} & {*rest}:
        return wrong(words)
    try:
        while hasattr(command, "commands"):
            context = command.make_context("wfm", rest, parent=context)
            rest = [*context._protected_args, *context.args]
            if not rest:
                return ""
            _, command, rest = command.resolve_command(context, rest)
        command.make_context("wfm", rest, parent=context)
    except ClickException as error:
        return error.format_message()
    except typer.Exit:
        return ""
    return ""


def _found(words: list[str]) -> tuple[Any, list[str]]:
    name, rest = "wfm", list(words[1:])
    while rest and (found := f"{name} {rest[0]}") in command_tree():
        name, rest = found, rest[1:]
    if name in FIRST and rest and not rest[0].startswith("-"):
        name = f"{name} {FIRST[name]}"
    return command_tree()[name], rest


def anchors(text: str) -> set[str]:
    """What `#…` may lead to: headings by the rule of GitHub, where static site tools have the same."""
    made: dict[str, int] = {}
    found = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        name = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]|\]\([^)]*\)", "", heading).strip().lower()).replace(" ", "-")
        found.add(f"{name}-{made[name]}" if name in made else name)
        made[name] = made.get(name, 0) + 1
    return found
