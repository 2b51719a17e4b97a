"""What lies in a store is data from outside: a manifest, a list or any other record is checked where it is read, on a disk and
on S3 alike, and leads nobody out of the store.

Every fault was tried on the store as it was before: what it did then stands beside the test.
"""

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.contracts.test_store import KEY, OTHER, THIRD, commit, objects_below
from wfm.artifacts import Store, generations
from wfm.artifacts.listing import build
from wfm.artifacts.purge import carry_out, find_video, purge_of, purges
from wfm.errors import DataError, InputError

VIDEO = "9" * 64
HERE = f"artifacts/{KEY}/manifest.json"
NOW = {"wait_seconds": 0, "min_age_seconds": 0, "keep_runs": 5}


def change(store: Store, path: str, **fields: object) -> None:
    """Write other fields into a record."""
    document = json.loads(store.objects.read(path))
    store.objects.replace(path, json.dumps({**document, **fields}).encode())


def one_file(path: str, data: bytes = b"1") -> dict[str, object]:
    entry = {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return {"count": 1, "bytes": len(data), "entries": [entry], "children": []}


def one_part(**fields: object) -> dict[str, object]:
    entry = {"name": "p", "key": OTHER, "digest": "0" * 64, "counts": {}, "generation": 1, **fields}
    return {"count": 1, "bytes": 0, "entries": [entry], "children": []}


def two_files(first: str, second: str) -> dict[str, object]:
    entries = [{"path": path, "size": 1, "sha256": hashlib.sha256(b"1").hexdigest()} for path in (first, second)]
    return {"count": 2, "bytes": 2, "entries": entries, "children": []}


def one_node(path: str) -> dict[str, object]:
    node = {"path": path, "size": 2, "sha256": "0" * 64, "first": "a", "last": "b", "count": 2, "depth": 0}
    return {"count": 2, "bytes": 2, "entries": [], "children": [node]}


UNSAFE = [
    *("../a", "/etc/a", "a/../../b", "a\\b", "", "a//b", "C:/a"),
    *("a\0b", "a\x1b[2J", "a\x9b2J", "\ud800", "x" * 300, "a/" * 450 + "a"),
]
BAD_FIELDS = [
    *({"attempt": value} for value in ("../../../../home/x", "", "x", "20260101T000000000-0000000G", 7)),
    *({"key": value} for value in ("../../planted", OTHER, KEY.upper())),
    *({"generation": value} for value in (2, 0, 10**40)),
    *({"stage": value} for value in ("../s", "a b")),
    *({"kind": value} for value in ("../k", "\x1b[2J")),
    {"digest": "d"},
    {"inputs": {"raw": "../../x"}},
    *({"files": one_file(path)} for path in UNSAFE),
    *({"files": one_file(path)} for path in ("parts/p/x", ".listing/files-0-000000.json")),
    *({"files": two_files(*paths)} for paths in (("a", "a"), ("a", "a/b"), ("b", "a"))),
    {"files": {**one_file("a"), "count": 5}},
    {"files": {"count": 1, "bytes": 1, "entries": [{"x": 1}], "children": []}},
    {"files": {"count": 1, "bytes": 1, "entries": [{**one_file("a")["entries"][0], "size": -1}], "children": []}},  # type: ignore[index]
    *({"parts": one_part(key=value)} for value in ("../../x", "", OTHER.upper())),
    *({"parts": one_part(**fields)} for fields in ({"name": "../x"}, {"digest": "d"}, {"generation": 0})),
    *({"files": one_node(path)} for path in ("../../x", ".listing/../../x", "a/b", ".listing/parts-0-000000.json")),
    {"counts": {"a": "many"}},
    {"timings": {"a": 1e400}},
]


@pytest.fixture
def victim(tmp_path):
    """A folder beside the store, which none of its records may reach."""
    folder = tmp_path / "home" / "thesis"
    folder.mkdir(parents=True)
    (folder / "chapter").write_text("years of work")
    yield folder
    assert (folder / "chapter").read_text() == "years of work"


def test_a_manifest_is_checked_where_it_is_read(store, place, victim, tmp_path):
    """Before: 47 of the 50 were opened without a word; gc, purge and pull went where they said."""
    commit(store, KEY, {"a": b"1"})
    honest = store.objects.read(HERE)
    for fields in BAD_FIELDS:
        store.objects.replace(HERE, honest)
        change(store, HERE, **fields)
        with pytest.raises(DataError, match=r"manifest\.json.*wfm artifacts invalidate"):
            Store.open(*place).artifact(KEY)


@pytest.mark.parametrize(
    "fields", [{"attempt": "../../home"}, {"parts": one_part(key="../../x")}, {"files": one_file("../x")}]
)
def test_whoever_meets_such_a_manifest_leaves_it_alone(store, place, victim, tmp_path, fields):
    commit(store, KEY, {"a": b"1"})
    change(store, HERE, **fields)
    before = objects_below(store, "artifacts")
    fresh = Store.open(*place)
    for act in (lambda: fresh.pull(KEY, tmp_path / "out", "all"), lambda: fresh.lineage(KEY)):
        with pytest.raises(DataError):
            act()
    assert not fresh.verify(KEY).ok
    assert fresh.gc(**NOW).dead == []
    carry_out(fresh, find_video(fresh, VIDEO), "asked")
    assert objects_below(store, "artifacts") == before, "what cannot be read is not deleted"
    assert not (tmp_path / "out").exists()


def test_a_hostile_attempt_leads_nobody_out(store, place, victim, tmp_path):
    """Before: `pull` gave the victim's file (or put one there), `gc` deleted its folder."""
    data = (victim / "chapter").read_bytes()
    commit(store, KEY, {"a": b"1"})
    away = "../" * (5 if store.url.startswith("s3") else 4) + "home/thesis"
    change(store, HERE, attempt=away, created_at="2020-01-01T00:00:00.000Z", files=one_file("chapter", data))
    if store.url.startswith("s3"):
        whole = f"{store.address.root}/artifacts/{KEY}/attempts/{away}/chapter"
        store.objects._fs.pipe_file(whole, data)
    fresh = Store.open(*place)
    with pytest.raises(DataError):
        fresh.pull(KEY, tmp_path / "out", "all")
    fresh.gc(**NOW)


def test_one_artifacts_manifest_does_not_stand_for_anothers(store, place):
    """Before: `verify` of the second said that it is whole."""
    commit(store, KEY, {"f": b"one"})
    commit(store, OTHER, {"f": b"two"})
    store.objects.replace(f"artifacts/{OTHER}/manifest.json", store.objects.read(HERE))
    fresh = Store.open(*place)
    assert "by its place it must be" in fresh.verify(OTHER).problems[0]
    with pytest.raises(DataError):
        fresh.artifact(OTHER)


def test_a_tombstone_is_written_where_the_key_says(store, place, tmp_path):
    """Before: it was written outside, and the artifact went on counting."""
    commit(store, KEY, {"f": b"one"})
    change(store, HERE, key="../../planted")
    Store.open(*place).invalidate(KEY, "forged")
    assert not Store.open(*place).has(KEY)
    assert not (tmp_path / "planted").exists()
    assert [path for path in objects_below(store, "artifacts") if "tombstone" in path] == [
        f"artifacts/{KEY}/tombstone-1.json"
    ]


class TestLists:
    """Nodes with the right hash and the wrong content: whoever writes the manifest writes the hash."""

    def make(self, store, place, alter, width=2):
        """An artifact of five files whose first node is altered and hashed anew."""
        from wfm.artifacts.listing import FileEntry

        made = commit(store, KEY, {f"f{number}": b"1" for number in range(5)})
        entries = [FileEntry(entry.path, entry.size, entry.sha256) for entry in made.files()]
        nodes: dict[str, bytes] = {}
        listing = build(entries, "files", nodes.__setitem__, width).model_dump()
        node = listing["children"][0]
        nodes[node["path"]] = alter(node, json.loads(nodes[node["path"]]))
        node["sha256"], node["size"] = hashlib.sha256(nodes[node["path"]]).hexdigest(), len(nodes[node["path"]])
        for path, data in nodes.items():
            store.objects.replace(f"artifacts/{KEY}/attempts/{made.manifest.attempt}/{path}", data)
        change(store, HERE, files=listing)
        return Store.open(*place).artifact(KEY)

    def altered(self, **fields):
        def alter(node, document):
            document["entries"][0].update(fields)
            return json.dumps(document).encode()

        return alter

    def test_an_honest_tree_is_read(self, store, place):
        artifact = self.make(store, place, lambda node, document: json.dumps(document).encode())
        assert [entry.path for entry in artifact.files()] == [f"f{number}" for number in range(5)]
        assert artifact.file("f3").size == 1

    @pytest.mark.parametrize(
        "alter",
        [
            pytest.param(("path", "../../../../x"), id="path"),  # before: fetched from there
            pytest.param(("path", "f1"), id="twice"),
            pytest.param(("path", "a0"), id="not what the list above says"),
            pytest.param(("size", -1), id="size"),
            pytest.param(("depth", 0), id="no entry"),
            pytest.param(None, id="deep"),  # before: RecursionError, a "bug of ours"
            pytest.param("[]", id="no document"),  # before: TypeError
            pytest.param('{"entries": []}', id="empty"),
        ],
    )
    def test_others_are_refused(self, store, place, tmp_path, alter):
        def raw(node, document):
            return b"[" * 50_000 if alter is None else alter.encode()

        if isinstance(alter, tuple):
            name, value = alter
            change_it = self.altered(**({name: value} if name != "depth" else {"sha256": "x"}))
        else:
            change_it = raw
        artifact = self.make(store, place, change_it)
        for act in (
            lambda: list(artifact.files()),
            lambda: artifact.fetch("f0"),
            lambda: artifact.fetch_tree("", tmp_path / "o"),
        ):
            with pytest.raises(DataError, match=r"list .*damaged"):
                act()

    def test_a_list_that_repeats_itself_ends(self, store, place):
        """A tree of eight levels, each of which names the one below twice: 2^8 times the same files, or 4096^8."""
        made = commit(store, KEY, {"f": b"1"})
        folder = f"artifacts/{KEY}/attempts/{made.manifest.attempt}"
        entry = one_file("f")["entries"]
        data = json.dumps({"schema_version": 1, "entries": entry}).encode()
        count = 1
        for depth in range(8):
            path = f".listing/files-{depth}-000000.json"
            store.objects.replace(f"{folder}/{path}", data)
            node = {
                "path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "first": "f", "last": "f",
                "count": count, "depth": depth,
            }  # fmt: skip
            data = json.dumps({"schema_version": 1, "entries": [node, node]}).encode()
            count *= 2
        change(store, HERE, files={"count": count, "bytes": 1, "entries": [], "children": [node, node]})
        with pytest.raises(DataError, match="overlap"):
            Store.open(*place).artifact(KEY)


class TestBounds:
    @pytest.mark.parametrize(
        "data",
        [
            b"[" * 100_000,  # before: RecursionError
            b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
            b'{"schema_version": 1, "extra": ' + b"[" * 200 + b"]" * 200 + b"}",
            b'{"schema_version": 1, "key": "\\ud800"}',
            b'{"schema_version": 1, "key": NaN}',
            b'{"schema_version": 1, "key": ' + b"9" * 5000 + b"}",
            b'{"schema_version": true}',
            b"\xff\xfe",
            b"",
        ],
        ids=range(9),
    )
    def test_odd_json_is_damage(self, store, place, data):
        commit(store, KEY, {"a": b"1"})
        store.objects.replace(HERE, data)
        with pytest.raises(DataError, match=r"manifest\.json"):
            Store.open(*place).artifact(KEY)

    def test_a_giant_record_is_not_read(self, store, place, monkeypatch):
        commit(store, KEY, {"a": b"1"})
        store.objects.replace(HERE, b" " * (40 << 20))
        with pytest.raises(DataError, match="33554432 bytes that are read"):
            Store.open(*place).artifact(KEY)

    def test_what_could_not_be_read_back_is_not_written(self, store):
        deep: list[object] = []
        for _ in range(200):
            deep = [deep]
        for extra in ({"x": deep}, {"x": "y" * (33 << 20)}):
            with pytest.raises(InputError, match="read back"):
                commit(store, KEY, {}, extra=extra)
        with pytest.raises(InputError, match=r"inputs\.raw"):
            commit(store, KEY, {}, inputs={"raw": "not a key"})
        assert not store.has(KEY)


class TestOtherRecords:
    def test_a_name_whose_record_is_forged(self, store):
        """Before: KeyError, or '../../etc' was handed on as a key."""
        for key in (KEY, OTHER):
            commit(store, key, {"a": b"1"}, kind="dataset")
            store.promote("dataset", "d" if key == KEY else "e", key)
        path = "refs/dataset/d/latest/00000002.json"
        honest = json.loads(store.objects.read("refs/dataset/d/latest/00000001.json"))
        for bad in (
            {"schema_version": 1},
            {**honest, "key": "../../etc"},
            {**honest, "name": "e"},
            {**honest, "number": 1},
        ):
            store.objects.replace(path, json.dumps(bad).encode())
            with pytest.raises(DataError, match=r"00000002.json is damaged.*wfm artifacts promote"):
                store.resolve("dataset/d")
            assert [each.reference for each in store.names.list()] == ["dataset/e@latest"]
        assert store.promote("dataset", "d", KEY) == 3  # the way out
        assert store.resolve("dataset/d") == KEY

    def test_strays_among_folders_are_passed_over(self, store):
        """Before: InputError at the first; a name that is no name; ValueError."""
        commit(store, KEY, {"a": b"1"}, kind="dataset")
        for path in (
            "artifacts/lost+found/x", "artifacts/notes.txt", f"artifacts/{KEY}/attempts/notes/x", "parts/zz/x",
            "refs/dataset/a b@c/latest/00000001.json", "refs/x", "runs/zz bad name/x", "runs/notes/spec.json",
            "leases/notes.txt", "leases/zz/00000001.json", f"leases/{OTHER}/notes.json", "purged/notes.txt", "poison/x",
        ):  # fmt: skip
            store.objects.replace(path, b"{")
        assert list(store.committed_keys()) == [KEY]
        assert list(store.names.list()) == []
        assert store.runs.list() == []
        assert list(purges(store)) == []
        report = store.gc(**{**NOW, "dry_run": True})
        assert ([dead.key for dead in report.dead], report.attempts, report.unread) == ([KEY], [], [])
        carry_out(store, find_video(store, VIDEO), "asked")

    def test_numbers_that_are_none_of_ours(self, store):
        commit(store, KEY, {"a": b"1"})
        folder = f"artifacts/{KEY}"
        for name in (
            "manifest-1.json",
            "manifest-0.json",
            "tombstone.json",
            f"tombstone-{'9' * 40}.json",
            "manifest-2.json/x",
        ):
            store.objects.replace(f"{folder}/{name}", b"{")
        state = generations.read_state(store.objects, folder)
        assert (state.manifests, state.tombstones) == ({1}, set())  # before: {1, 0...}, and the next was 10^40

    def test_inputs_in_a_circle_end(self, store, place):
        """Before: an endless loop."""
        commit(store, KEY, {"a": b"1"}, inputs={"x": OTHER})
        commit(store, OTHER, {"a": b"1"}, inputs={"x": KEY})
        with pytest.raises(DataError, match="circle"):
            Store.open(*place).lineage(KEY)
        assert {dead.key for dead in store.gc(**{**NOW, "dry_run": True}).dead} == {KEY, OTHER}

    def test_a_purge_record_that_is_damaged_keeps_its_video_out(self, store):
        store.objects.replace(f"purged/{VIDEO}.json", b'{"schema_version": 1}')  # before: KeyError
        for act in (lambda: purge_of(store, VIDEO), lambda: list(purges(store))):
            with pytest.raises(DataError, match="delete this file and purge"):
                act()

    def test_a_time_that_is_none_counts_as_young(self, store, place):
        commit(store, KEY, {"a": b"1"})
        change(store, HERE, created_at="2026-99-99T99:99:99.000Z")  # before: ValueError
        assert Store.open(*place).gc(**{**NOW, "min_age_seconds": 60}).dead == []


class TestLinks:
    """Whoever may write into a local store may plant links; none leads out of it, whoever follows it."""

    @pytest.fixture
    def local(self, tmp_path):
        return Store.open(tmp_path / "store")

    def plant(self, at: Path, victim: Path) -> None:
        if at.is_dir():
            at.rename(at.with_name(at.name + ".was"))
        at.parent.mkdir(parents=True, exist_ok=True)
        at.unlink(missing_ok=True)
        at.symlink_to(victim)

    def test_gc_and_purge_delete_nothing_behind_a_link(self, local, victim):
        """Before: gc deleted what a linked `attempts` holds."""
        made = commit(local, KEY, {"a": b"1"})
        root = Path(local.address.root)
        half = local.attempt(OTHER)
        (victim / half.id).mkdir()
        (victim / half.id / "x").write_text("mine")
        (victim / made.manifest.attempt).mkdir()
        for at in (root / f"artifacts/{KEY}/attempts", root / f"artifacts/{OTHER}/attempts", root / f"scratch/{THIRD}"):
            self.plant(at, victim)
        self.plant(root / f"artifacts/{THIRD}", victim)
        with pytest.raises(DataError, match="is a link"):
            Store.open(root).artifact(KEY).fetch("a")
        with pytest.raises(DataError, match="is a link"):
            Store.open(root).scratch(THIRD)
        for act in (lambda store: store.gc(**NOW), lambda store: carry_out(store, find_video(store, VIDEO), "asked")):
            act(Store.open(root))  # goes on past the links
        assert sorted(path.name for path in victim.iterdir()) == sorted(["chapter", half.id, made.manifest.attempt])
        assert (victim / half.id / "x").read_text() == "mine"

    def test_pull_reads_nothing_behind_a_link(self, local, victim, tmp_path):
        """Before: the victim's bytes were copied (whoever writes the manifest may guess a hash)."""
        made = commit(local, KEY, {"chapter": b"years of work"})
        file = Path(local.address.root) / f"artifacts/{KEY}/attempts/{made.manifest.attempt}/chapter"
        self.plant(file, victim / "chapter")
        with pytest.raises(DataError, match="is a link"):
            Store.open(local.address.root).pull(KEY, tmp_path / "out", "all")
        file.unlink()
        os.mkfifo(file)  # before: waited for ever, once its size was 0
        change(local, HERE, files=one_file("chapter", b""))
        with pytest.raises(DataError, match="no plain file"):
            Store.open(local.address.root).pull(KEY, tmp_path / "out", "all")

    def test_records_behind_links_and_pipes_are_not_read(self, local, victim):
        (victim / "record").write_text('{"schema_version": 1}')
        commit(local, KEY, {"a": b"1"})
        path = Path(local.address.root) / HERE
        self.plant(path, victim / "record")
        with pytest.raises(DataError, match="is a link"):
            Store.open(local.address.root).artifact(KEY)
        path.unlink()
        os.mkfifo(path)  # before: waited for ever
        with pytest.raises(DataError, match="a pipe"):
            Store.open(local.address.root).artifact(KEY)
        (victim / "record").unlink()

    def test_the_folder_as_a_whole_may_be_a_link(self, local, tmp_path):
        commit(local, KEY, {"a": b"1"})
        (tmp_path / "elsewhere").symlink_to(local.address.root)
        assert Store.open(tmp_path / "elsewhere").artifact(KEY).fetch("a").read_bytes() == b"1"


def test_a_store_written_before_is_read_as_before(store, place):
    """`store_of_0.json` was written by the code of 199c482: trees of lists two levels deep, parts, a second generation, a name,
    a run, a lease that is held and one that was given back."""
    for path, text in json.loads((Path(__file__).parent / "store_of_0.json").read_text()).items():
        store.objects.replace(path, text.encode())
    old, raw, twice = "a" * 64, "e" * 64, "f" * 64
    fresh = Store.open(*place)
    artifact = fresh.artifact(fresh.resolve("clips/old"))
    assert (artifact.key, artifact.manifest.skipped, artifact.manifest.extra["note"]) == (
        old,
        {"too_short": 2},
        ["é", "😀"],
    )
    own = ["card.json", "sub/a b.txt", "y.txt", "z.txt", "ünï.txt"]
    inner = ["parts/p0/clips/one.txt", "parts/p1/clips/two.txt", "parts/p2/clips/three.txt"]
    assert [entry.path for entry in artifact.files()] == own + inner
    assert artifact.fetch("sub/a b.txt").read_bytes() == b"x"
    assert artifact.part("p1").fetch("clips/two.txt").read_bytes() == b"2"
    assert fresh.verify(old).ok
    assert [ancestor.key for ancestor in fresh.lineage(old)] == [old, raw]
    assert (fresh.artifact(twice).manifest.generation, fresh.artifact(twice).fetch("x").read_bytes()) == (2, b"2")
    run = fresh.runs.list()[0]
    assert [each.outcome["key"] for each in run.read_outcomes() if each.outcome] == [old]
    assert run.read_log("split") == "log\n"
    report = fresh.gc(**{**NOW, "dry_run": True})
    assert ([(dead.key, dead.generation) for dead in report.dead], report.unread) == ([(twice, 1), (twice, 2)], [])
    assert report.live[old].startswith("run ") or report.live[old].startswith("clips/old")
