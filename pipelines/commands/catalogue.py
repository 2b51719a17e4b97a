"""``wfm artifacts catalogue``: models and data sets of a store as plain HTML and JSON that a bucket can serve."""

from pathlib import Path
from typing import Annotated

import pydantic
import typer

from pipelines.commands.console import STORE_DEFAULT, StoreOption, open_store, say, warn
from pipelines.commands.json_output import JsonOption, say_json


class Catalogue(pydantic.BaseModel):
    """Answer of `wfm artifacts catalogue`: what became of its files, by their paths below the folder."""

    folder: str
    entries: int
    changed: list[str]
    unchanged: int
    removed: list[str]
    problems: list[str]
    "What could not be read; it is shown so on its page."


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


def add_to(app: typer.Typer) -> None:
    """Put the command into ``wfm artifacts``."""
    app.command()(catalogue)
