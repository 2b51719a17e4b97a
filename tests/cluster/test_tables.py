"""The controllers' tables: every row is fired by a story, and leads where it says."""

import random
from pathlib import Path

import pytest

from tests.cluster.controllers import ALL
from tests.cluster.controllers.indexed_job import as_text, indexes
from tests.cluster.controllers.table import Controllers, Row, Table, WrongTable
from tests.cluster.kubelet import ROWS
from tests.cluster.server.api import Api
from tests.cluster.server.storage import Key, Storage
from tests.cluster.stories import STORIES
from tests.cluster.world import World

NAMES = [table.key(row) for table in ALL for row in table.rows] + [
    f"kubelet: {row.state} --{row.event}--> {row.next}" for row in ROWS
]


@pytest.fixture(scope="module")
def fired() -> dict[str, int]:
    """How often each row was fired by the stories until now."""
    return {}


@pytest.mark.parametrize("number", range(len(STORIES)), ids=[tell.__name__ for tell, _ in STORIES])
def test_story(fired: dict[str, int], number: int, tmp_path: Path) -> None:
    tell, choices = STORIES[number]
    with World(tmp_path, direct=True, **choices) as world:
        try:
            tell(world)
        except Exception:
            print(world.timeline())
            raise
        assert world.model is not None
        for name, count in {**world.model.fired, **world.kubelet.fired}.items():
            fired[name] = fired.get(name, 0) + count


def test_every_row_is_fired(fired: dict[str, int]) -> None:
    """By the stories before (this one alone says so)."""
    assert fired, "run this whole file: the stories fire the rows"
    assert not [name for name in NAMES if name not in fired]


def test_every_row_names_its_source() -> None:
    for table in ALL:
        for row in table.rows:
            repository, path, *_ = row.source.split(" ")
            assert repository.split("@")[0].count("/") == 1, row
            assert path.endswith((".go", ".py")), row


def test_a_row_that_leads_elsewhere_is_found(tmp_path: Path) -> None:
    storage = Storage()
    storage.put(Key("namespaces", "", "default"), {"metadata": {"name": "default", "uid": "u"}})
    api = Api(storage, lambda: 0.0, random.Random(0))
    row = Row("new", "always", "old", "kubernetes/kubernetes x.go f", lambda see: True,
              lambda see: see.change(lambda found: found["metadata"].update(labels={"a": "b"}), status=False))  # fmt: skip
    table = Table("wrong", ("pods",), lambda see: "new", (row,))
    api.create("pods", "default", {"metadata": {"name": "p"}, "spec": {}})
    with pytest.raises(WrongTable, match="always"):
        Controllers(api, (table,)).settle()


def test_indexes_are_written_as_kubernetes_does() -> None:
    assert as_text({0, 2, 3, 4, 6, 7}) == "0,2-4,6,7"
    assert indexes("0,2-4,6,7") == {0, 2, 3, 4, 6, 7}
