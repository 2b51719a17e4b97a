"""Memory is traced in processes of their own (``tests/conftest.py`` says why)."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def untold(source: str) -> list[str]:
    """The functions that start a trace and are not marked ``alone``, or that stop one."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        calls = {ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
        marked = any(ast.unparse(mark) == "pytest.mark.alone" for mark in function.decorator_list)
        if "tracemalloc.stop" in calls or ("tracemalloc.start" in calls and not marked):
            found.append(function.name)
    return found


def test_every_trace_of_memory_is_alone() -> None:
    assert {path.name: untold(path.read_text()) for path in TESTS.rglob("test_*.py") if untold(path.read_text())} == {}
    assert untold("def test_a():\n    tracemalloc.start()\n") == ["test_a"]
    assert untold("@pytest.mark.alone\ndef test_a():\n    tracemalloc.start()\n    tracemalloc.stop()\n") == ["test_a"]


@pytest.mark.alone
def test_what_is_alone_runs_in_a_process_of_its_own() -> None:
    assert os.environ["WFM_TEST_ALONE"].endswith("::test_what_is_alone_runs_in_a_process_of_its_own")


def test_what_fails_alone_fails(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    alone\n")
    (tmp_path / "test_it.py").write_text("import pytest\n\n@pytest.mark.alone\ndef test_it():\n    assert 1 == 2\n")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "assert 1 == 2" in done.stdout
