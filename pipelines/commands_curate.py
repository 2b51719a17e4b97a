"""``wfm curate``: what is done to a finished data set, beside the pipeline that makes one."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.console import STORE_DEFAULT, StoreOption, open_store, say
from wfm.errors import InputError

app = typer.Typer(help="Leave clips out of a finished data set; carry data sets in and out.", no_args_is_help=True)


@app.callback()
def curate() -> None:
    """Leave clips out of a finished data set; carry data sets in and out."""


@app.command()
def exclude(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="dataset/NAME[@ALIAS] or a key in the store, or a pulled folder.")
    ],
    clips: Annotated[list[str] | None, typer.Argument(metavar="[CLIP]...", help="Clip ids.")] = None,
    list_: Annotated[Path | None, typer.Option("--list", metavar="FILE", help="Clip ids, one a line.")] = None,
    shard: Annotated[
        list[str] | None,
        typer.Option("--shard", metavar="PATH", help="A whole shard, such as shards/train/0a-00000.tar."),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take them back in.")] = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Leave clips out of a data set without writing its shards again; Energon and `wfm` both skip them.

    In the store a new artifact is made that shares all parts; a name goes over to it. A later run of the pipeline selects
    anew and knows nothing of the list.
    """
    from wfm.curation.exclude import exclude_in_folder, exclude_in_store

    named = [*(clips or ()), *_lines(list_)]
    if not named and not shard:
        raise InputError("nothing to exclude: give clip ids, --list FILE or --shard PATH")
    if Path(dataset).is_dir():
        after = exclude_in_folder(Path(dataset), named, shard or (), undo=undo)
        say(f"{len(after)} entries are excluded in {dataset}")
        return
    opened = open_store(store)
    made, after = exclude_in_store(opened, opened.artifact(opened.resolve(dataset)), named, shard or (), undo=undo)
    kind, slash, rest = dataset.partition("/")
    if slash:
        name, _, alias = rest.partition("@")
        opened.promote(kind, name, made.key, alias=alias or "latest")
    say(f"{len(after)} entries are excluded in {made.key[:12]}" + (f", which {dataset} now is" if slash else ""))


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        found = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"--list {path}: {error.strerror}") from None
    if not found:
        raise InputError(f"--list {path}: holds no clip id")
    return found
