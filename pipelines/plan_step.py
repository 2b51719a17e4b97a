"""The first step of a run on a cluster: plan it, write its specs, and say which nodes there are to make.

    python -m pipelines.plan_step --run-id ID --pipeline P --profile P --store URL [--videos URL] [--dataset NAME]
        [--name NAME] [--promote false]
        [--overrides '["train_diffusion.steps=10"]'] [--expects NODE=DIGEST,...] --out FOLDER

What an engine hands to the steps that follow lies in FOLDER, a file each: ``specs`` (URL of the folder of specs), ``anything``
(``true`` where any node is to be made), ``make-<task>`` (``true`` or ``false``: a node that is there already starts no pod) and
``key-<task>`` of each node, by its name as a task (`pipelines.engines.flow`). Files outside are looked at here alone: the
ingest takes what this step saw, so every key is known, and what comes later belongs to the next run. Asked again for the same
run it says the same. That it failed is written down in the run (`pipelines.runs.failed_plan`).

Exit codes are a stage's: 0, 78 wrong input (again gives the same), 75 try again, 1 a bug.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from components.entrypoint import key_and_external
from components.outside import keep
from components.promotion import promote
from pipelines.engines.compile import compile_plan
from pipelines.engines.flow import check_expected, tasks_of
from pipelines.nodes import Plan
from pipelines.plan import refresh
from pipelines.request import Request
from pipelines.runs.failed_plan import note_failed_plan
from pipelines.runs.submission import TEAM, WORKFLOW
from pipelines.stages import STAGES
from pipelines.start_run import create_run
from wfm import caches
from wfm.artifacts import schema
from wfm.artifacts.atomic import replace_on_disk
from wfm.artifacts.environment import store_options
from wfm.cluster.settings import ClusterSettings
from wfm.errors import InputError, WfmError
from wfm.log import get_logger, set_up

if TYPE_CHECKING:
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

STORE = "WFM_STORE"
_WORKFLOW_VERSION = 1
_LOOK_SECONDS = 10.0
"""How often a run that is suspended is looked at."""


def main() -> None:
    """Plan; never returns."""
    arguments = _parse()
    set_up("INFO")
    try:
        from wfm.artifacts import Store

        caches.prepare()
        overrides = schema.fit(
            tuple[str, ...], _json(arguments.overrides, "--overrides", '["train_diffusion.steps=10"]'), "--overrides"
        )
        request = Request(
            arguments.pipeline, profile=arguments.profile, overrides=overrides, videos=arguments.videos,
            dataset=arguments.dataset, redo=schema.fit(dict[str, str], _json(arguments.redo, "--redo", "{}"), "--redo"),
            name=arguments.name, promote=arguments.promote == "true",
        )  # fmt: skip
        if not arguments.store:
            raise InputError(
                f"there is no store to plan for: give --store URL, or set {STORE} in the cluster's environment"
            )
        store = Store.open(arguments.store, store_options())
        if arguments.workflow_uid:
            of_workflow(store.runs.of(arguments.run_id), arguments.workflow_uid)
        with noting_failure(store.runs.of(arguments.run_id), request):
            wait_while_suspended(store.runs.of(arguments.run_id))
            said = plan_run(request, store, arguments.run_id, _expected(arguments.expects))
            write(said, arguments.out)
    except (WfmError, OSError) as error:
        get_logger("wfm.plan").error("%s: %s", type(error).__name__, error)
        sys.exit(getattr(error, "exit_code", 75))
    get_logger("wfm.plan").info("run %s: %s", arguments.run_id, _in_words(said))


def plan_run(request: Request, store: "Store", run_id: str, expected: Mapping[str, str] | None) -> dict[str, str]:
    """Plan a run and write it down; returns what the steps that follow are told, by name.

    Raises ConfigError where the run has other tasks than `expected`, InputError where another was asked for under its id.
    """
    settings = ClusterSettings.read()
    plan = request.plan(store)
    if expected is not None:
        check_expected(plan, settings, expected)
    _hold(plan, store.runs.of(run_id), store)  # before the run's own spec: it names the keys of what was seen
    team = os.environ.get(TEAM, "") or settings.queue  # whose queue it is, where nobody says whose run
    run = create_run(request, plan, store, run_id=run_id, team=team)
    compile_plan(plan, run, store, STAGES)
    for node in plan.nodes:
        if node.done:  # a stage that runs promotes by itself
            promote(store, node.promote, node.key or "", node.gate, run.id)
    keys = {**plan.given, **{node.name: node.key or "" for node in plan.nodes}}
    names = {task.node: task.name for task in tasks_of(plan.nodes)}
    return {
        "specs": run.path_of("specs"),
        "anything": str(bool(plan.missing)).lower(),
        **{f"make-{names[node.name]}": str(not node.done).lower() for node in plan.nodes},
        **{f"key-{names.get(node, node)}": key for node, key in keys.items()},
    }


@contextmanager
def noting_failure(run: "Run", request: Request) -> Iterator[None]:
    """What fails inside is written down in the run, if that can be: nothing else says it of one that a cluster began by
    itself."""
    try:
        yield
    except Exception as error:
        try:
            note_failed_plan(run, request.pipeline, request.profile, error)
        except (WfmError, OSError) as other:
            get_logger("wfm.plan").warning("that its plan failed cannot be written down in run %s: %s", run.id, other)
        raise


def of_workflow(run: "Run", uid: str) -> None:
    """Note for which workflow of its engine a run is made. Raises InputError where that was another: engines forget a workflow
    some time after its end, and one of the same name later would be the old run, with the videos as they were then."""
    mine = {"schema_version": _WORKFLOW_VERSION, "uid": uid}
    if run.create(WORKFLOW, schema.encode(mine)):
        return
    there = schema.decode(run.read(WORKFLOW) or b"", run.path_of(WORKFLOW), _WORKFLOW_VERSION)
    if there.get("uid") != uid:
        raise InputError(
            f"run {run.id} was made by an earlier workflow of this name ({there.get('uid')!s:.80}; this one is {uid}): submit "
            f"under a name of its own, which is a new run; what is made stays (`wfm rerun {run.id}` does that)"
        )


def wait_while_suspended(run: "Run", seconds: float = _LOOK_SECONDS) -> None:
    """An engine that knows no suspend begins this step all the same."""
    told = False
    while not run.cancelled_by() and (by := run.suspended_by()):
        if not told:
            get_logger("wfm.plan").info("%s suspended run %s: waiting until `wfm resume` lets it go on", by, run.id)
        told = True
        time.sleep(seconds)


def _hold(plan: Plan, run: "Run", store: "Store") -> None:
    """Keep what the plan sees of the outside in the run, or take up what an earlier try of this step saw, also where that of
    now is made already (by another run, meanwhile); with it every key is sure."""
    for node in plan.nodes:
        node.done = False
        if STAGES[node.stage].watches and not node.inputs:
            _, seen = key_and_external(plan.spec(node, store, run.id), {}, store)
            node.seen = keep(run, node.name, seen)
    refresh(plan, store)


def write(said: Mapping[str, str], folder: str) -> None:
    """A file for each."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, text in said.items():
        replace_on_disk(Path(folder, name), text.encode(), fsync=False)


def _in_words(said: Mapping[str, str]) -> str:
    made = [text for name, text in said.items() if name.startswith("make-")]
    return f"{made.count('true')} of {len(made)} stages to make"


def _json(text: str, option: str, example: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{option} {text[:200]!r} is no JSON: give such as {example}") from None


def _expected(text: str) -> dict[str, str] | None:
    """What ``--expects`` says; None where nothing is expected."""
    return dict(one.partition("=")[::2] for one in text.split(",")) if text else None


def _parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipelines.plan_step", description="Plan a run for a cluster.")
    parser.add_argument("--run-id", required=True, help="of the run; asked twice, it is one run")
    parser.add_argument("--asked-as", default="", metavar="ID", help="the run's id, where an engine's name is another")
    parser.add_argument("--workflow-uid", default="", metavar="UID", help="of the workflow: another makes no run anew")
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--store", default="", metavar="URL", help=f"default: {STORE}")
    parser.add_argument("--videos", default="", metavar="URL")
    parser.add_argument("--dataset", default="", metavar="NAME")
    parser.add_argument("--name", default="", help="of the results, in place of the recipe's")
    parser.add_argument("--promote", default="true", choices=("true", "false"), help="whether they get a name")
    parser.add_argument("--overrides", default="[]", metavar="JSON", help="a list of STAGE.FIELD=VALUE")
    parser.add_argument("--redo", default="{}", metavar="JSON", help="node -> nonce: what is made again")
    parser.add_argument("--expects", default="", metavar="NODE=DIGEST,...", help="the tasks that were compiled")
    parser.add_argument("--out", required=True, metavar="FOLDER")
    arguments = parser.parse_args(argv)
    arguments.store = arguments.store or os.environ.get(STORE, "")
    arguments.run_id = arguments.asked_as or arguments.run_id
    return arguments


if __name__ == "__main__":
    main()
