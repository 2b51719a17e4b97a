"""``wfm submit``, ``suspend``, ``resume``, ``cancel``: a run that goes on by itself, on this machine or on a cluster.

What is done stands in `pipelines.verbs`; here is how it is asked for and said.
"""

from typing import TYPE_CHECKING, Annotated

import pydantic
import typer

from pipelines.commands import completion
from pipelines.commands.console import (
    LAST,
    STORE_DEFAULT,
    NameOption,
    PromoteOption,
    StoreOption,
    open_run,
    open_store,
    say,
)
from pipelines.commands.json_output import JsonOption, say_json
from pipelines.commands.look_at_runs import RunEngineOption
from pipelines.commands.request_options import DatasetOption, PipelineArgument, ProfileOption, RunArgument, SetOption

if TYPE_CHECKING:
    from pipelines.request import Request
    from pipelines.verbs import Standing
    from wfm.artifacts import Store

EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        envvar="WFM_ENGINE",
        autocompletion=completion.engines,
        help="Who runs it: prefect or local (this machine), argo or kubeflow (a cluster). Default: prefect if it is there.",
    ),
]
TeamOption = Annotated[
    str, typer.Option(metavar="NAME", envvar="WFM_TEAM", help="Whose work it is: `wfm cost --by team` adds it up.")
]
TemplateOption = Annotated[
    str, typer.Option(metavar="NAME", help="On a cluster: what `wfm compile` wrote. Default: PIPELINE-PROFILE.")
]


def add_to(app: typer.Typer) -> None:
    """Put these commands into the command line."""
    for command in (submit, suspend, resume, cancel):
        app.command()(command)


class Submitted(pydantic.BaseModel):
    """``wfm submit --json``, ``wfm rerun --json``."""

    run: str
    engine: str
    state: str
    reason: str
    name: str
    "The engine's own name of it, on a cluster."
    address: str
    "Its page in the engine's UI; empty: unknown."
    rerun_of: str


def submit(
    pipeline: PipelineArgument,
    profile: ProfileOption = "demo",
    videos: Annotated[
        str, typer.Option(metavar="DIR", help="Your own: folder, archive, file, glob, list or URL. Without: simulated.")
    ] = "",
    dataset: DatasetOption = "",
    name: NameOption = "",
    promote: PromoteOption = True,
    set_: SetOption = None,
    engine: EngineOption = "",
    template: TemplateOption = "",
    team: TeamOption = "",
    run_id: Annotated[
        str, typer.Option(metavar="ID", help="Give the run this id: asked for twice, it is one run.")
    ] = "",
    cpu: Annotated[float | None, typer.Option(help="Processors that its stages may share, on this machine.")] = None,
    memory: Annotated[
        float | None, typer.Option(help="Memory that its stages may share [GiB], on this machine.")
    ] = None,
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Ask for a run that goes on by itself, and return at once."""
    from pipelines.request import Request
    from pipelines.verbs import submit as ask

    wanted = Request(
        pipeline,
        profile=profile,
        overrides=tuple(set_ or ()),
        videos=videos,
        dataset=dataset,
        name=name,
        promote=promote,
    )
    standing = ask(
        wanted,
        open_store(store, new=True),
        engine=engine,
        run_id=run_id,
        template=template,
        team=team,
        cpu=cpu,
        memory_gib=memory,
    )
    tell_submitted(standing, json)


def submit_again(
    wanted: "Request", store: "Store", *, rerun_of: str, engine: str, template: str, team: str, cpu: float | None,
    memory: float | None, json: bool,
) -> None:  # fmt: skip
    """A rerun as a new submit."""
    from pipelines.verbs import submit as ask

    standing = ask(
        wanted, store, engine=engine, template=template, team=team, rerun_of=rerun_of, cpu=cpu, memory_gib=memory
    )
    tell_submitted(standing, json)


def tell_submitted(standing: "Standing", json: bool) -> None:
    """How to follow it."""
    submission, run = standing.submission, standing.run
    if json:
        told = submission.model_dump() if submission is not None else {}
        say_json(
            Submitted(
                run=run.id, engine=standing.engine, state=standing.word, name=told.get("name", ""),
                reason=standing.state.reason if standing.state is not None else "",
                address=standing.looked.address if standing.looked is not None else "",
                rerun_of=told.get("rerun_of", ""),
            )
        )  # fmt: skip
        return
    where = "in the background of this machine" if submission is not None and submission.here else "there"
    say(f"run {run.id} is {standing.word} on {standing.engine}; it goes on by itself {where}")
    if standing.trouble:
        say(standing.trouble)
    if standing.looked is not None and standing.looked.address:
        say(f"its page: {standing.looked.address}")
    say(f"to follow: wfm logs {run.id} -f")
    say("the same id goes to wfm status, events, suspend, resume, cancel; without one they take the newest run")


def suspend(run_id: RunArgument = LAST, engine: RunEngineOption = "", store: StoreOption = STORE_DEFAULT) -> None:
    """Begin no further stage; those that run save what they have and stop. Says what that frees."""
    from pipelines.verbs import suspend as ask

    say(ask(open_run(open_store(store), run_id, change=True), engine=engine))


def resume(run_id: RunArgument = LAST, engine: RunEngineOption = "", store: StoreOption = STORE_DEFAULT) -> None:
    """Let a suspended run go on from what its stages saved; also one whose process was killed."""
    from pipelines.verbs import resume as ask

    opened = open_store(store)
    say(ask(open_run(opened, run_id, change=True), opened, engine=engine))


def cancel(run_id: RunArgument = LAST, engine: RunEngineOption = "", store: StoreOption = STORE_DEFAULT) -> None:
    """Stop a run in order, on whatever engine, also a suspended one: it saves what it has; `wfm rerun` goes on from there."""
    from pipelines.verbs import cancel as ask

    say(ask(open_run(open_store(store), run_id, change=True), engine=engine))
