"""``wfm search``: clips of a finished data set by words or by an example."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.console import STORE_DEFAULT, StoreOption, answers, open_store, say
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.curation.search import Hit

_DatasetOption = Annotated[
    str, typer.Option("--dataset", metavar="REF", help="Data set: NAME, dataset/NAME[@ALIAS] or a key.")
]
_EncoderOption = Annotated[
    str, typer.Option("--text-encoder", metavar="FOLDER", help="Folder of a T5 or BERT encoder; empty: MiniLM.")
]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.command()(search)


def search(
    words: Annotated[str, typer.Argument(help="What is to be seen, such as 'red ball rolling'.")] = "",
    dataset: _DatasetOption = "curated",
    clip: Annotated[str, typer.Option("--clip", metavar="ID", help="An example clip instead of words.")] = "",
    by: Annotated[
        str, typer.Option("--by", help="With --clip: looks (how it looks and moves) or captions (what is said of it).")
    ] = "looks",
    top: Annotated[int, typer.Option("--top", min=1, max=10_000, help="Hits.")] = 12,
    page: Annotated[Path | None, typer.Option("--page", help="Write an HTML page with the clips in it.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every clip instead of by the index.")] = False,
    text_encoder: _EncoderOption = "",
    json_: Annotated[bool, typer.Option("--json", help="Plain JSON on standard output.")] = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Find clips of a data set by words or by an example clip; the index is built at the first search."""
    if bool(words.strip()) == bool(clip):
        raise InputError("give words or --clip ID, one of the two: wfm search 'red ball rolling' --dataset NAME")
    from pipelines.sentence_encoder import SentenceEncoder
    from wfm.curation.search import (
        SPACES,
        captions_space,
        clip_bytes,
        looks_space,
        open_dataset,
        search_like,
        search_words,
    )

    if by not in SPACES:
        raise InputError(f"--by {by!r}: choices are {', '.join(SPACES)}")
    place = open_store(store)
    artifact = open_dataset(place, dataset)
    if clip and by == "looks":
        index = looks_space(place, artifact)
        hits = search_like(index, clip, top, exact=exact)
    else:
        encode = SentenceEncoder(text_encoder)
        index = captions_space(place, artifact, encode)
        hits = (
            search_like(index, clip, top, exact=exact) if clip else search_words(index, encode, words, top, exact=exact)
        )
    left = index.about["flat"]
    about = (
        f"{len(hits)} nearest of {len(index):,} clips of {dataset} ({artifact.key[:12]}); {left} could not be compared."
    )
    if page is not None:
        from wfm.curation.search_page import write_page

        title = words if words else f"Clips like {clip}, by {by}"
        write_page(page, title, about, hits, lambda hit: clip_bytes(artifact, hit))
    _answer(hits, about, page, json_)


def _answer(hits: "list[Hit]", about: str, page: Path | None, json_: bool) -> None:
    if json_:
        say(json.dumps([dataclasses.asdict(hit) for hit in hits], indent=1, ensure_ascii=False))
        return
    from rich.table import Table

    table = Table(title=about, title_justify="left", box=None)
    for heading in ("cosine", "clip", "split", "seconds", "caption"):
        table.add_column(heading, no_wrap=heading != "caption")
    for hit in hits:
        seconds = f"{hit.start_seconds:.1f}-{hit.end_seconds:.1f}"
        table.add_row(f"{hit.cosine:.3f}", hit.clip_id[:12], hit.split, seconds, hit.caption)
    answers().print(table)
    if page is not None:
        say(str(page))
