"""A store of which something cannot be read, because it is damaged or of a newer wfm: the rest goes on, nothing that the
unreadable may need is deleted, and there is a way out. On a disk and on S3.
"""

import json

import pytest

from tests.contracts.test_store import KEY, OTHER, THIRD, commit, objects_below
from wfm.artifacts import Store
from wfm.artifacts.lease import held
from wfm.errors import DataError, InputError

LOOSE, NAMED = "d" * 64, "e" * 64
NOW = {"wait_seconds": 0, "min_age_seconds": 0, "keep_runs": 5}
CUT, NEWER = b'{"schema', json.dumps({"schema_version": 99}).encode()


@pytest.fixture(params=[CUT, NEWER], ids=["cut", "newer"])
def broken(request, store):
    """KEY cannot be read; it was made from OTHER and has the part THIRD. LOOSE and its parts are needed by nobody, NAMED is."""
    part = commit(store, THIRD, {"p": b"part"}, part=True)
    commit(store, OTHER, {"a": b"input"})
    commit(store, KEY, {"a": b"1"}, inputs={"raw": OTHER}, parts=[part.entry("p")])
    commit(store, LOOSE, {"a": b"loose"})
    commit(store, NAMED, {"a": b"named"}, kind="dataset")
    store.promote("dataset", "n", NAMED)
    store.objects.replace(f"artifacts/{KEY}/manifest.json", request.param)
    return request.param


class TestAManifestThatCannotBeRead:
    def test_gc_reports_it_and_deletes_nothing_that_it_may_need(self, store, place, broken):
        """Before: `gc` ended with the error, whatever there was to delete."""
        commit(store, "f" * 64, {"a": b"bad"})
        store.invalidate("f" * 64, "bad")
        half = store.attempt("0" * 64)
        store.objects.replace(f"artifacts/{half.key}/attempts/{half.id}/x", b"half")
        fresh = Store.open(*place)
        dry = fresh.gc(**NOW, dry_run=True)
        assert [f"artifacts/{KEY}/manifest.json" in words for words in dry.unread] == [True]
        assert dry.spared == 3, "OTHER, LOOSE and the part"
        assert "cannot be read" in dry.notes[-1]
        report = fresh.gc(**NOW)
        assert [dead.key for dead in report.dead] == ["f" * 64]  # invalidated by hand
        assert report.attempts == [f"artifacts/{half.key}/attempts/{half.id}"]
        assert [fresh.has(key) for key in (KEY, OTHER, LOOSE, NAMED)] == [True] * 4
        assert fresh.has_part(THIRD)
        assert f"artifacts/{KEY}/manifest.json" in objects_below(store, f"artifacts/{KEY}")
        assert len(objects_below(store, f"artifacts/{KEY}/attempts")) == 1

    def test_what_was_invalidated_since_is_not_told_to_be_invalidated(self, store, place, broken):
        """Before: its line gave the advice that had been taken, for ever."""
        store.invalidate(KEY, "torn")
        report = Store.open(*place).gc(**NOW)
        (words,) = report.unread
        assert f"artifacts/{KEY}/manifest.json was invalidated at " in words
        assert words.endswith("torn; it cannot be read, and its files stay: nobody can tell which they are")
        assert LOOSE in [dead.key for dead in report.dead], "nothing else is held up by it"

    def test_it_can_be_invalidated_and_made_anew(self, store, place, broken):
        """Before: `invalidate` could not open it, and the next commit failed: "is not valid JSON"."""
        Store.open(*place).invalidate(KEY, "damaged")
        fresh = Store.open(*place)
        assert not fresh.has(KEY)
        assert commit(fresh, KEY, {"a": b"2"}).manifest.generation == 2
        report = fresh.gc(**NOW)
        assert {dead.key for dead in report.dead} == {KEY, OTHER, LOOSE, THIRD}
        assert f"artifacts/{KEY}/manifest.json" in report.unread[0]  # named, and still not deleted
        assert f"artifacts/{KEY}/manifest.json" in objects_below(store, f"artifacts/{KEY}")

    def test_a_part_can_be_invalidated_too(self, store, place, broken):
        store.objects.replace(f"parts/{THIRD}/manifest.json", broken)
        fresh = Store.open(*place)
        with pytest.raises(InputError):
            fresh.part(THIRD)
        fresh.invalidate(THIRD, "damaged")  # before: "has no committed artifact"
        assert not fresh.has_part(THIRD)
        assert commit(fresh, THIRD, {"p": b"part"}, part=True).manifest.generation == 2
        with pytest.raises(InputError, match="no committed artifact or part"):
            fresh.invalidate("0" * 64, "never there")

    def test_a_commit_beside_it_says_what_to_do(self, store, place, broken):
        with pytest.raises(InputError, match=r"wfm artifacts invalidate|upgrade wfm"):
            commit(Store.open(*place), KEY, {"a": b"2"})


class TestOtherRecordsThatCannotBeRead:
    """Each may point at anything: while it is there, gc deletes nothing that is not surely dead."""

    @pytest.mark.parametrize(
        ("path", "data", "spared"),
        [
            ("refs/dataset/n/latest/00000002.json", b'{"schema_version": 1}', 1),  # before: KeyError
            (f"leases/{OTHER}/00000001.json", b'{"schema_version": 1}', 1),  # before: the error ended gc
            ("runs/{run}/spec.json", b"[1]", 1),  # before: what the run had read was deleted
            ("runs/{run}/nodes/n/attempts/0001/outcome.json", b"{", 1),  # before: the error ended gc
        ],
        ids=["name", "lease", "spec", "outcome"],
    )
    def test_gc_goes_on(self, store, place, path, data, spared):
        commit(store, KEY, {"a": b"1"})
        run = store.runs.create({})
        run.append_attempt("n")
        path = path.format(run=run.id)
        store.objects.replace(path, data)
        for dry_run in (True, False):
            report = Store.open(*place).gc(**NOW, dry_run=dry_run)
            assert [path in words for words in report.unread] == [True]
            assert (report.dead, report.spared) == ([], spared)
        assert store.has(KEY)
        store.objects.delete_tree(path.rpartition("/")[0])
        assert [dead.key for dead in store.gc(**NOW).dead] == [KEY]

    def test_a_tombstone_that_cannot_be_read_keeps_what_lies_below(self, store, place):
        part = commit(store, THIRD, {"p": b"part"}, part=True)
        commit(store, KEY, {"a": b"1"}, parts=[part.entry("p")])
        store.invalidate(KEY, "bad", parts=False)
        path = f"artifacts/{KEY}/tombstone-1.json"
        store.objects.replace(path, b"{")  # before: the error ended gc
        fresh = Store.open(*place)
        report = fresh.gc(**NOW)
        assert report.dead == []
        assert path in report.unread[0]
        assert not fresh.has(KEY)
        assert fresh.has_part(THIRD)
        assert commit(fresh, KEY, {"a": b"2"}).manifest.generation == 2

    def test_one_that_appears_during_the_wait_stops_the_deletion(self, store, place, monkeypatch):
        commit(store, KEY, {"a": b"1"})

        def meanwhile(_):
            store.objects.replace("refs/dataset/n/latest/00000001.json", b"{")

        monkeypatch.setattr("wfm.artifacts.collect._pause", meanwhile)
        report = store.gc(**{**NOW, "wait_seconds": 1})
        assert report.dead == []
        assert "00000001.json" in report.unread[0]
        assert Store.open(*place).has(KEY)


class TestLeases:
    @pytest.mark.parametrize("stray", ["notes.txt", "zz.json", "99999999.beat", "000000002.json"])
    def test_a_stray_file_costs_nobody_a_lease(self, store, stray):
        """Before: `notes.txt` sorts after every number, so that gc deleted the held lease's record and beat."""
        with store.lease(KEY, ttl_seconds=5) as lease:
            store.objects.replace(f"leases/{KEY}/00000001.beat", b'{"count": 1}')
            store.objects.replace(f"leases/{KEY}/{stray}", b"x")
            store.objects.replace("leases/notes.txt", b"x")
            store.gc(**NOW)
            assert {"00000001.json", "00000001.beat", stray} <= set(store.objects.names(f"leases/{KEY}"))
            assert list(held(store.objects)) == [KEY]
            lease.check()

    def test_old_numbers_go(self, store):
        for _ in range(3):
            with store.lease(KEY, ttl_seconds=5):
                pass
        store.gc(**NOW)
        assert store.objects.names(f"leases/{KEY}") == ["00000003.json", "00000003.released"]
        with store.lease(KEY, ttl_seconds=5) as lease:
            assert lease.number == 4


class TestRuns:
    def test_a_damaged_record_is_named(self, store):
        run = store.runs.create({"pipeline": "p"})
        for path, act in (
            ("spec.json", run.spec),
            ("nodes/n/attempts/0001/outcome.json", lambda: run.read_outcome("n", 1)),
        ):
            run.write(path, b"[1]")
            with pytest.raises(DataError, match=rf"{path}.*delete its folder"):
                act()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("name", ["wait_seconds", "min_age_seconds"])
def test_an_age_that_is_no_number_collects_nothing(store, name, value):
    """Before: nothing is younger than NaN, so what was made a moment ago was deleted."""
    commit(store, KEY, {"a": b"1"})
    with pytest.raises(InputError, match=rf"{name} is .*: give a number, 0 or more"):
        store.gc(**{**NOW, "keep_runs": 1, name: value})
    assert store.has(KEY)
