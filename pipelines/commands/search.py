"""``wfm search``, ``wfm clusters``, ``wfm taxonomy``: what is in a finished data set, found and put in order."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
import typer

from pipelines.commands.console import STORE_DEFAULT, ForceOption, StoreOption, open_store, say, show_table, table
from pipelines.commands.json_output import JsonOption, say_json
from wfm.artifacts.atomic import require_free, write_new
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store
    from wfm.curation.search.search import Hit
    from wfm.curation.search.search_index import SearchIndex
    from wfm.curation.select.kept_clips import Sentences

_DatasetOption = Annotated[
    str, typer.Option("--dataset", metavar="REF", help="Data set: NAME, dataset/NAME@ALIAS or a key.")
]
_EncoderOption = Annotated[
    str,
    typer.Option(
        "--text-encoder",
        metavar="FOLDER",
        help="Folder of a T5 or BERT encoder (empty: MiniLM), or of the embeddings' CLIP.",
    ),
]


class HitLine(pydantic.BaseModel):
    """A clip that was found."""

    cosine: float
    clip_id: str
    caption: str
    source: str
    start_seconds: float
    end_seconds: float
    width: int
    height: int
    fps: float
    split: str
    shard: str
    "Path of its shard in the data set's artifact."
    clip_sha256: str


class Hits(pydantic.BaseModel):
    """``wfm search --json``: the nearest first."""

    dataset: str
    key: str
    by: str
    of: int
    "Clips that were compared."
    hits: list[HitLine]


class ClusterLine(pydantic.BaseModel):
    """A cluster."""

    cluster: str
    clips: int
    mean_cosine: float


class Clusters(pydantic.BaseModel):
    """``wfm clusters --json``."""

    dataset: str
    clusters: list[ClusterLine]


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
        str,
        typer.Option(
            "--by",
            help="looks (how clips look and move) or captions (what is said of them). For words: looks where a CLIP "
            "made the embeddings, else captions; for a clip: looks.",
        ),
    ] = "",
    top: Annotated[int, typer.Option("--top", min=1, max=10_000, help="Hits.")] = 12,
    page: Annotated[Path | None, typer.Option("--page", help="Write an HTML page with the clips in it.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every clip instead of by the index.")] = False,
    text_encoder: _EncoderOption = "",
    json_: JsonOption = False,
    force: ForceOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Find clips of a data set by words or by an example clip; the index is built at the first search."""
    if bool(words.strip()) == bool(clip):
        raise InputError("give words or --clip ID, one of the two: wfm search 'red ball rolling' --dataset NAME")
    from wfm.curation.search.search import clip_bytes, open_dataset, search_like, search_words

    require_free(*([page] if page is not None else []), force=force)
    place = open_store(store)
    artifact = open_dataset(place, dataset)
    by = by or ("looks" if clip or _reads_words(place, artifact) else "captions")
    index, encode = _space(place, artifact, by, text_encoder, words=bool(words.strip()))
    if clip:
        hits = search_like(index, clip, top, exact=exact)
    else:
        assert encode is not None
        hits = search_words(index, encode, words, top, exact=exact)
    left = index.about["flat"]
    note = f"; {left} could not be compared" if left else ""
    about = f"{len(hits)} nearest of {len(index):,} clips of {dataset} ({artifact.key[:12]}), by {by}{note}."
    if page is not None:
        from wfm.curation.search.search_page import write_page

        title = words if words else f"Clips like {clip[:16]}"
        write_page(page, title, about, hits, lambda hit: clip_bytes(artifact, hit), force=force)
    if json_:
        lines = [HitLine(**dataclasses.asdict(hit)) for hit in hits]
        say_json(Hits(dataset=dataset, key=artifact.key, by=by, of=len(index), hits=lines))
        return
    _answer(hits, about, page)


def clusters(
    dataset: _DatasetOption = "curated",
    number: Annotated[
        int | None, typer.Option("--clusters", min=0, help="How many; 0: from the number of clips.")
    ] = None,
    by: Annotated[str, typer.Option("--by", help="looks or captions: which vectors are put in clusters.")] = "captions",
    seed: Annotated[int, typer.Option(help="Of the start; the same seed gives the same clusters.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Write clusters.parquet here.")] = None,
    text_encoder: _EncoderOption = "",
    json_: JsonOption = False,
    force: ForceOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Put the clips of a data set in clusters and name these by the words that set their captions apart.

    Without --clusters or --out, a data set that was made with cluster_clips shows its own.
    """
    from wfm.curation.rows import ClusterRow
    from wfm.curation.search.search import indexed_clips, open_dataset
    from wfm.curation.select.cluster import ClusterConfig, cluster_rows

    if out is not None:
        require_free(out / "clusters.parquet", force=force)
    place = open_store(store)
    artifact = open_dataset(place, dataset)
    if number is None and out is None and (own := _own(artifact, "cluster_name", "cluster_cosine")):
        _tell_clusters(f"{len(own)} clusters of {dataset}, as cluster_clips made them", dataset, own, json_)
        return
    config = ClusterConfig.parse({"clusters": number or 0, "seed": seed})
    index, _ = _space(place, artifact, by, text_encoder)
    found, rows = cluster_rows(indexed_clips(artifact, index), config)
    lines = []
    for cluster, name in enumerate(found.names):
        inside = found.labels == cluster
        lines.append((name, int(inside.sum()), f"{float(found.cosines[inside].mean()):.3f}"))
    _tell_clusters(f"{len(lines)} clusters of {len(rows):,} clips by {by}", dataset, lines, json_)
    if out is not None:
        _write_table(out / "clusters.parquet", ClusterRow.to_table(rows), force, tell=not json_)


def _tell_clusters(title: str, dataset: str, lines: list[tuple[str, int, str]], json_: bool) -> None:
    if json_:
        made = [ClusterLine(cluster=name, clips=clips, mean_cosine=float(cosine)) for name, clips, cosine in lines]
        say_json(Clusters(dataset=dataset, clusters=made))
    else:
        _table(title, ("cluster", "clips", "mean cosine"), lines)


def taxonomy(
    categories: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="JSON: categories, shares ... (TaxonomyConfig). Without: Cosmos's kinds."),
    ] = None,
    dataset: _DatasetOption = "curated",
    by: Annotated[
        str, typer.Option("--by", help="captions, or looks where a CLIP made the embeddings: what is judged.")
    ] = "captions",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Write categories.parquet and mixture.parquet here.")
    ] = None,
    text_encoder: _EncoderOption = "",
    force: ForceOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Give every clip a category, and every category a weight for training (--set train_diffusion.training.mixture=FILE).

    Without FILE or --out, a data set that was made with classify_clips shows its own categories.
    """
    from wfm.curation.rows import CategoryRow, MixtureRow
    from wfm.curation.search.search import indexed_clips, open_dataset
    from wfm.curation.select.taxonomy import TaxonomyConfig, classify_kept

    if out is not None:
        require_free(out / "categories.parquet", out / "mixture.parquet", force=force)
    config = TaxonomyConfig.parse(_values(categories)) if categories is not None else TaxonomyConfig()
    place = open_store(store)
    artifact = open_dataset(place, dataset)
    if categories is None and out is None and (own := _own(artifact, "category", "category_cosine")):
        _table(
            f"{len(own)} categories of {dataset}, as classify_clips made them",
            ("category", "clips", "mean cosine"),
            own,
        )
        return
    index, encode = _space(place, artifact, by, text_encoder, words=True)
    assert encode is not None
    found = classify_kept(indexed_clips(artifact, index), encode, config)
    mixed, chosen = found.mixture, [row.category for row in found.categories]
    lines = []
    for name in (*config.categories, "other"):
        if name in mixed.clips:
            numbers = (
                mixed.clips[name],
                *(f"{each[name]:.3f}" for each in (mixed.wanted, mixed.reached, mixed.weights)),
            )
        else:
            numbers = (0, "", "", "")
        if name in chosen or name in config.categories:
            lines.append((name, chosen.count(name), *numbers))
    headings = ("category", "clips", "to train on", "share wanted", "share reached", "weight of a clip")
    _table(f"{len(chosen):,} clips of {dataset} by {by}", headings, lines)
    if out is not None:
        _write_table(out / "categories.parquet", CategoryRow.to_table(found.categories), force)
        _write_table(out / "mixture.parquet", MixtureRow.to_table(found.weights), force)


def _values(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f'{path}: wants {{"categories": {{"NAME": ["SENTENCE", ...], ...}}}}')
    return values


def _reads_words(store: "Store", dataset: "Artifact") -> bool:
    """Whether words can be compared with the data set's embeddings."""
    from wfm.curation.embed.text_tower import has_text_tower
    from wfm.curation.search.search import embeddings_of

    try:
        return has_text_tower(embeddings_of(store, dataset))
    except InputError:  # made without any
        return False


def _space(
    store: "Store", dataset: "Artifact", by: str, text_encoder: str, *, words: bool = False
) -> "tuple[SearchIndex, Sentences | None]":
    """The index of a space and, for ``words``, what puts them there."""
    from wfm.curation.search.search import SPACES, captions_space, embeddings_of, looks_space
    from wfm.models.text.config import TextConfig
    from wfm.models.text.sentences import SentenceEncoder

    if by not in SPACES:
        raise InputError(f"--by {by!r}: choices are {', '.join(SPACES)}")
    if by == "captions":
        encoder = "folder" if text_encoder else "minilm"
        encode = SentenceEncoder(TextConfig.parse({"encoder": encoder, "folder": text_encoder}))
        return captions_space(store, dataset, encode), encode
    if not words:
        return looks_space(store, dataset), None
    from wfm.curation.embed.text_tower import text_tower_of

    tower = text_tower_of(embeddings_of(store, dataset), text_encoder)
    return looks_space(store, dataset), tower


def _own(dataset: "Artifact", name: str, cosine: str) -> list[tuple[str, int, str]]:
    """(name, kept clips, mean cosine) as the data set's own table has it, the largest first; empty where it has none."""
    from wfm.curation.search.search import kept_rows

    found: dict[str, tuple[int, float]] = {}
    for rows in kept_rows(dataset, [name, cosine]):
        for value, near in zip(rows.column(name).to_pylist(), rows.column(cosine).to_pylist(), strict=True):
            if value is not None:
                count, total = found.get(value, (0, 0.0))
                found[value] = (count + 1, total + near)
    order = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    return [(value, count, f"{total / count:.3f}") for value, (count, total) in order]


def _table(title: str, headings: tuple[str, ...], lines: list[Any]) -> None:
    made = table(*headings, title=title)
    for line in lines:
        made.row(*map(str, line))
    show_table(made)


def _write_table(path: Path, table: Any, force: bool, tell: bool = True) -> None:
    """Whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    write_new(path, buffer.getvalue().to_pybytes(), force=force)
    if tell:
        say(str(path))


def _answer(hits: "list[Hit]", about: str, page: Path | None) -> None:
    say(about)
    made = table("cosine", "clip", "split", "seconds", prose="caption")
    for hit in hits:
        seconds = f"{hit.start_seconds:.1f}-{hit.end_seconds:.1f}"
        made.row(f"{hit.cosine:.3f}", hit.clip_id[:12], hit.split, seconds, hit.caption)
    show_table(made)
    if page is not None:
        say(str(page))
