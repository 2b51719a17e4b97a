"""Seeded mutations of every kind of record in a store: what is read ends in our error types, and nothing outside is touched."""

import copy
import hashlib
import json
import logging
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.runs.state import RunState, read_state
from tests.contracts.test_store import KEY, OTHER, THIRD, commit
from wfm.artifacts import Store
from wfm.artifacts.invalidation import tombstones
from wfm.artifacts.lease import held
from wfm.artifacts.listing import FileEntry, build
from wfm.artifacts.purge import PurgeRecord, purges
from wfm.errors import WfmError

MUTATIONS = 10_000
HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 10**30, 1.5, 1e308, "", "..", "../../home", "/etc/passwd", "a\\b", "\0", "\x1b[2J", "\ud800",
    "x" * 5000,
    KEY, OTHER, [], {}, [[]], {"a": {"b": []}}, [1] * 100, "2026-99-99T00:00:00Z", "20260101T000000000-00000000",
)  # fmt: skip


def places(node: Any, found: list[tuple[Any, Any]] | None = None) -> list[tuple[Any, Any]]:
    """(container, index or name) of everything in a document."""
    found = [] if found is None else found
    for name in list(node) if isinstance(node, dict) else range(len(node)):
        found.append((node, name))
        if isinstance(node[name], dict | list):
            places(node[name], found)
    return found


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Another value in a field, a field less or twice, bytes flipped, cut, doubled, or something else altogether."""
    kind = rng.randrange(8)
    if kind < 5:
        document = json.loads(data)
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            spots = places(document)
            if not spots:
                break
            container, name = rng.choice(spots)
            if rng.random() < 0.2:
                del container[name]
            else:
                container[name] = copy.deepcopy(rng.choice(HOSTILE))
        return json.dumps(document).encode()
    at = rng.randrange(len(data))
    if kind == 5:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if kind == 6:
        return data[:at]
    return rng.choice((data + data, data[at:] + data[:at], b"[" * rng.choice((50, 500, 50_000)), data[:at] + data))


@pytest.mark.long
def test_ten_thousand_mutations(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    root, victim = tmp_path / "store", tmp_path / "home"
    victim.mkdir()
    (victim / "x").write_text("mine")
    store = Store.open(root, {"fsync": False})
    part = commit(store, THIRD, {"p": b"part"}, part=True, counts={"clips": 1})
    commit(store, OTHER, {"a": b"input"}, kind="dataset")
    made = commit(
        store, KEY, {f"f{n}": b"1" for n in range(9)}, kind="dataset", inputs={"raw": OTHER}, parts=[part.entry("p")],
        timings={"all": 1.0}, counts={"x": 1}, config={"a": [1]}, extra={"run": "x"},
    )  # fmt: skip
    nodes: dict[str, bytes] = {}
    listing = build(
        [FileEntry(e.path, e.size, e.sha256) for e in made.files() if e.path[0] == "f"], "files", nodes.__setitem__, 3
    )
    for path, data in nodes.items():
        store.objects.replace(f"artifacts/{KEY}/attempts/{made.manifest.attempt}/{path}", data)
    manifest = f"artifacts/{KEY}/manifest.json"
    document = {**json.loads(store.objects.read(manifest)), "files": listing.model_dump()}
    store.objects.replace(manifest, json.dumps(document).encode())
    store.promote("dataset", "d", KEY)
    store.invalidate(OTHER, "bad")
    run = store.runs.create({"nodes": [{"name": "n", "key": KEY}]})
    run.append_attempt("n", {"key": KEY})
    run.write_outcome("n", 1, {"outcome": "done"})
    run.write("state.json", RunState(run_id=run.id, pipeline="p").model_dump_json())
    lease = store.lease(THIRD, inputs=(OTHER,))
    lease._take(1)
    lease._stop.set()
    record = PurgeRecord("9" * 64, "asked", "", [], [KEY], [])
    store.objects.replace(f"purged/{'9' * 64}.json", json.dumps({"schema_version": 1, **vars(record)}).encode())
    node = f"artifacts/{KEY}/attempts/{made.manifest.attempt}/.listing/files-0-000000.json"
    records = [
        manifest, manifest, manifest, node, f"parts/{THIRD}/manifest.json", "refs/dataset/d/latest/00000001.json",
        f"artifacts/{OTHER}/tombstone-1.json", f"leases/{THIRD}/00000001.json", f"purged/{'9' * 64}.json",
        f"runs/{run.id}/spec.json", f"runs/{run.id}/state.json", f"runs/{run.id}/nodes/n/attempts/0001/outcome.json",
    ]  # fmt: skip
    honest = {path: store.objects.read(path) for path in {*records, manifest}}
    before = sorted(path.relative_to(root) for path in root.rglob("*"))

    def reads(fresh: Store) -> list[Callable[[], Any]]:
        return [
            lambda: list(fresh.artifact(KEY).files()),
            lambda: fresh.artifact(KEY).part("p").fetch("p"),
            lambda: fresh.pull(KEY, tmp_path / "out", "all"),
            lambda: fresh.verify(KEY),
            lambda: fresh.lineage(KEY),
            lambda: list(fresh.names.list()),
            lambda: list(tombstones(fresh.objects, "artifacts", OTHER)),
            lambda: held(fresh.objects, []),
            lambda: list(purges(fresh)),
            lambda: [read_state(each) for each in fresh.runs.list()],
            lambda: fresh.gc(dry_run=True, min_age_seconds=0),
        ]

    rng = random.Random(7)
    refused = 0
    for _ in range(MUTATIONS):
        path = rng.choice(records)
        data = mutated(honest[path], rng)
        store.objects.replace(path, data)
        if path == node:  # whoever writes a list writes its hash
            about = json.loads(honest[manifest])
            about["files"]["children"][0] |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            store.objects.replace(manifest, json.dumps(about).encode())
        for read in rng.sample(reads(Store.open(root, {"fsync": False})), 6):
            try:
                read()
            except WfmError as error:
                refused += type(error) is not WfmError
        for each in {path, manifest}:
            store.objects.replace(each, honest[each])
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert refused > MUTATIONS / 2
    assert sorted(path.relative_to(root) for path in root.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir() if path.name != "out"] in (["store", "home"], ["home", "store"])
    assert (victim / "x").read_text() == "mine"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2**20  # KiB: 1 GiB
