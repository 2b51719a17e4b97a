"""``wfm curate report``: histograms of every score and what each threshold would drop, as one offline page."""

import dataclasses
from pathlib import Path
from typing import Annotated

import pydantic
import typer

from pipelines.commands.console import STORE_DEFAULT, ForceOption, StoreOption, open_store, say
from pipelines.commands.json_output import JsonOption, say_json
from wfm.errors import ConfigError

_STAGE = "select_clips."


class FilterLine(pydantic.BaseModel):
    """What a filter drops."""

    filter: str
    drops: int
    alone: int
    "Clips that no other filter drops."


class Report(pydantic.BaseModel):
    """``wfm curate report --json``."""

    page: str
    clips: int
    dropped: int
    "By all filters together."
    filters: list[FilterLine]


def report(
    scores: Annotated[str, typer.Argument(metavar="DATASET_OR_SCORES", help="dataset/NAME[@ALIAS], or a key.")],
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("thresholds.html"),
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="select_clips.A=1", help="Try a threshold; may be repeated.")
    ] = None,
    embeddings: Annotated[str, typer.Option(metavar="KEY", help="Embeddings for the aesthetic head.")] = "",
    aesthetic_head: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Try a linear or MLP head over them: safetensors.")
    ] = None,
    json_: JsonOption = False,
    force: ForceOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Show what each threshold of select_clips would drop, with examples; nothing is changed."""
    from wfm.artifacts.atomic import require_free, write_new
    from wfm.curation.embed.aesthetic import aesthetic_of, load_head
    from wfm.curation.select import threshold_report
    from wfm.curation.select.select import SelectConfig

    require_free(out, force=force)
    wrong = [text for text in set_ or () if not text.startswith(_STAGE)]
    if wrong:
        raise ConfigError(f"--set {wrong[0]!r}: only thresholds can be tried here, such as {_STAGE}minimum_motion=0.01")
    if (aesthetic_head is None) != (not embeddings):
        raise ConfigError(
            "an aesthetic score needs both --embeddings KEY and --aesthetic-head FILE; without, there is none"
        )
    config = SelectConfig().override(text.removeprefix(_STAGE) for text in set_ or ())
    opened = open_store(store)
    rows, fetch = threshold_report.read(opened, opened.resolve(scores))
    if aesthetic_head is not None:
        pleasing = aesthetic_of(opened.artifact(opened.resolve(embeddings)), load_head(aesthetic_head))
        rows = [dataclasses.replace(item, aesthetic=pleasing.get(item.clip.clip_id)) for item in rows]
    text = threshold_report.page(rows, config, fetch, scores)
    write_new(out, text.encode(), force=force)
    filters, together = threshold_report.drops(rows, config)
    if json_:
        told = [FilterLine(filter=each.name, drops=each.alone, alone=each.only) for each in filters]
        say_json(Report(page=str(out), clips=len(rows), dropped=together, filters=told))
        return
    say(f"{out}: {len(rows)} clips, of which the filters drop {together}")


def add_to(app: typer.Typer) -> None:
    """Put the command into ``wfm curate``."""
    app.command()(report)
