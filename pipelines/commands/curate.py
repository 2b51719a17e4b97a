"""``wfm curate``: makes a data set of videos (`runs.curate`), and what is done to a finished one."""

from pathlib import Path
from typing import Annotated

import typer

from components.promotion import by_hand
from pipelines.commands import runs
from pipelines.commands.console import STORE_DEFAULT, ForceOption, StoreOption, many, open_store, say
from wfm.errors import InputError

app = typer.Typer(no_args_is_help=True)
app.callback(invoke_without_command=True)(runs.curate)


@app.command()
def exclude(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="dataset/NAME[@ALIAS] or a key in the store, or a pulled folder.")
    ],
    clips: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CLIP]...", help="Clip ids, or at least 8 letters of their beginnings."),
    ] = None,
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
    from wfm.curation.dataset.exclude import exclude_in_folder, exclude_in_store

    named = [*(clips or ()), *_lines(list_)]
    if not named and not shard:
        raise InputError("nothing to exclude: give clip ids, --list FILE or --shard PATH")
    if Path(dataset).is_dir():
        after = exclude_in_folder(Path(dataset), named, shard or (), undo=undo)
        say(f"excluded in {dataset}: {many(len(after), 'clip or shard', 'clips or shards')}")
        return
    opened = open_store(store)
    made, after = exclude_in_store(opened, opened.artifact(opened.resolve(dataset)), named, shard or (), undo=undo)
    kind, slash, rest = dataset.partition("/")
    if slash:
        name, _, alias = rest.partition("@")
        opened.promote(kind, name, made.key, alias=alias or "latest", by=by_hand())
    now = f", which {dataset} now is" if slash else ""
    say(f"excluded in {made.key[:12]}{now}: {many(len(after), 'clip or shard', 'clips or shards')}")


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


@app.command("export")
def export_(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="dataset/NAME[@ALIAS] or a key.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write into.")],
    force: ForceOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Write a data set as cosmos-curate leaves one: metas/v0, clips, embeddings as Parquet."""
    from wfm.curation.exchange.cosmos_export import export_cosmos

    opened = open_store(store)
    counts = export_cosmos(opened.artifact(opened.resolve(dataset)), out, force=force)
    say(
        f"{counts['exported']} clips in {out}; not among them: {counts['refused']} refused, {counts['excluded']} excluded"
        + (f", {counts['images']} still images" if "images" in counts else "")
    )


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Output of cosmos-curate's split pipeline.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The data set is published as dataset/NAME.")],
    embeddings: Annotated[
        str, typer.Option(metavar="STEM_parquet", help="Which embedding folder, where there are several.")
    ] = "",
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Make a data set of what cosmos-curate left: metas/v0, clips, embeddings as Parquet."""
    from wfm.curation.exchange.cosmos_import import import_cosmos

    opened = open_store(store, new=True)
    made = import_cosmos(opened, folder, embeddings=embeddings)
    opened.promote("dataset", name, made.key, by=by_hand())
    left_out = ", ".join(f"{reason}: {count}" for reason, count in sorted(made.manifest.skipped.items())) or "none"
    say(f"dataset/{name} is {made.key[:12]}: {many(made.manifest.counts['outputs'], 'clip')}; left out: {left_out}")
