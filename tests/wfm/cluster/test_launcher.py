"""The launcher's own loop. What it decides is `test_decide.py`, what it does `tests/cluster/scenarios`."""

import threading
import time
from pathlib import Path

import pytest

from tests.wfm.cluster.requests import settings
from wfm import stopping
from wfm.artifacts import Store
from wfm.cluster.api import Api
from wfm.cluster.launcher import Launcher, RealClock


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launcher:
    monkeypatch.setattr(stopping, "asked", threading.Event())
    monkeypatch.setattr(stopping, "_told", [])
    api = Api.connect(namespace="wfm", url="http://127.0.0.1:9")
    return Launcher(api, Store.open(tmp_path / "store", {"fsync": False}), settings(), RealClock())


def test_a_signal_ends_a_rest_at_once(launcher: Launcher) -> None:
    threading.Timer(0.2, stopping.ask).start()
    began = time.monotonic()
    launcher._rest(30.0)
    assert time.monotonic() - began < 10.0


def test_after_a_signal_it_rests_all_the_same(launcher: Launcher) -> None:
    """A launcher that is told to stop and whose run is cancelled waits for its pods to go: not by asking without a pause."""
    launcher._rest(0.01)
    stopping.ask()
    launcher._rest(0.01)  # what woke it
    began = time.monotonic()
    for _ in range(4):
        launcher._rest(0.1)
    assert time.monotonic() - began > 0.3
