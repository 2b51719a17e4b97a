"""``wfm artifacts card``: of one model or data set; ``catalogue``: of all, as plain HTML and JSON that a bucket can serve."""

import sys
from pathlib import Path
from typing import Annotated

import pydantic
import typer

from pipelines.commands.console import STORE_DEFAULT, StoreOption, answers, open_store, say, warn
from pipelines.commands.json_output import JsonOption, say_json
from wfm.catalogue.sheet import DatasetSheet, ModelSheet
from wfm.errors import InputError
from wfm.log import printable


class Catalogue(pydantic.BaseModel):
    """Answer of `wfm artifacts catalogue`: what became of its files, by their paths below the folder."""

    folder: str
    entries: int
    changed: list[str]
    unchanged: int
    removed: list[str]
    problems: list[str]
    "What could not be read; it is shown so on its page."


class Card(pydantic.RootModel[ModelSheet | DatasetSheet]):
    """Answer of `wfm artifacts card`."""


def catalogue(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write, or an earlier catalogue to bring up to date.")
    ],
    json_: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Write a page for every named model and data set, with an index: cards, figures, history, lineage. Serve the folder from
    any bucket or disk; it needs no script. Files that would be the same are left alone.
    """
    from wfm.catalogue import write_catalogue

    written = write_catalogue(open_store(store), out)
    if json_:
        say_json(
            Catalogue(
                folder=str(out),
                entries=written.entries,
                changed=written.changed,
                unchanged=written.unchanged,
                removed=written.removed,
                problems=written.problems,
            )
        )
        return
    for problem in written.problems:
        warn(f"cannot be read: {problem}")
    gone = f", {len(written.removed)} removed" if written.removed else ""
    say(
        f"{out}/index.html: {written.entries} names; {len(written.changed)} files written, {written.unchanged} the same{gone}"
    )


def card(
    reference: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="A published model or a data set: kind/NAME[@ALIAS], or its key.")
    ],
    json_: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Print the card of a model or data set: result or figures, what was left out, licence, limits, lineage. Into a file it is
    Markdown with the front matter that Hugging Face reads.
    """
    from wfm.catalogue import beside

    opened = open_store(store)
    artifact = opened.artifact(opened.resolve(reference))
    if not beside.has_card(artifact):
        raise InputError(f"{artifact!r} has no card: models and data sets have one")
    sheet = beside.sheet_of(opened, artifact)
    if json_:
        say_json(Card(sheet))
    else:
        show_markdown(beside.card_of(sheet, with_front_matter=not sys.stdout.isatty()))


def show_markdown(text: str) -> None:
    """Print Markdown: laid out on a terminal, as it is elsewhere."""
    if not sys.stdout.isatty():
        print(printable(text), flush=True)
        return
    from rich.markdown import Markdown

    answers().print(Markdown(printable(text)))


def add_to(app: typer.Typer) -> None:
    """Put the commands into ``wfm artifacts``."""
    app.command()(catalogue)
    app.command()(card)
