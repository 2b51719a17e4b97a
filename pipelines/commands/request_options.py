"""What commands take that ask for a pipeline: its name, or a run file in place of it and of options
(`pipelines.run_file`).

A file stands behind the command line and the environment: what they say wins, and of ``--set`` the file's come first. A key
that the command has no option for is refused: nothing that was asked for is left out in silence.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands.completion import fields, names, pipelines, profiles, runs, stages
from wfm.errors import InputError

_MEANT = "wfm.run_file"


def _take_file(context: typer.Context, value: str) -> str:
    """Of a run file the pipeline; the rest becomes defaults of the other options."""
    from pipelines.run_file import ENDING, RunFile, read_run_file

    if context.resilient_parsing or not value.endswith(ENDING):
        return value
    asked = read_run_file(Path(value))
    known = {each.name for each in context.command.params}
    defaults: dict[str, Any] = {}
    for key in asked.model_fields_set - {"pipeline", "set", "overrides"}:
        if key not in known:
            choices = ", ".join(sorted(known & set(RunFile.model_fields) | {"pipeline", "set"}))
            raise InputError(
                f"the run file {value!r}: `wfm {_path(context)}` takes no {key!r}, leave it out. It takes {choices}"
            )
        defaults[key] = getattr(asked, key)
    context.default_map = {**(context.default_map or {}), **defaults}
    context.meta[_MEANT] = asked.assignments()
    return asked.pipeline


def _path(context: Any) -> str:
    """The words that lead to a command."""
    above: Any = context.parent
    return f"{_path(above)} {context.info_name}".strip() if above is not None else ""


def _behind_file(context: typer.Context, value: list[str] | None) -> list[str]:
    """The run file's assignments, and then those of the command line."""
    return [*context.meta.get(_MEANT, ()), *(value or ())]


PipelineArgument = Annotated[
    str,
    typer.Argument(
        metavar="PIPELINE",
        help="world_model (everything), curate (videos to a dataset) or decoder (of the main job's tokens); or a run file, "
        "FILE.toml, that names one and its options.",
        callback=_take_file,
        is_eager=True,
        autocompletion=pipelines,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="STAGE.FIELD=V",
        help="Change an option; may be repeated.",
        callback=_behind_file,
        autocompletion=fields,
    ),
]
ProfileOption = Annotated[
    str,
    typer.Option(help="Recipe: demo (minutes on a laptop), smoke (the smallest).", autocompletion=profiles),
]
DatasetOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Start from this dataset; with --videos: name the new one.",
        autocompletion=names("dataset"),
    ),
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="[RUN]", help="Run id, the beginning of one, its last digits, or `last`.", autocompletion=runs
    ),
]
StageArgument = Annotated[
    str, typer.Argument(metavar="STAGE", help="A node of the run, as `wfm status` names it.", autocompletion=stages)
]
