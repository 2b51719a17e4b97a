"""A node's name is given exactly once, whoever dies on the way, and readers see only whole promotions, one after the other."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.entrypoint import announce
from components.promotion import promote, promoted
from tests.wfm.evaluation.published import around, publish
from wfm.artifacts import Store
from wfm.artifacts.names import Names, Promotion
from wfm.errors import DataError

ROOT = Path(__file__).parents[2]
GATE = {"not_worse": [{"slack": 0.5}]}
END = (
    "import json, sys; from components.entrypoint import announce; from wfm.artifacts import Store; "
    "spec = json.loads(sys.argv[1]); announce(spec, '', sys.argv[2], Store.open(spec['store'], {'fsync': False}))"
)
"""What a stage does when its artifact is there."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


def die_at_the_end(store: Store, key: str, spec: dict[str, Any], point: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WFM_CRASH_AT": point}
    command = [sys.executable, "-c", END, json.dumps(spec), key]
    assert subprocess.run(command, env=environment, timeout=120, check=False).returncode == -9


@pytest.mark.parametrize("point", ["before_promotion", "name_promoted"])
def test_a_run_that_died_between_evaluation_and_promotion_promotes_once(store: Store, point: str) -> None:
    """The stage is killed, tried again, and looked at by a planner of another run: a better model, and a worse one."""
    old, better, worse = (publish(store, around(mean)) for mean in (23.0, 24.0, 22.0))
    promote(store, "model/d", old, GATE, "before")
    spec = {"store": store.url, "run_id": "first", "promote": "model/d", "gate": GATE}
    for key in (better, worse):
        die_at_the_end(store, key, spec, point)
        announce(spec, "", key, store)
        promote(store, "model/d", key, GATE, "second")
    assert [one.key for one in store.names.history("model", "d")] == [better, old]
    (candidate,) = store.names.history("model", "d", "candidate")
    assert (candidate.key, candidate.by) == (worse, "run first")
    assert promoted(store, "model/d", better) == f"model/d@latest  {better[:12]}"
    assert f"{worse[:12]} did not become model/d@latest" in promoted(store, "model/d", worse)


def test_without_a_gate_the_last_one_counts_and_without_a_name_nothing_is_written(store: Store) -> None:
    old, worse = (publish(store, around(mean)) for mean in (23.0, 22.0))
    for key in (old, worse):
        promote(store, "model/d", key, {}, "r")
    promote(store, "", old, GATE, "r")
    assert [(one.key, one.by, one.gate) for one in store.names.history("model", "d")] == [
        (worse, "run r", None),
        (old, "run r", None),
    ]
    assert promoted(store, "model/d", old) == f"model/d@latest is {worse[:12]} by now, not {old[:12]}"


def test_records_of_an_older_wfm_are_read_and_wrong_ones_refused(store: Store, tmp_path: Path) -> None:
    key = publish(store, around(23.0))
    promote(store, "model/d", key, GATE, "r")
    path = tmp_path / "store/refs/model/d/latest/00000001.json"
    record = json.loads(path.read_text())
    assert record["gate"] == {"passed": True, "against": "", "words": ["nobody bears the name yet"]}
    older = {name: value for name, value in record.items() if name not in ("gate", "by")}
    path.write_text(json.dumps(older))
    found = store.names.latest("model", "d")
    assert found is not None
    assert (found.by, found.gate) == ("", None)
    for wrong in ({"passed": "perhaps"}, {"passed": True, "against": "../x"}, {"passed": True, "words": 3}, 7):
        path.write_text(json.dumps({**record, "gate": wrong}))
        with pytest.raises(DataError, match="field 'gate"):
            store.names.latest("model", "d")


@pytest.fixture(params=["disk", "s3"])
def shared(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    if request.param == "disk":
        yield Store.open(tmp_path / "shared")
        return
    import boto3
    from moto.server import ThreadedMotoServer

    for name, value in (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("WFM_CACHE", str(tmp_path))):
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="names")
    yield Store.open("s3://names/store", {"endpoint_url": endpoint})
    server.stop()


class Torn(Names):
    """What must not be: the record appears under its name before it is whole."""

    def _take(self, promotion: Promotion) -> Promotion | None:
        path = self._objects.local_path(f"{self._folder(promotion.kind, promotion.name, promotion.alias)}")
        assert path is not None
        path.mkdir(parents=True, exist_ok=True)
        file = path / f"{promotion.number:08d}.json"
        file.write_text("{")
        threading.Event().wait(0.02)
        file.unlink()
        return super()._take(promotion)


def read_while_written(store: Store, names: Names, promotions: int) -> tuple[list[str], int]:
    """What went wrong, of a hundred readers while two writers promote; and how often they looked."""
    wrong: list[str] = []
    looks: list[int] = []
    over, begin = threading.Event(), threading.Barrier(102)

    def reader() -> None:
        last, mine = 0, 0
        begin.wait()
        while True:
            done = over.is_set()  # one look more, after the end
            try:
                found = store.names.latest("d", "n")
            except DataError as error:
                wrong.append(str(error))
                break
            number = found.number if found else 0
            if number < last:
                wrong.append(f"{number} after {last}")
            last, mine = number, mine + 1
            if done:
                break
            over.wait(0.1)
        looks.append(mine)
        if not wrong and last != 2 * promotions:
            wrong.append(f"at the end {last} of {2 * promotions}")

    def writer(of: int) -> None:
        begin.wait()
        for number in range(promotions):
            names.promote("d", "n", "latest", f"{of}{number:063x}")

    readers = [threading.Thread(target=reader) for _ in range(100)]
    writers = [threading.Thread(target=writer, args=(of,)) for of in (1, 2)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    for thread in readers:
        thread.join()
    return wrong, sum(looks)


def test_a_hundred_readers_see_whole_promotions_in_order(shared: Store) -> None:
    promotions = 8 if shared.objects.local_path("refs") else 2
    wrong, looks = read_while_written(shared, shared.names, promotions)
    assert wrong == []
    assert looks >= 200, "each looked before the end and after it"
    assert [one.number for one in shared.names.history("d", "n")] == list(range(2 * promotions, 0, -1))


def test_a_torn_record_would_be_seen(store: Store) -> None:
    wrong, _ = read_while_written(store, Torn(store.objects), 3)
    assert any("not valid JSON" in words for words in wrong)
