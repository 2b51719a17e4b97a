"""``--json``: the answer of a command for scripts, one JSON document on standard output and nothing else there.

Each answer is a pydantic model, so that its schema is published and tests hold the output against it. Fields have the names
that the text output uses; times are UTC in ISO 8601, durations seconds, sizes bytes; a new field may be added, none changes its
meaning.

A command that takes `JsonOption` needs a line with ``--json`` in ``tests/pipelines/commands/snapshots``: there its answer is
held against the schema of the model that it gives to `say_json`, and ``make snapshots`` publishes that in ``docs/schemas``.
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
