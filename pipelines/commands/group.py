"""How a group of commands lists them: each with the first sentence of its help, whole."""

import inspect
import re
from typing import Any

from typer.core import TyperGroup

_SENTENCE = re.compile(r"(?<=\.)\s")


class Group(TyperGroup):
    """A group whose list of commands is wrapped and never cut."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list (typer's own ends each line in ``...``)."""
        found = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        shown = [(name, each.short_help or each.help or "") for name, each in found if not each.hidden]
        with formatter.section("Commands"):
            formatter.write_dl([(name, first_sentence(text)) for name, text in shown])


def first_sentence(text: str) -> str:
    """Of a docstring, on one line."""
    paragraph = inspect.cleandoc(text).split("\n\n")[0]
    return _SENTENCE.split(" ".join(paragraph.split()), maxsplit=1)[0]
