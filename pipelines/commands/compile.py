"""``wfm compile``: a pipeline as the objects of an engine on a cluster, written to files."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands import completion
from pipelines.commands.console import (
    STORE_DEFAULT,
    NameOption,
    PromoteOption,
    StoreOption,
    open_store,
    say,
    size,
    warn,
)
from pipelines.commands.request_options import DatasetOption, PipelineArgument, SetOption
from wfm.errors import ConfigError, InputError, MissingPackage, did_you_mean

if TYPE_CHECKING:
    from pipelines.engines.flow import Flow
    from pipelines.request import Request


UTC = "Etc/UTC"


def add_to(app: typer.Typer) -> None:
    """Put the command into the command line."""
    app.command(name="compile")(compile_)


def compile_(
    pipeline: PipelineArgument,
    engine: Annotated[str, typer.Option("--engine", help="argo or kubeflow.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder that the files are written to.")],
    profile: Annotated[
        str, typer.Option(help="Recipe; demo_cluster says what each stage needs.", autocompletion=completion.profiles)
    ] = "demo_cluster",
    cluster: Annotated[
        str, typer.Option("--cluster", metavar="FILE", envvar="WFM_CLUSTER", help="Settings of the cluster.")
    ] = "",
    template: Annotated[
        str, typer.Option(metavar="NAME", help="What the template is called (default: pipeline-profile).")
    ] = "",
    videos: Annotated[str, typer.Option(metavar="URL", help="Your own, where pods can read them.")] = "",
    dataset: DatasetOption = "",
    name: NameOption = "",
    promote: PromoteOption = True,
    set_: SetOption = None,
    cron: Annotated[
        list[str] | None, typer.Option("--cron", metavar="LINE", help="Start at times: '0 3 * * *'; may be repeated.")
    ] = None,
    zone: Annotated[str, typer.Option(metavar="ZONE", help="In which these times are meant.")] = UTC,
    stop_after_failures: Annotated[
        int, typer.Option(min=0, metavar="N", help="Start none after so many failed ones; 0: go on.")
    ] = 0,
    notice: Annotated[
        str, typer.Option(metavar="IMAGE", help="Tell how a run ended, by this image with curl, name@sha256:… (argo).")
    ] = "",
    notice_secret: Annotated[
        str, typer.Option(metavar="NAME", help="Secret whose entry url is the address that is posted to.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be written.")] = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Compile a pipeline for an engine on a cluster: files to look at and to apply. One serves all runs, which say their store,
    videos and options by parameters; what is made already starts no pod."""
    from pipelines.engines.flow import EMITTERS, Notice, Times, check_literal
    from pipelines.request import Request
    from wfm.cluster.settings import ClusterSettings

    if engine not in EMITTERS:
        raise InputError(f"unknown engine {engine!r}.{did_you_mean(engine, EMITTERS)} Choices: {', '.join(EMITTERS)}")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {str(out)!r} is a file: give a folder, new or old")
    settings = ClusterSettings.read(cluster)
    lines = tuple(dict.fromkeys(" ".join(line.split()) for line in cron or ()))
    if not lines and (zone != UTC or stop_after_failures):
        raise InputError(
            f"--zone {zone}, --stop-after-failures {stop_after_failures}: nothing starts by itself: give --cron, or neither"
        )
    times = Times(lines, zone, stop_after_failures) if lines else None
    asked = Request(
        pipeline,
        profile=profile,
        overrides=tuple(set_ or ()),
        videos=videos,
        dataset=dataset,
        name=name,
        promote=promote,
    )
    flow = _flow(asked, template, store)
    check_literal(flow, settings)
    told = Notice(notice, notice_secret) if notice or notice_secret else None
    flow = replace(flow, times=times, notice=told)
    made: dict[str, list[Any]] = importlib.import_module(EMITTERS[engine]).emit(flow, settings)
    _put(made, out, dry_run)


def _put(made: dict[str, list[Any]], out: Path, dry_run: bool) -> None:
    """Write the files, and tell of others that lie there."""
    for file, objects in sorted(made.items()):
        text = in_yaml(objects)
        kinds = dict.fromkeys(one.get("kind", "for the API of KFP") for one in objects)
        say(f"{out / file}  {', '.join(kinds)}, {size(len(text.encode()))}")
        if not dry_run:
            _write(out / file, text)
    for left in sorted(path.name for path in out.glob("*.yaml") if path.name not in made):
        warn(
            f"{out / left} is none of these files, and would be applied with the folder: delete what an earlier time left"
        )


def _is_here(address: str) -> bool:
    """Whether it is of this machine alone."""
    return "://" not in address or address.startswith("file:")


def _flow(asked: "Request", template: str, store: str) -> "Flow":
    from pipelines.check_settings import check_settings
    from pipelines.engines.flow import Flow, tasks_of
    from pipelines.plan import shape
    from wfm.credentials import carries_credentials

    for option, value in (("--store", store), ("--videos", asked.videos), *(("--set", one) for one in asked.overrides)):
        if carries_credentials(value):
            raise ConfigError(
                f"{option}: the address has a password in it, and would stand in the files for all to read"
            )
    if store and _is_here(store):
        warn(
            f"--store {store} is on this machine, where no pod sees it, and is left out: give s3://… or gs://…, or let runs"
        )
    if asked.videos and _is_here(asked.videos):
        warn(
            f"--videos {asked.videos} is on this machine: pods look for that name in their own image; give an "
            "address that they can read"
        )
    opened = open_store(store) if asked.dataset and not asked.videos else None  # to begin with that dataset
    plan = shape(
        asked.pipeline, profile=asked.profile, store=opened, overrides=asked.overrides, videos=asked.videos or None,
        dataset=asked.dataset or None, name=asked.name or None, promote=asked.promote,
    )  # fmt: skip
    check_settings(plan)
    return Flow(
        name=template or f"{asked.pipeline}-{asked.profile}".replace("_", "-"),
        pipeline=asked.pipeline,
        profile=asked.profile,
        tasks=tasks_of(plan.nodes),
        given=tuple(sorted(plan.given)),
        store="" if _is_here(store) else store,
        videos=asked.videos,
        dataset=asked.dataset,
        overrides=asked.overrides,
        called=asked.name,
        promote=asked.promote,
    )


def in_yaml(objects: list[Any]) -> str:
    """The objects of a file, the same text for the same objects."""
    try:
        import yaml
    except ImportError:
        raise MissingPackage("pyyaml", extra="k8s", purpose="writing objects of Kubernetes") from None
    text: str = yaml.safe_dump_all(objects, sort_keys=True, width=120, allow_unicode=True)
    return text


def _write(file: Path, text: str) -> None:
    from wfm.artifacts.atomic import replace_on_disk

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_on_disk(file, text.encode(), fsync=False)
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be written: {error.strerror}") from None
