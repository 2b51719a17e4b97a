"""Metrics say what the run's state and the manifests say, in a file that is always whole and on a port."""

import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from wfm_fakes.workshop import Workshop

from pipelines.runs.display import note_progress
from pipelines.runs.metrics import VARIABLE, metrics
from pipelines.runs.state import NodeState, RunState
from wfm.artifacts import Store
from wfm.errors import InputError

Samples = dict[tuple[str, str, str], float]


def read(text: str) -> Samples:
    """(metric, node, state or reason or count) -> value."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels["pipeline"] == "curate"
            last = labels.get("state") or labels.get("reason") or labels.get("what") or labels.get("of") or ""
            found[sample.name, labels["node"], last] = sample.value
    return found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def state(store: Store) -> RunState:
    """One node that is through, one at work."""
    made = store.attempt("a" * 64).commit(
        stage="ingest_videos", kind="videos", counts={"inputs": 7, "outputs": 5}, skipped={"truncated": 2}
    )
    nodes = {
        "ingest_videos": NodeState(stage="ingest_videos", state="done", key=made.key, started=100.0, ended=103.5),
        "split_clips": NodeState(stage="split_clips", state="running", started=100.0, attempts=2, peak_bytes=1 << 20),
    }
    note_progress(
        nodes["split_clips"],
        "12:00:00 INFO wfm.progress: split_clips: 12/48 parts, 3.25/s, 11 s left, 6.5 clips/s, 1.2 MB/s",
    )
    return RunState(run_id="r1", pipeline="curate", nodes=nodes)


def test_a_file_holds_states_rates_counts_and_reasons(state: RunState, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "wfm.prom"
    with metrics(state, store, str(path)):
        pass
    found = read(path.read_text())
    assert found["wfm_node_state", "ingest_videos", "done"] == 1
    assert found["wfm_node_state", "split_clips", "done"] == 0
    assert found["wfm_node_seconds", "ingest_videos", ""] == 3.5
    assert found["wfm_node_items", "ingest_videos", "outputs"] == 5
    assert found["wfm_node_skipped", "ingest_videos", "truncated"] == 2
    assert found["wfm_node_progress_done", "split_clips", ""] == 12
    assert found["wfm_node_progress_total", "split_clips", ""] == 48
    assert found["wfm_node_progress_rate", "split_clips", ""] == 3.25
    assert found["wfm_node_rate", "split_clips", "clips"] == 6.5
    assert found["wfm_node_rate", "split_clips", "bytes"] == 1.2e6
    assert found["wfm_node_attempts", "split_clips", ""] == 2
    assert ("wfm_node_items", "split_clips", "outputs") not in found


def test_a_port_answers_with_the_state_of_now(state: RunState, store: Store) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/metrics"
    with metrics(state, store, str(port)):
        state.nodes["split_clips"].state = "failed"
        found = read(urllib.request.urlopen(url, timeout=5).read().decode())
        assert found["wfm_node_state", "split_clips", "failed"] == 1
        with pytest.raises(InputError, match="cannot listen"), metrics(state, store, str(port)):
            pass
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=5)


@pytest.mark.parametrize("where", ["wfm.txt", "http://x:1/", "/not/there/wfm.prom", "99999"])
def test_a_wrong_place_is_refused_at_once(where: str, state: RunState) -> None:
    with pytest.raises(InputError, match="WFM_METRICS"), metrics(state, None, where):
        pass


def test_a_real_run_leaves_its_last_state(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.prom"
    monkeypatch.setenv(VARIABLE, str(path))
    summary, _ = workshop.run(workshop.plan({"one": ([], {}), "two": (["one"], {})}))
    assert summary.exit_code == 0
    assert path.read_text().count('state="done"} 1.0') == 2
