"""``wfm runs``, ``status``, ``logs``, ``cancel``: look at runs and stop them, whoever started their stages.

All of it reads ``runs/<id>/`` in the store, never an engine's database.
"""

import codecs
import os
import signal
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

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
from pipelines.runs.display import duration, node_table
from pipelines.runs.seen import cost_in_words, ranges_in_words, read_tries, see
from pipelines.runs.state import GOOD, RunState, read_state
from wfm.errors import InputError, did_you_mean
from wfm.log import printable

if TYPE_CHECKING:
    from wfm.artifacts.runs import Run

RunArgument = Annotated[str, typer.Argument(metavar="[RUN]", help="Run id, the beginning of one, or `last`.")]
StageArgument = Annotated[str, typer.Argument(metavar="STAGE", help="A node of the run, as `wfm status` names it.")]
_PATIENCE_SECONDS = 60.0
_FOLLOW_SECONDS = 0.5


def runs(
    limit: Annotated[int, typer.Option(help="How many, newest first.")] = 20,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """List the runs of a store, newest first."""
    opened = open_store(store)
    listed = table("run", "pipeline", "profile", "state", "started (UTC)", "took", prose="stages")
    everything = opened.runs.list()
    short, found = short_ids(run.id for run in everything), everything[:limit]
    problems = []
    for each in found:
        try:
            state = see(each) if _open_ended(each) else read_state(each)
            if state is None:
                spec = each.spec()
                listed.row(short[each.id], str(spec.get("pipeline", "")), str(spec.get("profile", "")), "never began")
                continue
        except InputError as error:  # one run's file must not hide the others
            listed.row(short[each.id], "", "", "cannot be read")
            problems.append(str(error))
            continue
        counts = Counter(
            {"done": "made", "cached": "there"}.get(node.state, node.state) for node in state.nodes.values()
        )
        took = duration(max((state.ended or state.updated) - state.started, 0.0))
        if state.state == "planned":
            listed.row(short[each.id], state.pipeline, state.profile, state.state)
            continue
        stages = ", ".join(f"{count} {of}" for of, count in counts.items())
        begun = age(state.started)[:16]
        listed.row(short[each.id], state.pipeline, state.profile, state.state, begun, took, stages)
    if found:
        show_table(listed)
    else:
        say(f"{opened.url} has no runs yet: `wfm run world_model` makes one")
    for problem in problems:
        warn(problem)


def _open_ended(run: "Run") -> bool:
    """Whether only its tries tell where a run stands: no engine says so, or one that is gone."""
    state = read_state(run)
    return state is None or state.seen() == "dead"


def where(state: RunState) -> str:
    """Who works on a run."""
    return f"pid {state.pid} on {state.host}" if state.pid and state.alive() else "its stages are at work"


def status(run_id: RunArgument = LAST, store: StoreOption = STORE_DEFAULT) -> None:
    """Show where a run stands and what all its tries have cost; also one that was killed, or whose engine is elsewhere."""
    opened = open_store(store)
    found = open_run(opened, run_id)
    try:
        state = see(found, patient=True)
    except InputError as error:
        warn(str(error))
        _tell_attempts(found)
        return
    if state is None:
        say(f"run {found.id} was written down and never began: wfm rerun {found.id}")
        return
    if state.state == "planned":
        show_table(node_table(state, {}, title=f"run {state.run_id}: {state.pipeline} ({state.profile}) is planned"))
        say(
            "none of its stages has begun, and no launcher of one: whoever has the plan (a workflow, a script) begins them"
        )
        return
    took = duration((state.ended or (state.updated if state.state == "dead" else time.time())) - state.started)
    title = f"{state.pipeline} ({state.profile}) is {state.state}, {took} since {age(state.started)} UTC"
    show_table(node_table(state, {}, title=f"run {state.run_id}\n{title}"))
    if state.reason:
        say(state.reason)
    if state.state == "dead":
        last = age(state.updated)
        say(
            f"its process (pid {state.pid} on {state.host}) is gone; its last word was at {last} UTC. wfm rerun {state.run_id}"
        )
    if state.state == "waiting":
        say("no stage of it runs now, and no engine of ours looks after it: another may begin the next")
    tries = read_tries(found)
    cost = cost_in_words(tries)
    for words in [*ranges_in_words(tries), *([cost] if cost else [])]:
        say(words)
    for name, node in state.nodes.items():
        if node.state in ("failed", "lost"):
            how = f"failed ({node.outcome})" if node.state == "failed" else "has no outcome"
            say(f"{name} {how}: {node.reason}\n    its log: wfm logs {state.run_id} {name}")
    page = state.nodes.get(str(found.spec().get("page", "")))
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
    run_id: RunArgument,
    stage: StageArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the stage writes, until it ends.")] = False,
    attempt: Annotated[int | None, typer.Option(help="Which try (default: the last).")] = None,
    rank: Annotated[int, typer.Option(min=0, help="Of a stage of several processes: whose log.")] = 0,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Print what a stage wrote."""
    found = open_run(open_store(store), run_id)
    state = see(found)
    if state is not None and state.nodes and stage not in state.nodes:
        raise InputError(
            f"run {found.id} has no stage {stage!r}.{did_you_mean(stage, state.nodes)} Choices: {', '.join(state.nodes)}"
        )
    if not found.attempts(stage) and not follow:
        one = state.nodes[stage] if state is not None else None
        why = f"it was {one.state}" if one is not None else "it never began"
        raise InputError(f"stage {stage} of run {found.id} has no log: {why} ({one.reason or one.why if one else ''})")
    tries = found.attempts(stage)
    if attempt is not None and attempt not in tries and not follow:
        told = f"its tries are {', '.join(map(str, tries))}"
        raise InputError(f"--attempt {attempt}: stage {stage} of run {found.id} has no such try: {told}")
    number = attempt or max(tries, default=0)
    if rank and number in tries and rank >= (ranks := _ranks(found, stage, number)):
        many = f"{ranks} processes, 0 to {ranks - 1}" if ranks > 1 else "one process: leave --rank out"
        raise InputError(f"--rank {rank}: try {number} at stage {stage} of run {found.id} was {many}")
    _print_log(found, stage, attempt, rank, follow)


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


def cancel(run_id: RunArgument = LAST, store: StoreOption = STORE_DEFAULT) -> None:
    """Stop a run in order, whoever started its stages: they save what they have; `wfm rerun` goes on from there."""
    found = open_run(open_store(store), run_id)
    state = see(found)
    if state is None or state.state not in ("planned", "running", "waiting"):
        raise InputError(f"run {found.id} is not running: it is {state.state if state else 'not begun'}")
    found.request_cancel()
    if state.host == socket.gethostname() and state.alive():
        os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (state := see(found)) is not None and state.state == "running" and time.monotonic() < deadline:
        time.sleep(0.3)
    seen = state.state if state else "gone"
    say(f"run {found.id} is {seen}" + ("; it was asked to stop and is still at it" if seen == "running" else ""))
