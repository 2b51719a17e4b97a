"""What a person sees of a run."""

import time

import pytest

from pipelines.runs.display import (
    PlainDisplay,
    duration,
    in_words,
    node_table,
    note_progress,
    time_left,
    training_in_words,
)
from pipelines.runs.state import NodeState, RunState


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (8.31, "8.3 s"), (125, "2:05"), (3725, "1:02:05")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_progress_line_gives_the_time_left() -> None:
    state = NodeState(stage="s", state="running", started=time.time() - 10)
    note_progress(state, "13:30:24 INFO    wfm.progress: simulate: 1/6 parts, 0.0329/s, 152 s left")
    assert state.note == "simulate: 1/6 parts, 0.0329/s, 152 s left"
    assert time_left(state, usual_seconds=5.0) in ("2:32", "2:31")
    note_progress(state, "any other line")
    assert state.note.startswith("simulate")


def test_without_one_it_is_what_the_node_usually_takes() -> None:
    assert time_left(NodeState(stage="s"), 30.0) == "~30.0 s"
    assert time_left(NodeState(stage="s", state="running", started=time.time() - 20), 30.0).startswith(("~10", "~9.9"))
    assert time_left(NodeState(stage="s", state="done"), 30.0) == ""


def test_plain_lines_name_the_node_and_quiet_keeps_only_the_states(capsys: pytest.CaptureFixture[str]) -> None:
    state = RunState(run_id="r", pipeline="p", nodes={"a": NodeState(stage="a", state="failed", reason="no [luck]")})
    for quiet in (False, True):
        display = PlainDisplay(state, quiet)
        display.line("a", "13:00:00 a word")
        display.changed("a")
    lines = capsys.readouterr().err.splitlines()
    assert [line[9:] for line in lines] == ["[a] a word", "[a] failed - no [luck]", "[a] failed - no [luck]"]


def test_a_finished_stage_says_what_it_left_out_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    note = in_words({"inputs": 16, "outputs": 9, "copied": 2}, {"too_short": 1, "truncated": 6})
    assert note == "16 in, 9 out; left out: truncated 6, too_short 1"
    assert in_words({"steps": 3}, {}) == ""
    state = RunState(
        run_id="r", pipeline="p", nodes={"a": NodeState(stage="a", state="done", started=1, ended=3, note=note)}
    )
    PlainDisplay(state).changed("a")
    assert capsys.readouterr().err.rstrip().endswith(f"[a] done in 2.0 s - {note}")


def test_a_narrow_screen_keeps_names_and_states() -> None:
    from rich.console import Console

    state = RunState(run_id="r", pipeline="p")
    state.nodes["train_tokenizer_continuous"] = NodeState(stage="t", state="failed", reason="word " * 60)
    console = Console(width=80, markup=False)
    with console.capture() as capture:
        console.print(node_table(state, {}, "title"))
    assert "train_tokenizer_continuous  failed" in capture.get()


def test_a_training_says_what_it_waited_for_and_left_out() -> None:
    extra = {"waited_for_data": 12.4, "waited": 3.2, "batches_left_out": [{"step": 3}, {"step": 9}]}
    assert training_in_words(extra) == "waited 12 s for data and 3 s for the store; 2 batches left out"
    assert training_in_words({"waited_for_data": 12.4, "waited": 0.0}) == "waited 12 s for data"
    assert training_in_words({"waited_for_data": 0.4, "waited": 0.0, "batches_left_out": []}) == ""
    assert training_in_words({"waited": "long", "left_out": 3}) == ""  # of another wfm


def test_what_a_training_says_of_its_speed_is_shown_while_it_runs() -> None:
    state = NodeState(stage="s")
    line = "wfm.progress: diffusion 40/100 steps, 2 s left, loss 0.1234, 12.3 k tokens/s, MFU 31%, 1 batches left out"
    note_progress(state, line)
    assert state.note.endswith("loss 0.1234, 12.3 k tokens/s, MFU 31%, 1 batches left out")
