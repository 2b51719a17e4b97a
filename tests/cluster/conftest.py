"""Worlds for scenarios: the model server and its controllers, or with ``--api URL`` any API server.

    kubectl proxy --port 8001 &                       # plain HTTP, no account: any cluster that may be filled with test nodes
    WFM_TEST_PACE=0.05 pytest tests/cluster/scenarios/test_machines.py --api http://127.0.0.1:8001

or ``python -m tests.cluster.serve --port 8001 --state /tmp/journal.jsonl`` in place of the first: the model, in real time.

Scenarios act through the API alone, and through a writer of pod status (`kubelet.py`) for nodes of their own. What makes the
server ill (`world.front`: lost answers, 410, 429, no CRD, what happens around a request) is done in the model itself, or in a
proxy in front of that server, through which launchers go. `WFM_TEST_PACE`: how much of the time that a scenario speaks of it
takes there; a launcher's own constants have no other pace, so it is a minute or so for each. One run at a time: the quota is
one. What depends on how the controllers are set up is marked (`set_up`), and runs where ``--api-set-up`` says the same words.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.invariants import Invariants
from tests.cluster.world import Asked, World

MakeWorld = Callable[..., World]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--api", default="", help="URL of an API server for tests/cluster/scenarios; default: the model")
    parser.addoption(
        "--api-set-up", default="", help="how the controllers of that server are set up, in the words of the marks set_up: "
        "then the scenarios for such a cluster run, else those for an ordinary one",
    )  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On another server, whose controllers nobody here sets up: the scenarios for how they are."""
    if not config.getoption("--api", default=""):
        return
    words = sorted(str(config.getoption("--api-set-up")).split())
    fit = [item for item in items if sorted(str(w) for m in item.iter_markers("set_up") for w in m.args) == words]
    config.hook.pytest_deselected(items=[item for item in items if item not in fit])
    items[:] = fit


@pytest.fixture
def make_world(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeWorld]:
    """``make_world(machines=2, ...)``; the last one's timeline is shown when the test fails."""
    monkeypatch.setenv("WFM_HOME", str(tmp_path / "home"))
    made: list[World] = []

    def make(**choices: Any) -> World:
        url = str(request.config.getoption("--api", default=""))
        made.append(World(tmp_path / f"world{len(made)}", url=url, **choices))
        return made[-1]

    yield make
    for world in made:
        print(world.timeline())
        world.close()


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world()


def follow(world: World, *asked: Asked, limit: float = 7200.0, lost: int = 0, hangs: int = 0) -> dict[str, Any]:
    """A launcher for each, to its end, with all invariants looked at; key -> End."""
    look = Invariants(world, list(asked))
    look.hangs = hangs
    launching = [world.launcher(one) for one in asked]
    world.until(lambda: all(one.key in each.ended for one, each in zip(asked, launching, strict=True)), limit)
    finish(world, look, {one: each.ended[one.key] for one, each in zip(asked, launching, strict=True)}, lost=lost)
    return {one.key: each.ended[one.key] for one, each in zip(asked, launching, strict=True)}


def finish(world: World, look: Invariants, ends: dict[Asked, Any], *, lost: int = 0) -> None:
    """Let things settle, then look at the invariants once more."""
    for launching in list(world.launchers):
        world.launchers.remove(launching)
    world.pass_time(60.0)
    look.finish({(one.run.id, one.request.node): end for one, end in ends.items()}, lost=lost)
    look.check()
