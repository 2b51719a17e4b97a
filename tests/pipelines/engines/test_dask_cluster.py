"""Dask workers of a run: one cluster an image, as many workers as pay, gone with the last stage that needs them."""

import socket
import threading

import pytest

from pipelines.engines import budget
from pipelines.engines.budget import workers
from pipelines.engines.dask_cluster import Clusters


def reachable(address: str) -> bool:
    host, port = address.removeprefix("tls://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def test_workers_that_load_torch_are_started_where_they_pay() -> None:
    assert workers(2, 8, "curation") == 2
    assert workers(2, 0.1, "curation") == 1
    assert workers(2, 64, "training") == 0, "two branches fill two processors"
    assert workers(16, 64, "training") == 16
    assert workers(16, 8, "training") == 4, "each needs room for a model"
    assert workers(16, 4, "training") == 0


def test_each_image_has_workers_of_its_own_that_go_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SIDE_BY_SIDE", 0)
    clusters, stop = Clusters(1, 4), threading.Event()
    try:
        with (
            clusters.user("container", "training", stop) as none,
            clusters.user("torchjob", "training", stop) as neither,
        ):
            assert (none, neither) == ("", "")
        with clusters.user("daskjob", "curation", stop) as one, clusters.user("daskjob", "training", stop) as two:
            assert one != two
            assert clusters.environment(one) != clusters.environment(two), "each with its own keys"
        with clusters.user("daskjob", "training", stop) as again:
            assert again == two
        clusters.close("curation")
        assert (reachable(one), reachable(two)) == (False, True)
        assert clusters.environment(one) == {}
        assert clusters.environment(two)
    finally:
        clusters.close()
    assert not reachable(two)


def test_a_small_machine_starts_none() -> None:
    clusters = Clusters(2, 8)
    with clusters.user("daskjob", "training", threading.Event()) as address:
        assert address == ""
    assert clusters.environment("") == {}
