"""``wfm search``, ``wfm clusters``, ``wfm taxonomy``: what is in a finished data set, found and put in order."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    app.command()(clusters)
    app.command()(taxonomy)


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


def clusters(
    dataset: _DatasetOption = "curated",
    number: Annotated[int, typer.Option("--clusters", min=0, help="How many; 0: from the number of clips.")] = 0,
    by: Annotated[str, typer.Option("--by", help="looks or captions: which vectors are put in clusters.")] = "captions",
    seed: Annotated[int, typer.Option(help="Of the start; the same seed gives the same clusters.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Write clusters.parquet here.")] = None,
    text_encoder: _EncoderOption = "",
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Put the clips of a data set in clusters and name these by the words that set their captions apart."""
    from pipelines.sentence_encoder import SentenceEncoder
    from wfm.curation.cluster import ClusterConfig, ClusterRow, find_clusters
    from wfm.curation.search import SPACES, captions_space, looks_space, open_dataset

    if by not in SPACES:
        raise InputError(f"--by {by!r}: choices are {', '.join(SPACES)}")
    config = ClusterConfig(clusters=number, seed=seed)
    place = open_store(store)
    artifact = open_dataset(place, dataset)
    looks = by == "looks"
    index = looks_space(place, artifact) if looks else captions_space(place, artifact, SentenceEncoder(text_encoder))
    found = find_clusters(index.all_vectors(), index.rows.column("caption").to_pylist(), config)
    rows = found.rows(index.rows.column("clip_id").to_pylist())
    lines = []
    for cluster, name in enumerate(found.names):
        inside = found.labels == cluster
        lines.append((name, int(inside.sum()), f"{float(found.cosines[inside].mean()):.3f}"))
    _table(f"{len(lines)} clusters of {len(rows):,} clips by {by}", ("cluster", "clips", "mean cosine"), lines)
    if out is not None:
        _write_table(out / "clusters.parquet", ClusterRow.to_table(rows))


def taxonomy(
    categories: Annotated[Path, typer.Argument(metavar="FILE", help="JSON: categories, shares ... (TaxonomyConfig).")],
    dataset: _DatasetOption = "curated",
    out: Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Write mixture.parquet here.")] = None,
    text_encoder: _EncoderOption = "",
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Give every clip a category by what is said of it, and every category a weight for training."""
    from pipelines.sentence_encoder import SentenceEncoder
    from wfm.curation.search import captions_space, open_dataset
    from wfm.curation.taxonomy import CategoryRow, TaxonomyConfig, category_rows, classify, mixture

    try:
        values = json.loads(categories.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{categories}: not a JSON file ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f'{categories}: wants {{"categories": {{"NAME": ["SENTENCE", ...], ...}}}}')
    config = TaxonomyConfig.parse(values)
    encode = SentenceEncoder(text_encoder)
    place = open_store(store)
    index = captions_space(place, open_dataset(place, dataset), encode)
    described = {name: encode(sentences) for name, sentences in config.categories.items()}
    chosen, cosines, margins = classify(index.all_vectors(), described, config)
    mixed = mixture(chosen, config)
    lines = [
        (name, count, f"{mixed.wanted[name]:.3f}", f"{mixed.reached[name]:.3f}", f"{mixed.weights[name]:.3f}")
        for name, count in mixed.clips.items()
    ]
    _table(f"{len(chosen):,} clips", ("category", "clips", "share wanted", "share reached", "weight of a clip"), lines)
    if out is not None:
        rows = category_rows(index.rows.column("clip_id").to_pylist(), chosen, cosines, margins, mixed)
        _write_table(out / "mixture.parquet", CategoryRow.to_table(rows))


def _table(title: str, headings: tuple[str, ...], lines: list[Any]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None)
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for line in lines:
        table.add_row(*map(str, line))
    answers().print(table)


def _write_table(path: Path, table: Any) -> None:
    """Whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from wfm.artifacts.atomic import replace_on_disk

    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    replace_on_disk(path, buffer.getvalue().to_pybytes())
    say(str(path))


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
