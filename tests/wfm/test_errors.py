"""What an error means to whoever decides about a retry, for engines and stages alike."""

import re
from pathlib import Path

import pytest

from wfm.errors import EXIT_OUTCOMES, InputError, exit_code_of, is_final, may_retry

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    *(path for folder in ("wfm", "components", "pipelines") for path in sorted((ROOT / folder).rglob("*.py"))),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
]
AN_EXIT_OF_64 = re.compile(
    r"exit_?\(?\s*64\b|exit[ _]codes?\D{0,20}\b64\b|exit_code\s*[=:]+\s*64|\b64 wrong|wrong input \(64|\b64:\s*\"",
    re.IGNORECASE,
)


def test_64_is_no_exit_code_of_ours() -> None:
    """It is argoexec's own, as 65 is: a stage that ends with it is taken for a failure of the engine."""
    assert InputError.exit_code == 78
    assert not {64, 65} & EXIT_OUTCOMES.keys()
    found = [
        f"{path}:{number}: {line}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if AN_EXIT_OF_64.search(line) and "64 was ours" not in line and "codes of Argo" not in line
    ]
    assert found == []


@pytest.mark.parametrize(
    "line", ["os._exit(64)", "    exit_code = 64", "exit codes: 0 done, 64 wrong input", 'EXITS = {64: "wrong_input"}']
)
def test_the_search_finds_what_stood_there_before(line: str) -> None:
    assert AN_EXIT_OF_64.search(line)


@pytest.mark.parametrize(
    ("outcomes", "final"),
    [
        ([], False), (["try_again"] * 9, False), (["cancelled"], False), (["wrong_input"], True), (["bug"], False),
        (["bug", "bug"], True), (["bug", "try_again", "bug"], True), (["bug", "bug", "try_again"], False), (["done"], False),
    ],
)  # fmt: skip
def test_what_is_final(outcomes: list[str], final: bool) -> None:
    assert is_final(outcomes) == final


@pytest.mark.parametrize(
    ("outcomes", "retries", "again"),
    [
        (["try_again"], 0, False), (["try_again"], 1, True), (["try_again"] * 3, 2, False), (["bug"], 1, True),
        (["bug"], 0, False),
        (["try_again", "bug"], 3, True), (["bug", "bug"], 3, False), (["wrong_input"], 3, False), (["cancelled"], 3, False),
    ],
)  # fmt: skip
def test_who_gets_another_try(outcomes: list[str], retries: int, again: bool) -> None:
    """Preemptions do not use up the one try that a bug gets."""
    assert may_retry(outcomes, retries) == again


def test_outcomes_and_exit_codes_say_the_same() -> None:
    codes = {"done": 0, "cached": 0, "wrong_input": 78, "try_again": 75, "cancelled": 143, "bug": 1}
    assert {outcome: exit_code_of(outcome) for outcome in codes} == codes
    assert all(exit_code_of(outcome) == code for code, outcome in EXIT_OUTCOMES.items())
