"""``wfm runs``, ``status``, ``logs``: look at runs, whoever started their stages.

All of it reads ``runs/<id>/`` in the store; an engine on a cluster is asked for what no stage could write yet (`verbs.look`).
"""

import codecs
import time
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands import completion
from pipelines.commands.console import (
    LAST,
    STORE_DEFAULT,
    StoreOption,
    age,
    open_run,
    open_store,
    say,
    short_ids,
    show_table,
    table,
    warn,
)
from pipelines.commands.json_output import JsonOption, say_json
from pipelines.commands.request_options import RunArgument
from pipelines.runs.display import duration, node_table
from pipelines.runs.failed_plan import failed_plan_of
from pipelines.runs.seen import cost_in_words, ranges_in_words, read_tries, see, unix
from pipelines.runs.state import GOOD, RunState, read_state
from pipelines.runs.submission import submission_of
from wfm.errors import InputError, did_you_mean
from wfm.log import printable

if TYPE_CHECKING:
    from pipelines.verbs import Standing
    from wfm.artifacts.runs import Run

RunEngineOption = Annotated[
    str,
    typer.Option(
        "--engine", help="Of a run that a cluster began by itself, and that does not say it: argo or kubeflow."
    ),
]
_FOLLOW_SECONDS = 0.5


def runs(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """List the runs of a store, newest first."""
    from pipelines.commands.run_answers import RunList, run_row

    opened = open_store(store)
    everything = opened.runs.list()
    found, told, problems = everything[:limit], [], []
    for each in found:
        try:
            told.append(run_row(each.id, _stand(each)))
        except InputError as error:  # one run's file must not hide the others
            told.append(run_row(each.id, None, str(error)))
            problems.append(str(error))
    _tell_untold(found)
    if json:
        say_json(RunList(runs=told))
        return
    listed = table("run", "pipeline", "profile", "state", "started (UTC)", "took", prose="stages")
    short = short_ids(run.id for run in everything)
    for row in told:
        began = row.state not in ("planned", "pending", "never began", "cannot be read")
        stages = ", ".join(f"{count} {of}" for of in ("made", "there", "failed") if (count := getattr(row, of)))
        figures = (age(unix(row.started))[:16], duration(row.seconds), stages)
        listed.row(short[row.run], row.pipeline, row.profile, row.state, *(figures if began else ()))
    if found:
        show_table(listed)
    else:
        say(f"{opened.url} has no runs yet: `wfm run world_model` makes one")
    for problem in problems:
        warn(problem)
    if len(everything) > limit:
        warn(f"{len(everything) - limit} older ones: --limit {len(everything)} shows all")


def _tell_untold(found: "list[Run]") -> None:
    """A run that was killed could not say so."""
    from pipelines.runs.untold import LOOKED_AT, tell_untold
    from pipelines.verbs import failed_there

    for run_id in tell_untold(found[:LOOKED_AT], elsewhere=failed_there):
        warn(f"run {run_id} had ended and could not say so: the webhook was told now")


def _stand(run: "Run") -> "Standing":
    """Where a run stands; one that is over is not asked about again."""
    from pipelines.verbs import OVER, Standing, look

    state = read_state(run)
    return Standing(run, state, submission_of(run)) if state is not None and state.state in OVER else look(run)


def where(standing: "Standing") -> str:
    """Who works on a run."""
    state = standing.state
    if state is not None and state.pid and state.alive():
        return f"pid {state.pid} on {state.host}"
    return f"on {standing.engine}" if standing.word == "pending" else "its stages are at work"


def status(
    run_id: RunArgument = LAST,
    engine: RunEngineOption = "",
    request: Annotated[
        bool, typer.Option("--request", help="Only what was asked of it, as a run file: wfm run FILE.toml asks again.")
    ] = False,
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Show where a run stands, on whatever engine, and what all its tries have cost; also one that was killed."""
    from pipelines.commands.run_answers import run_status
    from pipelines.verbs import look

    opened = open_store(store)
    found = open_run(opened, run_id)
    if request:
        _tell_request(found)
        return
    _tell_untold([found])
    try:
        standing = look(found, engine=engine, patient=True)
    except InputError as error:
        if json:
            raise
        warn(str(error))
        _tell_attempts(found)
        return
    if json:
        say_json(run_status(standing, read_tries(found)))
        return
    if standing.state is None:
        say(f"run {found.id} was written down and never began: wfm rerun {found.id}")
        return
    _tell_state(standing.state)
    _tell_engine(standing)
    _tell_more(found, standing.state)


def _tell_request(found: "Run") -> None:
    from pipelines.request import Request
    from pipelines.run_file import run_file_of

    submission = submission_of(found)
    engine, team = (submission.engine, submission.team) if submission is not None else ("", "")
    print(printable(run_file_of(Request.of_run(found), engine, team)), end="")


def _tell_state(state: RunState) -> None:
    what = f"run {state.run_id}\n{state.pipeline} ({state.profile}) is {state.state}"
    if state.state not in ("planned", "pending"):
        ended = state.ended or (state.updated if state.state == "dead" else time.time())
        what += f", {duration(ended - state.started)} since {age(state.started)} UTC"
    show_table(node_table(state, {}, title=what))
    if state.reason:
        say(state.reason)
    if state.state == "planned":
        say(
            "none of its stages has begun, and no launcher of one: whoever has the plan (a workflow, a script) begins them"
        )
    if state.state == "dead" and not state.pid:
        say(f"nobody is at it any more: wfm rerun {state.run_id} asks for the same again")
    elif state.state == "dead":
        last = age(state.updated)
        say(
            f"its process (pid {state.pid} on {state.host}) is gone; its last word was at {last} UTC. "
            f"wfm rerun {state.run_id}, or wfm resume {state.run_id} to go on as the same run"
        )
    if state.state == "waiting":
        say("no stage of it runs now, and no engine of ours looks after it: another may begin the next")


def _tell_engine(standing: "Standing") -> None:
    """What its engine alone knows."""
    looked, submission = standing.looked, standing.submission
    if standing.word == "suspended":
        say(_what_it_holds(standing))
    if looked is not None:
        name = f" ({submission.name})" if submission is not None and submission.name else ""
        say(f"{standing.engine}{name}: {looked.phase}" + (f", {looked.words}" if looked.words else ""))
        if looked.address:
            say(f"its page there: {looked.address}")
    if standing.trouble:
        say(standing.trouble)
    if submission is not None and submission.background and standing.word in ("pending", "dead", "failed"):
        from pipelines.background import log_of

        if log_of(standing.run.id).exists():
            say(f"what its process said: {log_of(standing.run.id)}")


def _what_it_holds(standing: "Standing") -> str:
    """Of a suspended run: on this machine nothing, on a cluster what was said when it was suspended."""
    submission, run = standing.submission, standing.run.id
    if submission is None or submission.here:
        return f"it holds nothing on this engine's machine; to go on: wfm resume {run}"
    told = f"when it was suspended: {submission.suspension}"
    if not submission.suspension:
        told = f"whether its jobs still hold GPUs is not written down: wfm suspend {run} asks once more"
    return f"{told}; to go on: wfm resume {run}"


def _tell_more(found: "Run", state: RunState) -> None:
    """Cost, what failed, the page."""
    tries = read_tries(found)
    cost = cost_in_words(tries)
    for words in [*ranges_in_words(tries), *([cost] if cost else [])]:
        say(words)
    for name, node in state.nodes.items():
        if node.state in ("failed", "lost"):
            how = f"failed ({node.outcome})" if node.state == "failed" else "has no outcome"
            say(f"{name} {how}; its log:\n    wfm logs {state.run_id} {name}")
    page = state.nodes.get(str((found.record("spec.json") or {}).get("page", "")))
    if page is not None and page.state in GOOD and page.key:
        say(f"its page: wfm artifacts pull {page.key[:12]} page, then open page/report/index.html in a browser")


def _tell_attempts(found: "Run") -> None:
    """What is known of a run without its state: the attempts at each stage."""
    say(f"run {found.id}: its state cannot be read; what its stages wrote:")
    for node in found.nodes():
        for number in found.attempts(node):
            try:
                outcome = found.read_outcome(node, number)
                ended = str(outcome.get("outcome", "")) if outcome else "no outcome: it runs, or was killed or lost"
            except InputError as error:
                ended = str(error)
            say(f"    {node}, try {number}: {ended}")


def logs(
    run_id: RunArgument = LAST,
    stage: Annotated[
        str,
        typer.Argument(
            metavar="[STAGE]",
            help="A node of the run, as `wfm status` names it. Without: all of them.",
            autocompletion=completion.stages,
        ),
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the stage writes, until it ends.")] = False,
    attempt: Annotated[int | None, typer.Option(help="Which try (default: the last).")] = None,
    rank: Annotated[int, typer.Option(min=0, help="Of a stage of several processes: whose log.")] = 0,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Print what a stage wrote, or all stages of a run."""
    opened = open_store(store)
    try:
        found = open_run(opened, run_id)
    except InputError:
        newest = opened.runs.list()[:1]
        if any(run_id in run.nodes() for run in newest):
            raise InputError(f"{run_id} is a stage; the run comes before it: wfm logs {LAST} {run_id}") from None
        raise
    if not stage:
        if attempt is not None or rank:
            raise InputError("--attempt and --rank are of one stage: name it, as `wfm status` does")
        _print_all(found, follow)
        return
    state = see(found)
    if state is not None and state.nodes and stage not in state.nodes:
        raise InputError(
            f"run {found.id} has no stage {stage!r}.{did_you_mean(stage, state.nodes)} Choices: {', '.join(state.nodes)}"
        )
    if not found.attempts(stage) and not follow:
        one = state.nodes[stage] if state is not None and stage in state.nodes else None
        why = f"it is {one.state}" if one is not None else "it never began"
        reason = (one.reason or one.why) if one is not None else (state.reason if state is not None else "")
        raise InputError(f"stage {stage} of run {found.id} has no log: {why}{f' ({reason})' if reason else ''}")
    tries = found.attempts(stage)
    if attempt is not None and attempt not in tries and not follow:
        told = f"its tries are {', '.join(map(str, tries))}"
        raise InputError(f"--attempt {attempt}: stage {stage} of run {found.id} has no such try: {told}")
    number = attempt or max(tries, default=0)
    if rank and number in tries and rank >= (ranks := _ranks(found, stage, number)):
        many = f"{ranks} processes, 0 to {ranks - 1}" if ranks > 1 else "one process: leave --rank out"
        raise InputError(f"--rank {rank}: try {number} at stage {stage} of run {found.id} was {many}")
    _print_log(found, stage, attempt, rank, follow)


def _print_all(found: "Run", follow: bool) -> None:
    """What all tries of a run wrote, whole lines with the stage before each; with `follow` until the run is over, or rests. Of
    one that no stage of began, how its plan failed, if it did."""
    failed = None if found.nodes() else failed_plan_of(found)
    for said in f"{failed.trace}{failed.reason}".splitlines() if failed is not None else ():
        print(printable(f"[plan] {said}"), flush=True)
    ends: dict[tuple[str, int], tuple[int, bytes]] = {}
    while True:
        rests = _rests(found) if follow else ""
        over = not follow or bool(rests)
        for node, number in _tries_in_order(found):
            at, rest = ends.get((node, number), (0, b""))
            data, at = found.follow_log(node, number, at)
            *lines, rest = (rest + data).split(b"\n")
            for line in [*lines, *([rest] if over and rest else [])]:
                print(printable(f"[{node}] {line.decode(errors='replace')}"), flush=True)
            ends[node, number] = at, rest
        if over:
            break
        time.sleep(_FOLLOW_SECONDS)
    if follow:
        warn(f"run {found.id} is {rests}: wfm status {found.id}")


def _tries_in_order(found: "Run") -> list[tuple[str, int]]:
    """Tries of all stages, in the order of the work."""
    state = read_state(found)
    nodes = found.nodes()
    if state is not None:
        place = {name: at for at, name in enumerate(state.nodes)}
        nodes.sort(key=lambda name: place.get(name, len(place)))
    return [(node, number) for node in nodes for number in found.attempts(node)]


def _rests(found: "Run") -> str:
    """How a run stands on which nothing works, nor is about to; empty: it goes on."""
    from pipelines.verbs import look

    word = look(found).word
    return "" if word in ("pending", "planned", "running", "waiting") else word


def _ranks(found: "Run", stage: str, attempt: int) -> int:
    """Of how many processes a try was."""
    ranks = (found.read_attempt(stage, attempt) or {}).get("ranks")
    return ranks if isinstance(ranks, int) else 1


def _print_log(found: "Run", stage: str, attempt: int | None, rank: int, follow: bool) -> None:
    """Print a try's log; with `follow` as it grows, try after try, until the stage has ended."""
    number, at, decoder = attempt or 0, 0, _decoder()
    while True:
        over = not follow or _ended(found, stage, attempt)  # asked before the log is read: what follows is in it then
        tries = found.attempts(stage)
        if attempt is None and tries and tries[-1] != number:
            number, at, decoder = tries[-1], 0, _decoder()
        if number in tries:
            data, at = found.follow_log(stage, number, at, rank)
            print(printable(decoder.decode(data, final=over)), end="", flush=True)
        if over:
            return
        time.sleep(_FOLLOW_SECONDS)


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")(errors="replace")


def _ended(found: "Run", stage: str, attempt: int | None) -> bool:
    """Whether nothing more will come of a stage (of one try)."""
    state = read_state(found)
    if state is not None and state.seen() == "running" and stage in state.nodes and attempt is None:
        return state.nodes[stage].ended > 0 or state.nodes[stage].state in GOOD
    tries = [one for one in read_tries(found) if one.node == stage and attempt in (None, one.number)]
    if not tries:
        return state is not None and state.seen() != "running"
    return tries[-1].state not in ("running", "silent")
