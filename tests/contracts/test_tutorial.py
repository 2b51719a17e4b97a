"""The tutorial is typed, line by line, in a folder of its own, and says what it shows."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.documents import ROOT, blocks, refused

TEXT = (ROOT / "docs" / "tutorial.md").read_text()
HEAVY = re.compile(r"\bwfm run (?!.*--dry-run)|\bmake ")
"""What makes something: minutes of work."""


def typed(text: str = TEXT) -> list[tuple[str, list[str]]]:
    """Every line that is typed, and the lines shown after it."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks(text):
        if not block.startswith("$ "):
            continue
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def missing(shown: list[str], output: str) -> list[str]:
    """Which of the lines shown do not come in the output, in their order; `…` stands for anything in a line."""
    lines = [" ".join(line.split()) for line in output.splitlines()]
    lost, at = [], 0
    for line in shown:
        pattern = re.compile(".*".join(re.escape(" ".join(piece.split())) for piece in line.split("…")))
        hit = next((index for index in range(at, len(lines)) if pattern.fullmatch(lines[index])), None)
        if hit is None:
            lost.append(line)
        else:
            at = hit + 1
    return lost


def type_it(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """As somebody does who has the commands in PATH, and sees all that is said in its order."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WFM_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "WFM_HOME": str(folder / "home"),
        "COLUMNS": "250",
        "PYTHONUNBUFFERED": "1",  # as on a terminal: a killed command has said what it said
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
    }
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200, check=False,
    )  # fmt: skip


def test_its_commands_are_taken() -> None:
    said = [line for line, _ in typed()]
    assert len(said) > 15
    ours = [piece for line in said for piece in re.findall(r"\bwfm .*?(?= \|\| | > | < | &> |$)", line)]
    assert {piece: says for piece in ours if (says := refused(shlex.split(piece)))} == {}
    assert sum(bool(HEAVY.search(line)) for line in said) >= 5


def test_what_costs_nothing_says_what_is_shown(tmp_path: Path) -> None:
    """The part before anything is made; the rest is `test_all_of_it`."""
    cheap = [one for one in typed(TEXT.partition("## 3.")[0]) if not HEAVY.search(one[0])]
    assert len(cheap) >= 2
    for line, shown in cheap:
        done = type_it(line, tmp_path)
        assert done.returncode == 0, done.stdout
        assert missing(shown, done.stdout) == [], f"$ {line}\n{done.stdout}"


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_all_of_it(tmp_path: Path) -> None:
    for line, shown in typed():
        done = type_it(line, tmp_path)
        assert done.returncode == 0, f"$ {line}\n{done.stdout}"
        assert missing(shown, done.stdout) == [], f"$ {line}\n{done.stdout}"


def test_what_is_not_said_is_missed() -> None:
    output = "a stage  done\n3 in, 2 out"
    assert missing(["a stage…", "3 in, … out"], output) == []
    assert missing(["3 in, … out", "a stage…"], output) == ["a stage…"]
    assert missing(["…4 in…"], output) == ["…4 in…"]
