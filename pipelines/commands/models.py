"""``wfm models list`` and ``wfm models show``: what the published models are, and what any model costs.

All of it follows from configurations in closed form (`wfm.models.cost`): nothing is built, no weights are read.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.console import say, show_table, size, table
from wfm.errors import ConfigError

if TYPE_CHECKING:
    from wfm.config import Config
    from wfm.models.cost.report import Cost

app = typer.Typer(help="The models by name, and what they cost.", no_args_is_help=True)

TOKENIZER = "tokenizer"
"""Kind of model that `--tokenizer` is."""
_JSON = Annotated[bool, typer.Option("--json", help="Plain JSON on standard output.")]


@app.command("list")
def list_models(json_: _JSON = False) -> None:
    """List the published models with their parameters and what one of their tokens stands for."""
    from wfm.models.cost import cost_of
    from wfm.models.presets import all_presets

    costs = {name: cost_of(config) for name, (_, config) in all_presets().items()}
    if json_:
        rows = {name: {"family": c.family, "parameters": c.parameters, "layers": c.layers} for name, c in costs.items()}
        say(json.dumps(rows, indent=1))
        return
    listed = table("name", "family", "parameters", prose="what", title="`wfm models show NAME` says more")
    for name, cost in costs.items():
        listed.row(name, cost.family, f"{cost.parameters:,}", cost.layers)
    show_table(listed)


@app.command()
def show(
    model: Annotated[
        str, typer.Argument(metavar="PRESET|FOLDER", help="A name of `wfm models list`, or a model folder.")
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
    json_: _JSON = False,
) -> None:
    """Show a model's layers, parameters by part, FLOPs, memory, and tokens for a duration and resolution."""
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
        say(json.dumps({"model": model, **cost.values()}, indent=1))
        return
    _print(model, cost)


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
