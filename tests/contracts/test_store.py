"""What every store must do, whatever it lies on: one suite, run on a local folder and on S3 over HTTP (moto's server)."""

import io
import json
import pickle
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.contracts.conftest import SECRET
from wfm.artifacts import PartEntry, Store, generations
from wfm.artifacts.attempt_log import LogPieces
from wfm.errors import Cancelled, DataError, InputError, TryAgain

KEY, OTHER, THIRD = "a" * 64, "b" * 64, "c" * 64


def parquet(**columns) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def commit(store, key, files, *, part=False, stage="stage", kind="things", **fields):
    attempt = store.part_attempt(key) if part else store.attempt(key)
    for path, data in files.items():
        target = attempt.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return attempt.commit(stage=stage, kind=kind, **fields)


def objects_below(store, folder):
    return sorted(stat.path for stat in store.objects.walk(folder))


class TestCommit:
    def test_what_was_committed_is_read_back(self, store, place):
        made = commit(
            store,
            KEY,
            {"a.txt": b"one", "deep/er/b.bin": bytes(range(256))},
            stage="split_clips",
            kind="clips",
            counts={"outputs": 2},
            skipped={"too_short": 3},
            config={"length": 2.5},
            code_id="v1",
            inputs={"videos": OTHER},
            timings={"decode": 1.5},
            resources={"cpu_seconds": 2.0},
            versions={"av": "16"},
            fence=7,
            extra={"note": ["x"]},
        )
        again = Store.open(*place).artifact(KEY)
        assert again.manifest == made.manifest
        manifest = again.manifest
        assert (manifest.schema_version, manifest.generation, manifest.stage, manifest.kind) == (
            1,
            1,
            "split_clips",
            "clips",
        )
        assert (manifest.counts, manifest.skipped, manifest.config) == (
            {"outputs": 2},
            {"too_short": 3},
            {"length": 2.5},
        )
        assert (manifest.code_id, manifest.inputs, manifest.fence) == ("v1", {"videos": OTHER}, 7)
        assert (manifest.timings, manifest.resources) == ({"decode": 1.5}, {"cpu_seconds": 2.0})
        assert (manifest.versions, manifest.extra) == ({"av": "16"}, {"note": ["x"]})
        assert [(f.path, f.size) for f in again.files()] == [("a.txt", 3), ("deep/er/b.bin", 256)]
        assert manifest.files.bytes == 259
        with again.open("deep/er/b.bin") as file:
            assert file.read() == bytes(range(256))
        assert again.fetch("a.txt").read_bytes() == b"one"

    def test_nothing_is_seen_before_the_commit(self, store):
        attempt = store.attempt(KEY)
        (attempt.path / "a").write_bytes(b"1")
        assert not store.has(KEY)
        assert list(store.committed_keys()) == []
        with pytest.raises(InputError, match="no committed artifact"):
            store.artifact(KEY)
        attempt.commit(stage="s", kind="k")
        assert store.has(KEY)
        assert not store.has_part(KEY)
        assert list(store.committed_keys()) == [KEY]

    def test_a_discarded_attempt_leaves_nothing(self, store):
        with store.attempt(KEY) as attempt:
            (attempt.path / "a").write_bytes(b"1")
        assert not attempt.path.exists()
        assert objects_below(store, "artifacts") == []

    def test_discard_after_the_commit_keeps_the_artifact(self, store):
        with store.attempt(KEY) as attempt:
            (attempt.path / "a").write_bytes(b"1")
            attempt.commit(stage="s", kind="k")
        assert store.artifact(KEY).fetch("a").read_bytes() == b"1"

    def test_the_second_of_two_attempts_gets_the_first_ones_artifact(self, store):
        first, second = store.attempt(KEY), store.attempt(KEY)
        assert first.id != second.id
        (first.path / "a").write_bytes(b"first")
        (second.path / "a").write_bytes(b"second")
        won = first.commit(stage="s", kind="k")
        got = second.commit(stage="s", kind="k")
        assert got.manifest == won.manifest
        assert got.fetch("a").read_bytes() == b"first"
        assert not second.path.exists()
        assert [path for path in objects_below(store, "artifacts") if second.id in path] == []

    def test_committing_twice_is_the_same_commit(self, store):
        attempt = store.attempt(KEY)
        (attempt.path / "a").write_bytes(b"1")
        first = attempt.commit(stage="s", kind="k", timings={"all": 1.0})
        second = attempt.commit(stage="s", kind="k", timings={"all": 2.0})
        assert second.manifest == first.manifest

    def test_an_empty_artifact_is_an_artifact(self, store):
        commit(store, KEY, {})
        assert list(store.artifact(KEY).files()) == []

    @pytest.mark.parametrize(
        "name", ["with space.txt", "quote'\".txt", "ünï-😀.txt", "per%20cent+plus#hash?.txt", "a=b/c&d.txt"]
    )
    def test_odd_file_names_survive(self, store, place, name):
        commit(store, KEY, {name: b"odd"})
        artifact = Store.open(*place).artifact(KEY)
        assert [entry.path for entry in artifact.files()] == [name]
        assert artifact.open(name).read() == b"odd"

    def test_a_file_larger_than_one_request(self, store, place, tmp_path, monkeypatch):
        data = bytes(range(256)) * (80 * 1024)  # 20 MiB: several parts of a multipart upload
        commit(store, KEY, {"big.bin": data})
        monkeypatch.setenv("WFM_CACHE", str(tmp_path / "other-cache"))
        fresh = Store.open(*place)
        assert fresh.artifact(KEY).fetch("big.bin").read_bytes() == data
        assert fresh.verify(KEY).ok

    def test_keys_and_values_that_do_not_fit_are_refused(self, store):
        for key in ("A" * 64, "a" * 63, "../" + "a" * 61, ""):
            with pytest.raises(InputError, match="64 lower-case hex"):
                store.has(key)
        with pytest.raises(InputError, match="JSON"):
            commit(store, KEY, {}, extra={"loss": float("nan")})
        with pytest.raises(InputError, match="kind"):
            commit(store, KEY, {}, kind="no/slash")
        assert not store.has(KEY)


class TestParts:
    def make(self, store):
        parts = []
        for name, key, rows in (("b1", OTHER, [3]), ("a0", THIRD, [1, 2])):
            files = {"clips.parquet": parquet(x=rows), f"clips/{name}.mp4": name.encode(), "truth/secret": b"t"}
            parts.append(commit(store, key, files, part=True, kind="clips", counts={"clips": len(rows)}).entry(name))
        return commit(store, KEY, {"card.json": b"{}"}, kind="clips", parts=parts)

    def test_parts_are_found_by_name_and_key(self, store):
        artifact = self.make(store)
        assert store.has_part(OTHER)
        assert not store.has(OTHER)
        assert [entry.name for entry in artifact.parts] == ["a0", "b1"]
        assert artifact.parts[0] == PartEntry("a0", THIRD, store.part(THIRD).manifest.digest, {"clips": 2}, 1)
        assert artifact.part("b1").open("clips/b1.mp4").read() == b"b1"
        with pytest.raises(InputError, match="no part 'zz'"):
            artifact.part("zz")

    def test_files_of_parts_appear_under_their_name(self, store):
        artifact = self.make(store)
        paths = [entry.path for entry in artifact.files()]
        assert paths[0] == "card.json"
        assert paths[1:4] == ["parts/a0/clips.parquet", "parts/a0/clips/a0.mp4", "parts/a0/truth/secret"]
        assert [e.path for e in artifact.files("parts/b1/clips/")] == ["parts/b1/clips/b1.mp4"]
        assert next(artifact.files("parts/b")).path == "parts/b1/clips.parquet"
        assert artifact.open("parts/a0/clips/a0.mp4").read() == b"a0"
        assert artifact.has_file("parts/a0/clips/a0.mp4")
        assert not artifact.has_file("parts/zz/clips/a0.mp4")
        assert not artifact.has_file("nothing")
        with pytest.raises(InputError, match="no file 'nothing'"):
            artifact.open("nothing")

    def test_tables_are_joined_in_order_of_part_name(self, store):
        artifact = self.make(store)
        assert artifact.table("clips").column("x").to_pylist() == [1, 2, 3]
        assert [(name, table.num_rows) for name, table in artifact.iterate_table("clips")] == [("a0", 2), ("b1", 1)]
        with pytest.raises(InputError, match=r"no table 'nope': it has clips"):
            artifact.table("nope")
        with pytest.raises(InputError, match=r"no column 'y': it has x"):
            artifact.table("clips", columns=["y"])

    def test_own_table_comes_first_and_folders_are_tables(self, store):
        part = commit(
            store, OTHER, {"t.parquet/1.parquet": parquet(x=[3]), "t.parquet/0.parquet": parquet(x=[2])}, part=True
        )
        made = commit(store, KEY, {"t.parquet": parquet(x=[1]), "t.parquets": b"no"}, parts=[part.entry("p")])
        assert made.table("t").column("x").to_pylist() == [1, 2, 3]

    def test_pieces_that_disagree_are_refused(self, store):
        part = commit(store, OTHER, {"t.parquet": parquet(y=[3])}, part=True)
        made = commit(store, KEY, {"t.parquet": parquet(x=[1])}, parts=[part.entry("p")])
        with pytest.raises(DataError, match="disagree"):
            made.table("t")

    def test_many_parts_make_a_tree_of_lists(self, store, place):
        entries = [PartEntry(f"{i:05d}", f"{i:064x}", f"{i:064x}", {"clips": i}) for i in range(5000)]
        made = commit(store, KEY, {}, parts=entries)
        manifest = json.loads(store.objects.read(f"artifacts/{KEY}/manifest.json"))
        assert len(manifest["parts"]["entries"]) == 0
        assert [child["count"] for child in manifest["parts"]["children"]] == [4096, 904]
        assert made.manifest.parts.count == 5000
        assert Store.open(*place).artifact(KEY).parts == tuple(entries)

    def test_a_part_that_changed_is_refused(self, store):
        part = commit(store, OTHER, {"a": b"1"}, part=True).entry("p")
        wrong = PartEntry(part.name, part.key, "0" * 64, part.counts)
        made = commit(store, KEY, {}, parts=[wrong])
        with pytest.raises(DataError, match="was committed"):
            made.part("p")

    def test_twice_the_same_part_name_is_refused(self, store):
        part = commit(store, OTHER, {"a": b"1"}, part=True).entry("p")
        with pytest.raises(InputError, match="twice"):
            commit(store, KEY, {}, parts=[part, part])

    def test_closed_folders_stay_closed(self, store, tmp_path):
        files = {"truth/own": b"t", "truths/ok": b"o", "card.json": b"{}"}
        part = commit(store, OTHER, {"truth/x": b"t", "x": b"x", "truth/t.parquet": parquet(x=[1])}, part=True)
        artifact = commit(store, KEY, files, parts=[part.entry("p")]).without("truth/")
        assert [entry.path for entry in artifact.files()] == ["card.json", "truths/ok", "parts/p/x"]
        assert artifact.part("p").without("more/").open("x").read() == b"x"
        doors = [
            lambda: artifact.open("truth/own"),
            lambda: artifact.fetch("parts/p/truth/x"),
            lambda: artifact.part("p").fetch("truth/x"),
            lambda: list(artifact.files("truth/")),
            lambda: list(artifact.files("truth")),
            lambda: list(artifact.files("parts/p/truth/")),
            lambda: artifact.table("truth/t"),
            lambda: artifact.fetch_tree("truth/", tmp_path / "t"),
            lambda: artifact.has_file("truth/own"),
            lambda: artifact.file("truth/own"),
        ]
        for door in doors:
            with pytest.raises(InputError, match="closed"):
                door()
        artifact.fetch_tree("", tmp_path / "all")
        copied = sorted(
            p.relative_to(tmp_path / "all").as_posix() for p in (tmp_path / "all").rglob("*") if p.is_file()
        )
        assert copied == ["card.json", "parts/p/x", "truths/ok"]
        assert store.artifact(KEY).open("truth/own").read() == b"t"


class TestWhatIsReadIsVerified:
    @pytest.mark.parametrize(("bad", "words"), [(b"tWo", "sha256"), (b"two!", "4 bytes")])
    def test_damaged_bytes_are_refused(self, store, place, tmp_path, monkeypatch, bad, words):
        made = commit(store, KEY, {"a": b"one", "b": b"two"})
        store.objects.replace(f"artifacts/{KEY}/attempts/{made.manifest.attempt}/b", bad)
        monkeypatch.setenv("WFM_CACHE", str(tmp_path / "other-cache"))
        artifact = Store.open(*place).artifact(KEY)
        assert artifact.open("a").read() == b"one"
        for _ in range(2):  # also the second time
            with pytest.raises(DataError, match=words):
                artifact.open("b")
        report = Store.open(*place).verify(KEY)
        assert not report.ok
        assert len(report.problems) == 1
        assert report.problems[0].startswith("b ")

    def test_a_missing_file_is_named(self, store, place, tmp_path, monkeypatch):
        made = commit(store, KEY, {"a": b"one"})
        store.objects.delete(f"artifacts/{KEY}/attempts/{made.manifest.attempt}/a")
        monkeypatch.setenv("WFM_CACHE", str(tmp_path / "other-cache"))
        with pytest.raises(DataError, match=r"/a is missing"):
            Store.open(*place).artifact(KEY).open("a")
        assert Store.open(*place).verify(KEY).problems == ["a is missing"]

    def test_a_damaged_list_is_refused(self, store, place):
        entries = [PartEntry(f"{i:05d}", f"{i:064x}", f"{i:064x}", {}) for i in range(4097)]
        made = commit(store, KEY, {}, parts=entries)
        node = made.manifest.parts.children[1].path
        store.objects.replace(f"artifacts/{KEY}/attempts/{made.manifest.attempt}/{node}", b"{}")
        with pytest.raises(DataError, match="damaged"):
            _ = Store.open(*place).artifact(KEY).parts

    def test_verify_says_what_it_read(self, store):
        commit(store, THIRD, {"in": b"x"})
        part = commit(store, OTHER, {"x": b"xyz"}, part=True)
        commit(store, KEY, {"a": b"one"}, parts=[part.entry("p")], inputs={"videos": THIRD})
        report = store.verify(KEY)
        assert (report.ok, report.files, report.bytes, report.parts) == (True, 2, 6, 1)
        store.invalidate(THIRD, "bad")
        assert "input videos" in store.verify(KEY).problems[0]

    def test_a_newer_schema_is_refused_with_advice(self, store, place):
        commit(store, KEY, {"a": b"1"})
        path = f"artifacts/{KEY}/manifest.json"
        document = json.loads(store.objects.read(path))
        store.objects.replace(path, json.dumps({**document, "schema_version": 2}).encode())
        with pytest.raises(InputError, match=r"schema version 2, this wfm reads up to 1.*upgrade wfm"):
            Store.open(*place).artifact(KEY)
        store.objects.replace(path, b"{ not json")
        with pytest.raises(DataError, match="damaged"):
            Store.open(*place).artifact(KEY)


class TestInvalidation:
    def test_the_next_commit_is_the_next_generation(self, store, place):
        first = commit(store, KEY, {"a": b"bad"})
        store.invalidate(KEY, "wrong colours")
        assert not store.has(KEY)
        with pytest.raises(InputError):
            store.artifact(KEY)
        assert first.open("a").read() == b"bad"  # who reads it now is not cut off
        second = commit(store, KEY, {"a": b"good"})
        assert second.manifest.generation == 2
        fresh = Store.open(*place)
        assert fresh.artifact(KEY).open("a").read() == b"good"
        assert json.loads(store.objects.read(f"artifacts/{KEY}/tombstone-1.json"))["reason"] == "wrong colours"
        fresh.invalidate(KEY, "again")
        assert commit(fresh, KEY, {"a": b"best"}).manifest.generation == 3

    def test_parts_go_with_their_artifact(self, store):
        part = commit(store, OTHER, {"x": b"1"}, part=True)
        artifact = commit(store, KEY, {}, parts=[part.entry("p")])
        store.invalidate(KEY, "bad part")
        assert not store.has_part(OTHER)
        assert artifact.part("p").open("x").read() == b"1"
        again = commit(store, OTHER, {"x": b"2"}, part=True).entry("p")
        assert again.generation == 2
        assert commit(store, KEY, {}, parts=[again]).part("p").open("x").read() == b"2"

    def test_parts_may_stay(self, store):
        part = commit(store, OTHER, {"x": b"1"}, part=True)
        commit(store, KEY, {}, parts=[part.entry("p")])
        store.invalidate(KEY, "bad card", parts=False)
        assert store.has_part(OTHER)

    def test_an_attempt_begun_before_the_tombstone_becomes_the_next_generation(self, store):
        early = store.attempt(KEY)
        commit(store, KEY, {"a": b"1"})
        store.invalidate(KEY, "bad")
        assert early.commit(stage="s", kind="k").manifest.generation == 2


class TestNames:
    def test_the_last_promotion_counts_and_history_stays(self, store):
        for key in (KEY, OTHER):
            commit(store, key, {"a": key.encode()}, kind="dataset")
        assert store.promote("dataset", "curated", KEY) == 1
        assert store.promote("dataset", "curated", OTHER) == 2
        assert store.promote("dataset", "curated", OTHER) == 2  # it means that already
        assert store.promote("dataset", "curated", KEY, alias="stable") == 1
        assert store.resolve("dataset/curated@latest") == OTHER
        assert store.resolve("dataset/curated") == OTHER
        assert store.resolve("dataset/curated@stable") == KEY
        assert [p.key for p in store.names.history("dataset", "curated")] == [OTHER, KEY]
        assert [(p.reference, p.key) for p in store.names.list()] == [
            ("dataset/curated@latest", OTHER),
            ("dataset/curated@stable", KEY),
        ]

    def test_keys_resolve_whole_and_by_their_beginning(self, store):
        near = "a" * 20 + "0" * 44
        for key in (KEY, near, OTHER):
            commit(store, key, {})
        assert store.resolve(OTHER) == OTHER
        assert store.resolve("b" * 8) == OTHER
        with pytest.raises(InputError, match="2 keys"):
            store.resolve("a" * 8)
        with pytest.raises(InputError, match="no committed artifact"):
            store.resolve("d" * 8)
        with pytest.raises(InputError, match="not a reference"):
            store.resolve("b" * 7)

    def test_wrong_names_are_refused_with_the_choices(self, store):
        commit(store, KEY, {}, kind="dataset")
        store.promote("dataset", "curated", KEY)
        with pytest.raises(InputError, match=r"no dataset/other@latest: the names are dataset/curated@latest"):
            store.resolve("dataset/other")
        with pytest.raises(InputError, match="kind 'dataset'"):
            store.promote("model", "curated", KEY)
        with pytest.raises(InputError, match="no committed"):
            store.promote("dataset", "curated", OTHER)
        with pytest.raises(InputError, match="not allowed"):
            store.promote("dataset", "../curated", KEY)
        with pytest.raises(InputError, match="not a reference"):
            store.resolve("dataset/../x/y@z")


class TestLease:
    def test_one_holder_at_a_time_and_growing_numbers(self, store):
        with store.lease(KEY, ttl_seconds=5) as first:
            assert first.number == 1
            first.check()
            with pytest.raises(TryAgain, match="another process works on"):
                store.lease(KEY, ttl_seconds=5).acquire(wait_seconds=0)
            with store.lease(OTHER, ttl_seconds=5) as other:
                assert other.number == 1
        with store.lease(KEY, ttl_seconds=5) as second:
            assert (second.number, second.adopted) == (2, False)
        with pytest.raises(TryAgain, match="not held"):
            second.check()

    def test_a_waiter_gets_it_at_the_release(self, store):
        first = store.lease(KEY, ttl_seconds=1).acquire()
        got = []
        waiter = threading.Thread(target=lambda: got.append(store.lease(KEY, ttl_seconds=1).acquire(wait_seconds=20)))
        waiter.start()
        time.sleep(0.4)
        assert got == []
        first.release()
        waiter.join(20)
        assert [lease.number for lease in got] == [2]
        got[0].release()

    def test_a_living_holder_keeps_it_beyond_the_ttl(self, store):
        with store.lease(KEY, ttl_seconds=0.8) as first:
            with pytest.raises(TryAgain):
                store.lease(KEY, ttl_seconds=0.8).acquire(wait_seconds=2.0)
            first.check()

    def test_a_silent_holder_is_replaced_and_knows_it(self, store):
        silent = store.lease(KEY, ttl_seconds=0.5).acquire()
        silent._stop.set()  # as if the process were stopped: it lives, but its heart does not beat
        silent._thread.join()
        begun = time.monotonic()
        with store.lease(KEY, ttl_seconds=0.5).acquire(wait_seconds=20) as heir:
            assert time.monotonic() - begun >= 0.5
            assert (heir.number, heir.adopted) == (2, True)
            heir.check()
            with pytest.raises(TryAgain, match="lost"):
                silent.check()

    def test_a_revived_holder_sees_that_it_was_replaced(self, store):
        first = store.lease(KEY, ttl_seconds=0.4).acquire()
        store.objects.create(f"leases/{KEY}/00000002.json", store.objects.read(f"leases/{KEY}/00000001.json"))
        deadline = time.monotonic() + 10
        while not first._lost and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(TryAgain, match="took it over"):
            first.check()
        while not first.taken_over and time.monotonic() < deadline:
            time.sleep(0.05)
        assert first.taken_over, "although the record there is of number 1, and so cannot be read"

    def test_a_collected_number_does_not_count(self, store):
        with store.lease(KEY, ttl_seconds=5):
            pass
        with store.lease(KEY, ttl_seconds=5):
            late = store.lease(KEY, ttl_seconds=5)
            store.objects.delete(f"leases/{KEY}/00000001.json")
            assert not late._take(1)  # free again, but number 2 stands
            assert store.objects.names(f"leases/{KEY}", "00000001.json") == []

    def test_a_stop_request_ends_the_wait(self, store):
        with store.lease(KEY, ttl_seconds=5), pytest.raises(Cancelled):
            store.lease(KEY, ttl_seconds=5).acquire(stopping=lambda: True)


class TestRuns:
    def test_runs_are_listed_newest_first(self, store):
        ids = []
        for number in range(3):
            ids.append(store.runs.create({"pipeline": "world_model", "number": number}).id)
            time.sleep(0.002)
        assert ids == sorted(ids)
        assert [run.id for run in store.runs.list()] == ids[::-1]
        assert [run.id for run in store.runs.list(limit=1)] == ids[2:]
        spec = store.runs.open(ids[1]).spec()
        assert (spec["number"], spec["run_id"], spec["pipeline"]) == (1, ids[1], "world_model")
        with pytest.raises(InputError, match="not the id of a run"):
            store.runs.open("nope")

    def test_attempts_are_appended_and_the_first_outcome_stands(self, store):
        run = store.runs.create({})
        assert run.append_attempt("split", {"pid": 1}) == 1
        assert run.append_attempt("split", {"pid": 2}) == 2
        assert run.append_attempt("train") == 1
        assert run.write_outcome("split", 1, {"outcome": "bug", "reason": "boom"})
        assert not run.write_outcome("split", 1, {"outcome": "done"})
        found = [
            (a.node, a.number, a.record.get("pid"), a.outcome and a.outcome["outcome"]) for a in run.read_outcomes()
        ]
        assert found == [("split", 1, 1, "bug"), ("split", 2, 2, None), ("train", 1, None, None)]
        assert [a.number for a in run.read_outcomes("split")] == [1, 2]

    def test_two_processes_never_share_an_attempt(self, store):
        run = store.runs.create({})
        numbers = []
        threads = [threading.Thread(target=lambda: numbers.append(run.append_attempt("n"))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(numbers) == [1, 2, 3, 4, 5, 6]

    def test_logs_and_files(self, store, place):
        run = store.runs.create({})
        number = run.append_attempt("split")
        assert run.read_log("split") == ""
        pieces = LogPieces(piece=10, head=1, tail=1)
        for line in ("line 1\n", "and \udcff 2\n", "third\n"):
            pieces.add(line.encode(errors="replace"))
            run.ship_log("split", number, pieces)
        told = Store.open(*place).runs.open(run.id).read_log("split", 1)
        assert told == "line 1\n\n[... 8 bytes of this log are left out here ...]\nthird\n"
        run.write_log("split", run.append_attempt("split"), "all \udcff new\n")
        assert run.read_log("split") == "all ? new\n"
        with pytest.raises(InputError, match="no attempt at node 'train': it has split"):
            run.read_log("train")
        assert run.write("report/index.html", "<p>") == run.path_of("report", "index.html")
        assert run.path_of("spec.json") == f"{store.url}/runs/{run.id}/spec.json"
        assert run.read("report/index.html") == b"<p>"
        assert run.read("nothing") is None
        assert run.names("report") == ["index.html"]
        assert run.create("cancel.json", "{}")
        assert not run.create("cancel.json", "{ }")
        for path in ("../other", "/etc/passwd", "a//b"):
            with pytest.raises(InputError):
                run.write(path, b"")


class TestLineage:
    def test_back_to_the_source_files(self, store):
        raw, videos, dataset, model = ("1" * 64, "2" * 64, "3" * 64, "4" * 64)
        commit(store, raw, {"videos/a.mp4": b"x"}, stage="simulate_videos", kind="raw_videos")
        rows = parquet(source=["wfm://" + raw + "/videos/a.mp4", "/data/b.mp4", ""], status=["ok"] * 3)
        part = commit(store, OTHER, {"videos.parquet": rows}, part=True)
        commit(store, videos, {}, stage="ingest_videos", kind="videos", inputs={"raw": raw}, parts=[part.entry("p")])
        commit(store, dataset, {}, kind="dataset", inputs={"videos": videos})
        commit(store, model, {}, kind="model", inputs={"dataset": dataset, "videos": videos})
        lineage = store.lineage(model)
        assert [(a.key, a.depth) for a in lineage] == [(model, 0), (dataset, 1), (videos, 2), (raw, 3)]
        assert list(lineage.sources()) == [f"wfm://{raw}/videos/a.mp4", "/data/b.mp4"]
        assert [root.stage for root in lineage.roots()] == ["simulate_videos"]
        assert (dataset, "dataset", model) in set(lineage.edges())
        store.invalidate(raw, "bad")
        assert [a.key for a in store.lineage(model) if a.problem] == [raw]
        with pytest.raises(InputError):
            store.lineage("9" * 64)


class TestCollection:
    def gc(self, store, **choices):
        return store.gc(**{"wait_seconds": 0, "min_age_seconds": 0, "keep_runs": 0, **choices})

    def test_what_nothing_needs_goes_and_the_rest_stays(self, store, place):
        source, named, loose, leased, ran = (digit * 64 for digit in "12345")
        live_part = commit(store, OTHER, {"x": b"1"}, part=True)
        dead_part = commit(store, THIRD, {"x": b"22"}, part=True)
        commit(store, source, {"a": b"s"})
        commit(store, named, {}, inputs={"raw": source}, parts=[live_part.entry("p")], kind="dataset")
        gone = commit(store, loose, {"a": b"abc"}, parts=[dead_part.entry("p")], inputs={"raw": source})
        commit(store, ran, {"a": b"r"})
        store.promote("dataset", "d", named)
        run = store.runs.create({})
        run.write_outcome("n", run.append_attempt("n"), {"outcome": "done", "key": ran})

        dry = self.gc(store, dry_run=True, keep_runs=5)
        assert [(d.area, d.key) for d in dry.dead] == [("artifacts", loose), ("parts", THIRD)]
        assert dry.bytes == 5
        assert store.has(loose)
        assert dry.live[named] == "dataset/d@latest (promotion 1)"
        assert dry.live[source] == f"input of {named[:12]}"

        commit(store, leased, {"a": b"l"})
        with store.lease(leased, ttl_seconds=5, inputs=(loose,)):
            assert self.gc(store, keep_runs=5, dry_run=True).dead == []
        with store.lease(leased, ttl_seconds=5):
            assert [d.area for d in self.gc(store, keep_runs=5, dry_run=True).dead] == ["artifacts"]
            held = self.gc(store, keep_runs=5)
        assert [(d.area, d.key) for d in held.dead] == [("artifacts", loose)]  # no part while a lease is held
        assert "leases are held" in held.notes[0]

        done = self.gc(store, keep_runs=5)
        assert [(d.area, d.key) for d in done.dead] == [("artifacts", leased), ("parts", THIRD)]
        fresh = Store.open(*place)
        assert [fresh.has(key) for key in (source, named, loose, ran)] == [True, True, False, True]
        assert objects_below(store, f"artifacts/{loose}/attempts") == []
        assert objects_below(store, f"parts/{THIRD}/attempts") == []
        assert fresh.verify(named).ok
        assert commit(store, loose, {"a": b"new"}).manifest.generation > gone.manifest.generation
        assert self.gc(store).dead[0].key == loose

    def test_parts_that_ranges_made_for_what_a_run_still_asks_for_stay(self, store):
        """Days may lie between the ranges and the call that commits; nothing lists the parts until then."""
        for key, made_for in ((OTHER, KEY), (THIRD, ["not", "a key"])):
            with store.part_attempt(key) as attempt:
                attempt.commit(stage="s", kind="part", extra={"made_for": made_for})
        run = store.runs.create({})
        run.write_outcome("n", run.append_attempt("n", {"parts": "0/2"}), {"outcome": "done", "key": KEY})
        assert [d.key for d in self.gc(store, keep_runs=5).dead] == [THIRD]
        assert store.has_part(OTHER)
        commit(store, KEY, {})  # without the part: nobody asks for it any more
        assert [d.key for d in self.gc(store, keep_runs=5).dead] == [OTHER]

    def test_young_things_and_the_newest_promotions_stay(self, store):
        commit(store, KEY, {"a": b"1"})
        assert self.gc(store, min_age_seconds=3600).dead == []
        for key in (KEY, OTHER):
            if key != KEY:
                commit(store, key, {"a": b"1"})
            store.promote("things", "n", key)
        assert self.gc(store, keep_promotions=2).dead == []
        assert [d.key for d in self.gc(store, keep_promotions=1).dead] == [KEY]

    def test_invalidated_commits_and_unfinished_attempts_go(self, store):
        commit(store, KEY, {"a": b"bad"})
        store.invalidate(KEY, "bad")
        commit(store, KEY, {"a": b"good"})
        store.promote("things", "n", KEY)
        unfinished = store.attempt(OTHER)
        (unfinished.path / "half").write_bytes(b"half")
        store.objects.replace(f"artifacts/{OTHER}/attempts/{unfinished.id}/half", b"half")
        (store.scratch(THIRD) / "checkpoint").write_bytes(b"x")
        report = self.gc(store)
        assert [(d.key, d.generation) for d in report.dead] == [(KEY, 1)]
        assert report.attempts == [f"artifacts/{OTHER}/attempts/{unfinished.id}"]
        assert report.scratch == [THIRD]
        assert not unfinished.path.exists()
        assert objects_below(store, f"artifacts/{OTHER}") == []
        assert store.artifact(KEY).open("a").read() == b"good"
        assert generations.read_state(store.objects, f"artifacts/{KEY}").manifests == {2}

    def test_what_is_wanted_again_during_the_wait_is_spared(self, store, monkeypatch):
        part = commit(store, OTHER, {"x": b"1"}, part=True)
        commit(store, THIRD, {"s": b"1"})
        commit(store, KEY, {"a": b"1"}, inputs={"raw": THIRD}, parts=[part.entry("p")])
        seen = []

        def meanwhile(seconds):
            seen.append((seconds, store.has(KEY), store.has_part(OTHER)))
            store.names.promote("things", "n", "latest", KEY)

        monkeypatch.setattr("wfm.artifacts.collect._pause", meanwhile)
        report = self.gc(store, wait_seconds=9)
        assert seen == [(9, False, False)]  # tombstoned during the wait
        assert report.dead == []
        assert store.has(KEY)
        assert store.has(THIRD)
        assert store.verify(KEY).ok
        assert store.artifact(KEY).part("p").open("x").read() == b"1"

    def test_a_collection_that_was_killed_is_finished_by_the_next(self, store, monkeypatch):
        commit(store, KEY, {"a": b"1"})

        def killed(_):
            raise KeyboardInterrupt

        monkeypatch.setattr("wfm.artifacts.collect._pause", killed)
        with pytest.raises(KeyboardInterrupt):
            self.gc(store, wait_seconds=1)
        assert not store.has(KEY)
        report = self.gc(store, min_age_seconds=3600)
        assert [d.key for d in report.dead] == [KEY]
        assert objects_below(store, f"artifacts/{KEY}/attempts") == []


class TestPull:
    def make(self, store):
        parts = []
        for name, key, rows in (("b1", OTHER, [3]), ("a0", THIRD, [1, 2])):
            files = {
                "clips.parquet": parquet(x=rows),
                f"shards/train/{name}-00000.tar": b"tar" + name.encode(),
                f"shards/test/{name}-00000.tar": b"test" + name.encode(),
                "note.txt": name.encode(),
            }
            parts.append(commit(store, key, files, part=True, kind="dataset").entry(name))
        own = {"card.json": b"{}", "videos.parquet/0.parquet": parquet(v=[1]), "picks/p.parquet": parquet(v=[1])}
        return commit(store, KEY, own, kind="dataset", parts=parts)

    def pulled(self, folder: Path):
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    TABLES = ("card.json", "clips.parquet/a0.parquet", "clips.parquet/b1.parquet", "videos.parquet/0.parquet")

    def test_tables_read_as_one(self, store, tmp_path):
        self.make(store)
        store.pull(KEY, tmp_path / "out")
        assert self.pulled(tmp_path / "out") == list(self.TABLES)
        assert pq.read_table(tmp_path / "out" / "clips.parquet").column("x").to_pylist() == [1, 2, 3]

    def test_one_split(self, store, tmp_path):
        self.make(store)
        store.pull(KEY, tmp_path / "out", "split:test")
        shards = ["shards/test/a0-00000.tar", "shards/test/b1-00000.tar"]
        assert self.pulled(tmp_path / "out") == sorted([*self.TABLES, *shards])
        with pytest.raises(InputError, match="no split 'nope'"):
            store.pull(KEY, tmp_path / "out", "split:nope")

    def test_all_and_again(self, store, tmp_path):
        self.make(store)
        out = tmp_path / "out"
        store.pull(KEY, out, "tables")
        before = (out / "card.json").stat().st_mtime_ns
        store.pull(KEY, out, "all")
        names = self.pulled(out)
        assert {"shards/train/a0-00000.tar", "picks/p.parquet", "parts/a0/note.txt", "parts/b1/note.txt"} < set(names)
        assert len(names) == 11
        assert (out / "card.json").stat().st_mtime_ns == before

    def test_differing_files_are_not_overwritten(self, store, tmp_path):
        self.make(store)
        out = tmp_path / "out"
        (out / "clips.parquet").mkdir(parents=True)
        (out / "clips.parquet" / "b1.parquet").write_bytes(b"mine")
        with pytest.raises(InputError, match="exists and differs"):
            store.pull(KEY, out)
        assert self.pulled(out) == ["clips.parquet/b1.parquet"]
        assert (out / "clips.parquet" / "b1.parquet").read_bytes() == b"mine"

    def test_links_do_not_lead_outside(self, store, tmp_path):
        self.make(store)
        (tmp_path / "out").mkdir()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "out" / "clips.parquet").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(InputError, match="outside"):
            store.pull(KEY, tmp_path / "out")
        assert list((tmp_path / "elsewhere").iterdir()) == []

    def test_unknown_selections_are_refused(self, store, tmp_path):
        self.make(store)
        for what in ("everything", "split:", "split:../x", ""):
            with pytest.raises(InputError):
                store.pull(KEY, tmp_path / "out", what)


class TestOpening:
    def test_a_store_travels_between_processes(self, store):
        commit(store, KEY, {"a": b"1"})
        assert pickle.loads(pickle.dumps(store)).artifact(KEY).open("a").read() == b"1"

    def test_scratch_stays_between_attempts(self, store, place):
        (store.scratch(KEY) / "step-5").write_bytes(b"weights")
        with store.attempt(KEY):
            pass
        assert (Store.open(*place).scratch(KEY) / "step-5").read_bytes() == b"weights"
        store.clear_scratch(KEY)
        assert list(store.scratch(KEY).iterdir()) == []

    def test_a_missing_bucket_is_a_clear_error(self, s3_options):
        with pytest.raises(InputError, match="no bucket s3://never-made"):
            Store.open("s3://never-made/x", s3_options)

    def test_wrong_credentials_are_refused_and_never_printed(self, s3_options, monkeypatch):
        import requests
        import s3fs

        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        client = {name: value for name, value in s3_options.items() if name != "retry_seconds"}
        s3fs.S3FileSystem(**client).mkdir("private-bucket")
        requests.post(f"{s3_options['endpoint_url']}/moto-api/reset-auth", data=b"0", timeout=10)
        try:
            with pytest.raises(InputError, match="refuses these credentials") as caught:
                Store.open("s3://private-bucket/x", s3_options)
        finally:
            requests.post(f"{s3_options['endpoint_url']}/moto-api/reset-auth", data=b"inf", timeout=10)
        chain = [caught.value, caught.value.__cause__, caught.value.__context__]
        text = " ".join(f"{link!r} {link}" for link in chain)
        assert SECRET not in text
        assert "contract-tests" not in text
        assert caught.value.__context__ is None

    def test_an_absent_server_is_given_up_in_time(self, s3_options):
        begun = time.monotonic()
        with pytest.raises(TryAgain, match="kept failing"):
            Store.open("s3://bucket/x", {**s3_options, "endpoint_url": "http://127.0.0.1:9", "retry_seconds": 0.5})
        assert time.monotonic() - begun < 5
