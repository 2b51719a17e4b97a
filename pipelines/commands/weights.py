"""``wfm weights``: checkpoints from elsewhere looked at and brought in, our models written for others."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pydantic
import typer

from pipelines.commands.console import ForceOption, say, show_table, size, table
from pipelines.commands.json_output import JsonOption, say_json
from wfm.artifacts.atomic import require_empty
from wfm.errors import MissingPackage

app = typer.Typer(
    help="Bring weights in and out: diffusers folders and original Cosmos checkpoints.", no_args_is_help=True
)

_MANY = 20

_PtOption = Annotated[
    bool, typer.Option("--pt", help="Read .pt files too, by torch's weights-only reader: no code is run.")
]
_DtypeOption = Annotated[str, typer.Option("--dtype", help="float32, bfloat16, float16 or float64; empty: as it is.")]
_ShardOption = Annotated[
    str, typer.Option("--max-shard-size", help="Cut the weights into files of at most this, such as 5GB.")
]
_DryOption = Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")]


class Peer(StrEnum):
    """For whom weights are written."""

    diffusers = "diffusers"
    cosmos = "cosmos"


class Tensor(pydantic.BaseModel):
    """One tensor of a file."""

    name: str
    dtype: str
    shape: list[int]


class WeightFile(pydantic.BaseModel):
    """What is in one file, or one file of a folder's weights."""

    path: str
    kind: str
    numbers: int
    "In all tensors."
    bytes: int
    tensors: list[Tensor]


class Inspected(pydantic.BaseModel):
    """Answer of `wfm weights inspect`."""

    files: list[WeightFile]
    fits: list[str]
    "Presets whose tensors these are, exactly."


def _described(one: Any) -> WeightFile:
    tensors = [Tensor(name=name, dtype=entry.dtype, shape=list(entry.shape)) for name, entry in one.entries.items()]
    return WeightFile(path=str(one.path), kind=one.kind, numbers=one.count, bytes=one.nbytes, tensors=tensors)


@app.command("inspect")
def inspect_(
    source: Annotated[Path, typer.Argument(help="File or folder: safetensors, an index of shards, .jit or .pt.")],
    everything: Annotated[bool, typer.Option("--all", help="Every tensor, not the first 20.")] = False,
    pt: _PtOption = False,
    json_: JsonOption = False,
) -> None:
    """List names, shapes and dtypes of any weight file, and what it is a checkpoint of; no weight is read."""
    command = _command()
    found = command.inspect_weights(source, allow_pickle_file=pt)
    if json_:
        say_json(Inspected(files=[_described(one) for one in found], fits=command.fitting_presets(found)))
        return
    for one in found:
        listed = table("tensor", "dtype", "shape")
        names = list(one.entries)
        shown = names if everything else names[:_MANY]
        for name in shown:
            listed.row(name, one.entries[name].dtype, "x".join(map(str, one.entries[name].shape)))
        show_table(listed)
        if len(shown) < len(names):
            say(f"... and {len(names) - len(shown)} more (--all shows them)")
        kinds = ", ".join(f"{dtype} {count:,}" for dtype, count in one.by_dtype().items())
        say(f"{one.path}: {one.kind}, {len(names)} tensors, {one.count:,} numbers ({kinds}), {size(one.nbytes)}")
    fits = command.fitting_presets(found)
    say(f"fits the preset {', '.join(fits)}" if fits else "fits no preset")


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="diffusers folder, or an original checkpoint: file or folder.")],
    out: Annotated[Path, typer.Argument(help="Model folder to write.")],
    preset: Annotated[str, typer.Option(help="What an original checkpoint is, such as cv8x8x8 or diffusion-7b.")] = "",
    statistics: Annotated[
        Path | None, typer.Option(help="For a transformer: the imported tokenizer whose latents it makes.")
    ] = None,
    pt: _PtOption = False,
    dtype: _DtypeOption = "",
    max_shard_size: _ShardOption = "",
    dry_run: _DryOption = False,
    force: ForceOption = False,
) -> None:
    """Bring weights in as a model folder. Every name and shape must be the model's; what is left out is listed."""
    require_empty(out, force=force or dry_run or out.resolve() == source.resolve())  # that has an error of its own
    command = _command()
    read = command.import_weights(
        source, out, preset=preset, statistics=statistics, allow_pickle_file=pt, dtype=dtype,
        max_shard_bytes=command.bytes_named(max_shard_size), dry_run=dry_run,
    )  # fmt: skip
    for name, reason in sorted(read.left_out.items()):
        say(f"left out {name}: {reason}")
    count = sum(parameter.numel() for parameter in read.module.parameters())
    table = "with" if read.statistics is not None else "without"
    verb = "fits; nothing written" if dry_run else f"is in {out}"
    say(f"{type(read.module).__name__} of {count:,} parameters, {table} latent statistics, {verb}")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Model folder, or a published model that was pulled.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; for cosmos a .safetensors or .pt file too.")],
    to: Annotated[Peer, typer.Option("--to", help="For whom.")] = Peer.diffusers,
    dtype: _DtypeOption = "",
    max_shard_size: _ShardOption = "",
    dry_run: _DryOption = False,
    force: ForceOption = False,
) -> None:
    """Write a model folder so that diffusers opens it, or under the names of the original Cosmos checkpoints. A published model
    is two: its transformer and its tokenizer. What the format has no place for is listed, and nothing is written.
    """
    require_empty(out, force=force or dry_run or out.resolve() == model.resolve())
    command = _command()
    left = command.export_weights(
        model, out, to=to.value, dtype=dtype, max_shard_bytes=command.bytes_named(max_shard_size), dry_run=dry_run
    )
    for line in left:
        say(f"left out {line}")
    say(f"{model} can be written for {to}" if dry_run else f"{out}: {model} for {to}")


def _command() -> Any:
    try:
        from wfm.models.convert import command
    except ImportError as error:
        raise MissingPackage(str(error.name), extra="train", purpose="wfm weights") from error
    return command
