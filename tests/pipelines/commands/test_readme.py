"""The README names commands and options that are there."""

import re
import shlex
from pathlib import Path
from typing import Any

import typer

from pipelines.commands.cli import app

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "README.md").read_text()
LINES = re.findall(r"^ {4}(wfm .*)$", TEXT, re.MULTILINE) + re.findall(r"`(wfm [^`]+)`", TEXT)


def commands() -> list[list[str]]:
    """The words of each command, without what is said of it."""
    found = []
    for line in LINES:
        for part in re.split(r"\s{2,}(?=wfm )|;\s+(?=wfm )", line.partition(" # ")[0]):
            found.append(shlex.split(part.replace("…", "").replace(",", " ")))
    return found


def wrong(words: list[str]) -> str:
    """What of a command is not there, or ""."""
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while hasattr(command, "commands"):
        if not rest:
            return ""
        name = rest.pop(0)
        if name not in command.commands:
            return f"no command {name!r}; there are {', '.join(sorted(command.commands))}"
        command = command.commands[name]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    missing = [word for word in rest if word.startswith("-") and word.partition("=")[0] not in options]
    return f"no option {', '.join(missing)}; there are {', '.join(sorted(options))}" if missing else ""


def test_commands_of_the_readme_exist() -> None:
    found = commands()
    assert len(found) > 20
    assert {" ".join(words): says for words in found if (says := wrong(words))} == {}
