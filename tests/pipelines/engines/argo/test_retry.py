"""Which ends are tried again: a table of what can happen to a pod, decided by the expression that is compiled."""

from dataclasses import dataclass

import pytest

from pipelines.engines.argo.retry import strategy
from tests.pipelines.engines.argo.interpreter import End, again

LIMIT = 8


@dataclass(frozen=True)
class Verdict:
    """What happened; how Argo tells it (workflow/controller/operator.go, 4.1.2); how many times more it is tried."""

    what: str
    status: str
    code: int
    message: str
    tries: int


ALL, ONCE, NEVER = LIMIT, 1, 0
VERDICTS = (
    Verdict("evicted", "Failed", -1, "The node was low on resource: ephemeral-storage.", ALL),
    Verdict("evicted after main ended", "Failed", 0, "Pod was evicted", ALL),
    Verdict("pod deleted", "Error", -1, "pod deleted", ALL),
    Verdict("its node was drained while it ran", "Failed", 143, "main: Error (exit code 143)", ALL),
    Verdict("out of memory", "Failed", 137, "main: OOMKilled (exit code 137)", ONCE),
    Verdict("out of memory, and gone", "Error", 137, "OOMKilled (exit code 137)", ONCE),
    Verdict("preempted while pending", "Error", -1, "pod deleted during pending", ALL),
    Verdict("no room in time", "Failed", -1, "timeout", ALL),
    Verdict(
        "its image is not there", "Error", -1, "Pod failed before main container starts due to ImagePullBackOff: x", ALL
    ),
    Verdict("its init container failed", "Error", -1, "init: Error (exit code 2)", ALL),
    Verdict("its outputs could not be told", "Error", 0, "wait: Error (exit code 1): cannot patch", ALL),
    Verdict("wrong input", "Failed", 78, "main: Error (exit code 78)", NEVER),
    Verdict("wrong input, then deleted", "Error", 78, "pod deleted", NEVER),
    Verdict("a passing trouble", "Failed", 75, "main: Error (exit code 75)", ALL),
    Verdict("SIGTERM", "Failed", 143, "main: Error (exit code 143)", ALL),
    Verdict("SIGKILL", "Failed", 137, "main: Error (exit code 137)", ALL),
    Verdict("a crash in a library", "Failed", 139, "main: Error (exit code 139)", ALL),
    Verdict("nobody saw the code", "Failed", -1, "can't find failed message for pod a namespace wfm", ALL),
    Verdict("argoexec failed", "Failed", 64, "main: Error (exit code 64)", ALL),
    Verdict("argoexec failed before main", "Error", 65, "supervisor: Error (exit code 65)", ALL),
    Verdict(
        "longer than its deadline", "Failed", -1, "Pod was active on the node longer than the specified deadline", ALL
    ),
    Verdict("a bug", "Failed", 1, "main: Error (exit code 1)", ONCE),
    Verdict("a wrong option", "Failed", 2, "main: Error (exit code 2)", NEVER),
    Verdict("no such command", "Failed", 127, "main: ContainerCannotRun (exit code 127)", NEVER),
)


def tried(verdict: Verdict, *, expression: str = "") -> int:
    """How many times more a pod is made that ends so each time."""
    told = strategy(LIMIT)
    told["expression"] = expression or told["expression"]
    return next(n for n in range(LIMIT + 1) if not again(told, n, End(verdict.status, verdict.code, verdict.message)))


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: verdict.what)
def test_the_expression_decides_as_the_table_says(verdict: Verdict) -> None:
    assert tried(verdict) == verdict.tries


@pytest.mark.parametrize(
    ("wrong", "missed"),
    [
        ("lastRetry.status == 'Error'", "evicted"),
        ("lastRetry.exitCode != '78'", "a bug"),
        ("lastRetry.status == 'Error' or lastRetry.exitCode in ['75', '137', '143', '-1']", "out of memory"),
        ("lastRetry.exitCode in ['75', '137', '143', '-1']", "argoexec failed"),
        ("lastRetry.status == 'Failed' and asInt(lastRetry.exitCode) > 74", "pod deleted"),
    ],
)
def test_the_table_finds_expressions_that_are_wrong(wrong: str, missed: str) -> None:
    found = {verdict.what for verdict in VERDICTS if tried(verdict, expression=wrong) != verdict.tries}
    assert missed in found


def test_tries_are_bounded_and_keep_a_distance() -> None:
    told = strategy(LIMIT)
    assert told["limit"] == str(LIMIT)
    assert told["backoff"] == {"duration": "30s", "factor": "2", "cap": "10m"}
    assert "retryPolicy" not in told, "beside an expression both must hold"
