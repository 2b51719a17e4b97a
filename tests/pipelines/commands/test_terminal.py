"""Names and words that come from outside are shown on a terminal, never obeyed by it."""

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from pipelines.commands.console import guarded, say, warn
from pipelines.runs.display import careful_console
from wfm.artifacts import Store
from wfm.log import printable, set_up

ROOT = Path(__file__).parents[3]
TITLE = "\x1b]0;pwned\x07"
"""Renames the terminal's window; with 52 in place of 0 it fills the clipboard."""
HOSTILE = f"a{TITLE}\x9b2J\x1b[31m\u202egnp.\r\ud800b.mp4"
COMMANDS = ("\x1b", "\x9b", "\x07", "\r", "\u202e", "\ud800")


def obeyed(text: str) -> list[str]:
    return [repr(each) for each in COMMANDS if each in text]


def test_what_a_terminal_would_obey_is_written_out_as_json_does() -> None:
    assert printable(HOSTILE) == "a\\u001b]0;pwned\\u0007\\u009b2J\\u001b[31m\\u202egnp.\\u000d\\ud800b.mp4"
    assert printable("größe 高さ 🎬\tcol\nnext") == "größe 高さ 🎬\tcol\nnext"
    assert printable("one\ntwo", one_line=True) == "one\\u000atwo"
    row = {"source": f"a{TITLE}\u202e.mp4"}
    assert json.loads(printable(json.dumps(row, ensure_ascii=False))) == row


def test_lines_and_tables_and_logs_are_harmless(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(HOSTILE)  # printed as it was before, and a half of a character ended the command with UnicodeEncodeError
    table = Table(title=HOSTILE)
    table.add_column("name")
    table.add_row(HOSTILE)
    careful_console(stderr=False, width=200).print(table)
    monkeypatch.setattr(logging.getLogger("wfm"), "handlers", [])
    set_up()
    logging.getLogger("wfm.x").warning("cannot read %s", HOSTILE)
    shown = capsys.readouterr()
    assert obeyed(shown.out + shown.err) == []
    assert shown.out.count("pwned") == 3
    assert "cannot read a\\u001b]0;pwned" in shown.err


def test_a_line_beside_the_answer_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    """It went out as it was: words of a damaged record, as `artifacts list` and `runs` tell of it."""
    warn(f"passed over: {HOSTILE.encode('utf-8', 'replace').decode()}")
    shown = capsys.readouterr().err
    assert obeyed(shown) == []
    assert "passed over: a\\u001b]0;pwned" in shown


def test_a_terminal_gets_the_colours_of_rich_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    console = careful_console(stderr=False, width=80)
    with console.capture() as captured:
        console.print(HOSTILE, style="red")
    text = captured.get()
    assert "\x1b[31m" in text  # the style asked for
    assert TITLE not in text
    assert text.count("\x1b") == 2  # it, and its end


def test_commands_show_hostile_words_of_a_store(wfm, tmp_path: Path) -> None:
    store, key = Store.open(tmp_path / "store"), "1" * 64
    with store.attempt(key) as attempt:
        (attempt.path / "x.json").write_text("{}")
        attempt.commit(stage="s", kind="dataset", skipped={f"odd{TITLE}": 1}, config={"note": f"\x9b2J{TITLE}"})
    store.promote("dataset", "d", key)
    for words in (
        ["show", "dataset/d"],
        ["files", "dataset/d", TITLE],
        ["invalidate", "dataset/d", "--reason", HOSTILE[:-6]],
    ):
        done = wfm("artifacts", *words, store=tmp_path / "store")
        assert obeyed(done.stdout + done.stderr) == [], words


def test_the_story_of_a_bug_shows_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old code wrote the command line down as it was, in a file that people send along with their report."""
    address = "https://me:hunter2secret@h/a.mp4?token=hunter2secret"
    monkeypatch.setenv("WFM_HOME", str(tmp_path))
    monkeypatch.setattr("pipelines.commands.console.os._exit", sys.exit)
    monkeypatch.setattr(sys, "argv", ["wfm", "run", "--videos", address])

    def fails() -> None:
        raise ZeroDivisionError(f"at {address}")

    with pytest.raises(SystemExit):
        guarded(fails)
    (story,) = (tmp_path / "errors").iterdir()
    for text in (story.read_text(), capsys.readouterr().err):
        assert "hunter2secret" not in text
        assert "ZeroDivisionError: at https://***@h/a.mp4?token=***" in text


@pytest.mark.parametrize(("loaded", "code"), [("pyarrow", 3), ("json", -signal.SIGABRT)])
def test_what_a_library_does_at_its_end_is_no_failure_of_a_command(loaded: str, code: int) -> None:
    """A library that aborts as the process ends (pyarrow 26.0.1) takes neither the answer nor the exit code; where it is not
    loaded, whoever aborts is seen."""
    script = (
        f"import atexit, os, {loaded}, typer\nfrom pipelines.commands.console import guarded\natexit.register(os.abort)\n"
        "def answers():\n    print('the answer', end='')\n    raise typer.Exit(3)\nguarded(answers)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stdout) == (code, "the answer")
