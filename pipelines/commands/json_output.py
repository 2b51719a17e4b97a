"""``--json``: the answer of a command for scripts, one JSON document on standard output and nothing else there.

Each answer is a pydantic model, so that its schema is published and tests hold the output against it. Fields have the names
that the text output uses; times are UTC in ISO 8601, durations seconds, sizes bytes; a new field may be added, none changes its
meaning.
"""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pydantic

JsonOption = Annotated[bool, typer.Option("--json", help="The answer as one JSON document, for scripts.")]


def say_json(answer: "pydantic.BaseModel") -> None:
    """Print the answer."""
    sys.stdout.write(answer.model_dump_json(indent=2) + "\n")
    sys.stdout.flush()
