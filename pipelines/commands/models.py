"""``wfm models list`` and ``wfm models show``: what the published models are, what any model costs, and the card of our own.

Costs follow from configurations in closed form (`wfm.models.cost`), cards from records (`wfm.catalogue`): nothing is built, no
weights are read.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
import typer

from pipelines.commands.catalogue import show_markdown
from pipelines.commands.console import STORE_DEFAULT, StoreOption, open_store, say, show_table, size, table
from pipelines.commands.json_output import JsonOption, say_json
from wfm.catalogue.sheet import ModelSheet
from wfm.errors import ConfigError, InputError

if TYPE_CHECKING:
    from wfm.config import Config
    from wfm.models.cost.report import Cost

app = typer.Typer(help="The models by name, and what they cost.", no_args_is_help=True)

TOKENIZER = "tokenizer"
"""Kind of model that `--tokenizer` is."""


class Listed(pydantic.BaseModel):
    """One published architecture."""

    family: str
    parameters: int
    layers: str
    "In words."


class ModelList(pydantic.RootModel[dict[str, Listed]]):
    """Answer of `wfm models list`: by name."""


class PartCost(pydantic.BaseModel):
    """One part of a model: see `wfm.models.cost.Part`."""

    name: str
    parameters: int
    flops: int
    backward: int
    saved: int


class ModelCost(pydantic.BaseModel):
    """Answer of `wfm models show` for an architecture: see `wfm.models.cost`. FLOPs are twice the multiply-adds."""

    model: str
    family: str
    layers: str
    parameters: int
    parts: list[PartCost]
    video: str
    batch: int
    latents: list[int]
    tokens: int
    text_tokens: int
    flops_forward: int
    flops_training_step: int
    memory_bytes: dict[str, int]
    activation_bytes_per_latent_token: float
    notes: dict[str, str]


class Shown(pydantic.RootModel[ModelCost | ModelSheet]):
    """Answer of `wfm models show`: what an architecture costs, or the card of a published model."""


@app.command("list")
def list_models(json_: JsonOption = False) -> None:
    """List the published models with their parameters and what one of their tokens stands for."""
    from wfm.models.cost import cost_of
    from wfm.models.presets import all_presets

    costs = {name: cost_of(config) for name, (_, config) in all_presets().items()}
    if json_:
        rows = {n: Listed(family=c.family, parameters=c.parameters, layers=c.layers) for n, c in costs.items()}
        say_json(ModelList(rows))
        return
    listed = table("name", "family", "parameters", prose="what", title="`wfm models show NAME` says more")
    for name, cost in costs.items():
        listed.row(name, cost.family, f"{cost.parameters:,}", cost.layers)
    show_table(listed)


@app.command()
def show(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A name of `wfm models list`, a folder, or a published one: model/NAME[@ALIAS], NAME, its key.",
        ),
    ],
    video: Annotated[
        str, typer.Option(metavar="TxHxW", help="Frames (or seconds), height, width: 121x704x1280, 5sx704x1280.")
    ] = "",
    fps: Annotated[float, typer.Option(help="Frames a second, where --video says seconds.")] = 24.0,
    batch: Annotated[int, typer.Option(help="Videos at once.")] = 1,
    text_tokens: Annotated[int, typer.Option(min=0, help="Text tokens that a diffusion model attends to.")] = 512,
    tokenizer: Annotated[
        str, typer.Option(metavar="PRESET|FOLDER", help="Whose latents a diffusion model works on.")
    ] = "cv8x8x8",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=1", help="Change a field of the configuration; may be repeated."),
    ] = None,
    json_: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Show the card of a published model, in the store or pulled: result, what it loses to, data, limits, licence, lineage. Of
    an architecture its layers, parameters by part, FLOPs, memory, and tokens for a duration and resolution.
    """
    sheet = published(model, store)
    if sheet is not None:
        if set_ or video:
            raise InputError(
                f"{model} is a published model: --video and --set are for architectures of `wfm models list`"
            )
        _show_card(sheet, json_)
        return
    from wfm.models.cost import Video, cost_of
    from wfm.models.family import family_of

    config = configuration(model).override(set_ or ())
    latents_of: Any = configuration(tokenizer)
    if family_of(latents_of).makes != TOKENIZER:
        raise ConfigError(f"--tokenizer {tokenizer}: that is no tokenizer; choose one of `wfm models list`")
    compression = getattr(config, "temporal_compression", latents_of.temporal_compression)  # many state their own
    shown = Video.parse(video, fps=fps, compression=compression) if video else None
    cost = cost_of(config, shown, batch=batch, text_tokens=text_tokens, tokenizer=latents_of)
    if json_:
        say_json(Shown(ModelCost.model_validate({"model": model, **cost.values()})))
        return
    _print(model, cost)


def published(model: str, store: str) -> ModelSheet | None:
    """The sheet of a bundle: a folder, else by what a store calls it; None for an architecture: a preset, or a model folder.

    Raises InputError where it is none of them.
    """
    from wfm.artifacts.pulled import pulled_folder
    from wfm.catalogue.of_model import is_bundle, model_sheet, require_bundle, sheet_of_folder
    from wfm.models.presets import preset

    folder = Path(model)
    if is_bundle(folder):  # unless the store has that name, too: then it is asked for
        found = pulled_folder(model, kind="model", mark="card.json", store=lambda: open_store(store))
        return sheet_of_folder(found or folder)
    if (folder / "config.json").is_file():
        return None
    try:
        preset(model)
    except ConfigError as unknown:
        reference = model if "/" in model or re.fullmatch(r"[0-9a-f]{8,64}", model) else f"model/{model}"
        try:
            opened = open_store(store)
            key = opened.resolve(reference)
        except InputError as error:
            raise ConfigError(f"{unknown}; nor a folder; nor published: {error}") from None
        return model_sheet(opened, require_bundle(opened, key))
    return None


def _show_card(sheet: ModelSheet, json_: bool) -> None:
    from wfm.catalogue.model_card import model_card

    if json_:
        say_json(Shown(sheet))
    else:
        show_markdown(model_card(sheet, with_front_matter=False))


def configuration(model: str) -> "Config":
    """Of a preset, or of a model folder, whose weights stay unread. Raises ConfigError for what is neither."""
    from wfm.models.presets import preset

    if not (Path(model) / "config.json").is_file():
        return preset(model).config
    from wfm.models.folder import read_card

    return read_card(model).config


def _print(model: str, cost: "Cost") -> None:
    say(f"{model}: {cost.family}, {cost.layers}\n")
    parts = table("part", "parameters", "share", "forward GFLOPs", "share ", title="parts")
    for part in cost.parts:
        parts.row(
            part.name,
            f"{part.parameters:,}",
            _share(part.parameters, cost.parameters),
            _giga(part.flops),
            _share(part.flops, cost.flops),
        )
    parts.row("all", f"{cost.parameters:,}", "", _giga(cost.flops), "", style="bold")
    show_table(parts)
    channels, frames, rows, columns = cost.latents
    facts = table("", prose="", title="\nfor a video")
    several = f", {cost.batch} at once" if cost.batch > 1 else ""
    facts.row("video", f"{cost.video.frames} frames of {cost.video.height}x{cost.video.width}{several}")
    facts.row("latents", f"{channels} channels, {frames} frames of {rows}x{columns}")
    facts.row("tokens", f"{cost.tokens:,} each" + (f", and {cost.text_tokens} of text" if cost.text_tokens else ""))
    facts.row(cost.once, f"{_giga(cost.flops)} GFLOPs")
    more = ", and with checkpointing nearly a forward more" if cost.checkpointed else ""
    facts.row("one training step", f"{_giga(cost.training_flops)} GFLOPs{more}")
    show_table(facts)
    memory = table("", "", title="\nmemory")
    for name, count in cost.memory().items():
        memory.row(name, size(count))
    each = 2 * cost.saved / (cost.batch * cost.tokens)
    memory.row("training activations a latent token", f"{size(each)} in bf16")
    show_table(memory)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def _giga(flops: int) -> str:
    return f"{flops / 1e9:,.1f}"
