"""``wfm cluster``: the launches of a pipeline as a script, and objects that are looked at before a cluster is asked."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pydantic
import typer

from pipelines.commands import completion
from pipelines.commands.console import (
    STORE_DEFAULT,
    NameOption,
    PromoteOption,
    StoreOption,
    open_store,
    say,
    show_table,
    table,
    warn,
)
from pipelines.commands.json_output import JsonOption, say_json
from pipelines.commands.manifests import objects_under
from pipelines.commands.request_options import DatasetOption, PipelineArgument, SetOption
from wfm.errors import InputError

if TYPE_CHECKING:
    from pipelines.engines.compile import Step

app = typer.Typer(help="Run on a Kubernetes cluster; look at objects for one.", no_args_is_help=True)

_MOST_SHOWN = 200


@app.command()
def steps(
    pipeline: PipelineArgument,
    profile: Annotated[
        str, typer.Option(help="Recipe; demo_cluster says what each stage needs.", autocompletion=completion.profiles)
    ] = "demo_cluster",
    videos: Annotated[str, typer.Option(metavar="URL", help="Your own, where pods can read them.")] = "",
    dataset: DatasetOption = "",
    name: NameOption = "",
    promote: PromoteOption = True,
    set_: SetOption = None,
    run_id: Annotated[str, typer.Option(metavar="ID", help="Give the run this id.")] = "",
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Plan a run for the cluster that WFM_CLUSTER describes, write it down, and print a shell script of its launches."""
    from pipelines.engines.compile import compile_plan
    from pipelines.request import Request
    from pipelines.stages import STAGES
    from pipelines.start_run import create_run
    from wfm.cluster.settings import ClusterSettings

    ClusterSettings.read()  # the plan names its images and is held to its quota
    opened = open_store(store, new=True)
    if "://" not in opened.url or opened.url.startswith("file:"):
        warn(f"the store {opened.url} is on this machine, where no pod sees it: give --store s3://… or gs://…")
    request = Request(
        pipeline,
        profile=profile,
        overrides=tuple(set_ or ()),
        videos=videos,
        dataset=dataset,
        name=name,
        promote=promote,
    )
    plan = request.plan(opened)
    run = create_run(request, plan, opened, run_id=run_id)
    there = {**plan.given, **{node.name: node.key for node in plan.nodes if node.done and node.key}}
    print(f"# run {run.id}")
    print("\n".join(script(compile_plan(plan, run, opened, STAGES), there)))


@app.command()
def captioning(
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Address by which runs ask it (endpoint.url).")],
    deployment: Annotated[
        str, typer.Option(metavar="NAME", help="Deployment that is raised and lowered.")
    ] = "captioning",
    replicas: Annotated[int, typer.Option(min=1, help="Servers while a run needs them.")] = 1,
    every: Annotated[float, typer.Option(min=1.0, help="Between looks [s].")] = 30.0,
    namespace: Annotated[str, typer.Option(metavar="NAME", help="Empty: that of this pod, or of the kubeconfig.")] = "",
    api: Annotated[
        str, typer.Option("--api", metavar="URL", help="API server (default: kubeconfig, or this pod's).")
    ] = "",
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Raise the captioning service while a run in the store needs it, and lower it to zero after the last, until stopped."""
    from wfm import stopping
    from wfm.cluster.api import Api
    from wfm.cluster.captioning import Scaler, follow

    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url):
        raise InputError(f"--url {url!r}: give the address as runs have it in endpoint.url, http://HOST:PORT/v1")
    stopping.listen()
    scaler = Scaler(
        Api.connect(namespace=namespace, url=api), open_store(store, new=True), url, name=deployment, replicas=replicas
    )
    follow(scaler, every)


def script(several: "Sequence[Step]", there: Mapping[str, str]) -> Iterator[str]:
    """The launches of a run, one after another: each waits for its stage, and hands its key on. `there`: node -> key of what is
    made already."""
    yield "set -eu"
    yield "keys=$(mktemp -d)  # the key of each stage, as it is made"
    for step in several:
        words = ["python", "-m", "components.launch_job", "--spec", shlex.quote(step.spec)]
        for name, node in step.inputs.items():
            key = there.get(node, f'"$(cat "$keys"/{node})"')
            words += ["--input", f"{name}={key}"]
        yield " ".join([*words, "--key-out", f'"$keys"/{step.node}'])


class FaultLine(pydantic.BaseModel):
    """A fault of an object."""

    rule: str
    where: str
    value: str
    "What stands there, as JSON and short; ``absent`` for nothing."
    says: str
    "What is wrong with it, and what to do."


class Faults(pydantic.BaseModel):
    """``wfm cluster lint --json``: all faults; with any the exit code is 78."""

    objects: int
    rules: int
    faults: list[FaultLine]


@app.command()
def lint(
    files: Annotated[list[Path], typer.Argument(help="YAML or JSON, each with one object or several; or folders.")],
    cluster: Annotated[
        str,
        typer.Option(
            "--cluster",
            metavar="FILE",
            envvar="WFM_CLUSTER",
            help="Settings of the cluster: its namespace, queue, images.",
        ),
    ] = "",
    json_: JsonOption = False,
) -> None:
    """Find what a cluster takes and punishes later: a lost queue label, a tag for an image, a retry of wrong input. Files are
    looked at together, so hand along the queues, claims and templates that belong to a job."""
    from wfm.cluster.lint import RULES
    from wfm.cluster.lint import lint as find
    from wfm.cluster.settings import ClusterSettings

    settings = ClusterSettings.read(cluster) if cluster else None
    objects = objects_under(files)
    if not objects:
        raise InputError(f"there is no object in {', '.join(map(str, files))}: give files of objects for Kubernetes")
    faults = find(objects, settings)
    if json_:
        told = [FaultLine(rule=each.rule, where=each.where, value=each.value, says=each.says) for each in faults]
        say_json(Faults(objects=len(objects), rules=len(RULES), faults=told))
        raise typer.Exit(InputError.exit_code if faults else 0)
    if not faults:
        say(f"{len(objects)} objects, {len(RULES)} rules, no fault")
        return
    listed = table("rule", "where", "value", prose="what to do")
    for fault in faults[:_MOST_SHOWN]:
        listed.row(fault.rule, fault.where, fault.value, fault.says)
    show_table(listed)
    more = f", {_MOST_SHOWN} shown" if len(faults) > _MOST_SHOWN else ""
    say(f"{len(faults)} faults in {len(objects)} objects{more}")
    raise typer.Exit(InputError.exit_code)
