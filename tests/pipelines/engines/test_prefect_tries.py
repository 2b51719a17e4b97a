"""What Prefect's UI shows of the tries at a run's nodes, asked of a real Prefect server by its API: what `wfm status` shows."""

import json
import logging
import os
from typing import Any

import pytest
from wfm_fakes.workshop import Workshop

from pipelines.engines.prefect_package import import_prefect
from pipelines.engines.prefect_tries import show_tries
from pipelines.runs.seen import Try, cost_in_words, read_tries
from tests.pipelines.engines.test_schedule import ask, login
from wfm.errors import TryAgain


def artifacts(run_id: str) -> list[dict[str, Any]]:
    """Those of a flow run, oldest first, as the UI gets them."""
    wanted = {"flow_runs": {"name": {"any_": [run_id]}}, "sort": "CREATED_DESC"}
    status, found = ask(f"{os.environ['PREFECT_API_URL']}/artifacts/filter", wanted, login())
    assert status == 200, found
    return list(reversed(found))


def told(tries: list[Try]) -> list[tuple[Any, ...]]:
    return [
        (one.node, one.number, one.state, one.reason, round(one.cpu_seconds, 1), round(one.gpu_seconds, 1),
         round(one.peak_bytes / 2**20), one.host)
        for one in tries
    ]  # fmt: skip


def rows(artifact: dict[str, Any]) -> list[tuple[Any, ...]]:
    names = ("node", "try", "outcome", "reason", "cpu seconds", "gpu seconds", "peak MiB", "host")
    return [tuple(row[name] for name in names) for row in json.loads(artifact["data"])]


@pytest.mark.timeout(300)
def test_prefects_ui_shows_each_try_with_outcome_reason_and_cost(workshop: Workshop) -> None:
    workshop.engine = "prefect"
    nodes: dict[str, Any] = {
        "split_it": ([], {"fail": ["try_again", "kill"]}),
        "wrong": ([], {"fail": ["wrong_input"]}),
    }
    summary, run = workshop.run(workshop.plan(nodes))
    assert summary.exit_code == 78
    shown = artifacts(run.id)
    of_node = [one for one in shown if one["key"] == "fake-split-it"]
    assert [len(rows(one)) for one in of_node] == [1, 2, 3], "after each try"
    tries = read_tries(run, "split_it")
    assert [one.state for one in tries] == ["try_again", "try_again", "done"]
    assert rows(of_node[-1]) == told(tries)
    assert "SIGKILL" in rows(of_node[-1])[1][3]
    assert rows(of_node[-1])[2][4] > 0, "cpu seconds"
    assert rows(of_node[-1])[2][6] > 0, "MiB"
    assert of_node[-1]["task_run_id"], "on the page of the task too"
    (whole,) = [one for one in shown if one["key"] == "fake"]
    assert rows(whole) == told(read_tries(run))
    assert whole["description"] == cost_in_words(read_tries(run))
    assert "4 tries: cpu" in whole["description"]
    assert "in 3 that made nothing" in whole["description"]


def test_without_the_picture_a_run_goes_on_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    def read() -> list[Try]:
        raise TryAgain("the store is down")

    with caplog.at_level(logging.WARNING, "pipelines.engines.prefect_tries"):
        show_tries(read, "fake", "a")
    assert "Prefect does not show the tries at fake a: TryAgain: the store is down" in caplog.text


@pytest.mark.filterwarnings("ignore:Artifact creation outside")
def test_a_prefect_that_does_not_answer_costs_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    import_prefect()
    from prefect.settings import PREFECT_API_URL, temporary_settings

    nobody = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"})
    with nobody, caplog.at_level(logging.WARNING, "pipelines.engines.prefect_tries"):
        show_tries(list, "fake", "a")
    assert "Prefect does not show the tries at fake a: ConnectError" in caplog.text
