"""The tab key, as bash, zsh and fish ask: by the environment, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.runs.state import NodeState, RunState
from tests.pipelines.commands.test_light import HEAVY
from wfm.artifacts import Store

ROOT = Path(__file__).parents[3]
ASK = """
import sys
sys.argv = ["wfm"]
from pipelines.commands.cli import main
try:
    main()
finally:
    print(*[name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.open(tmp_path_factory.mktemp("completed") / "store", {"fsync": False})
    run = store.runs.create({"pipeline": "p", "nodes": []}, "tick-1")
    state = RunState(run_id=run.id, pipeline="p", nodes={"split_clips": NodeState(stage="split_clips")})
    run.write("state.json", state.model_dump_json())
    with store.attempt("1" * 64) as attempt:
        (attempt.path / "x.json").write_text("{}")
        attempt.commit(stage="s", kind="dataset")
    store.promote("dataset", "curated", "1" * 64)
    return store


def ask(shell: str, line: str, url: str) -> tuple[list[str], str]:
    """(what is offered, heavy packages that were loaded and errors) for a line whose last word is being typed."""
    words = line.split(" ")
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "WFM_STORE": url,
        "_WFM_COMPLETE": f"complete_{shell}",
        **asked,
    }
    command = [sys.executable, "-c", ASK.format(heavy=HEAVY)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    found = [line.split("\t")[0] for line in done.stdout.splitlines() if line]
    return found, done.stderr.strip()


@pytest.mark.parametrize(
    ("shell", "line", "offered"),
    [
        ("bash", "wfm run --profile s", ["smoke"]),
        ("bash", "wfm run w", ["world_model"]),
        ("fish", "wfm submit --engine pre", ["prefect"]),
        ("bash", "wfm status t", ["tick-1"]),
        ("fish", "wfm logs tick-1 sp", ["split_clips"]),
        ("zsh", "wfm status tick", ["""_arguments '*: :(("tick-1"))'"""]),
        ("bash", "wfm artifacts show data", ["dataset/curated"]),
        ("bash", "wfm run world_model --dataset cu", ["curated"]),
        ("bash", "wfm run world_model --set train_diff", ["train_diffusion."]),
    ],
)
def test_a_word_is_completed_without_waiting(store: Store, shell: str, line: str, offered: list[str]) -> None:
    found, beside = ask(shell, line, store.url)
    assert found == offered
    assert beside in ("", "numpy"), "nothing heavy (numpy comes with the graphs), no error"


def test_what_is_wrong_is_silent(store: Store, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("no folder")
    for url in (str(tmp_path / "none"), str(tmp_path), "s3://bucket/x", "nonsense://x"):
        assert ask("bash", "wfm status t", url) == ([], ""), url
    assert not (tmp_path / "none").exists()
    assert ask("bash", "wfm logs nope s", store.url) == ([], "")
