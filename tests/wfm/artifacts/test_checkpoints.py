"""Checkpoints in the store, on a disk and on S3: who may commit, which counts, what stays, and that nothing is believed."""

import contextlib
import dataclasses
import hashlib
import json
import random
import threading
import time
from pathlib import Path

import pytest

from tests.contracts.test_fuzz_records import mutated
from wfm.artifacts import Store, checkpoints, schema
from wfm.artifacts.address import new_id
from wfm.artifacts.checkpoint_record import RECORD, CheckpointRecord, list_files, read_folder, verify
from wfm.artifacts.checkpoints import Checkpoints, FenceLost, Name
from wfm.artifacts.objects import going_on
from wfm.artifacts.uploads import Uploads
from wfm.errors import DataError, InputError, TryAgain

KEY, OTHER = "a" * 64, "b" * 64
RUN, ANOTHER = "1" * 64, "2" * 64


def make(folder: Path, step: int, fingerprint: str = RUN) -> tuple[Path, CheckpointRecord]:
    """A checkpoint on this machine."""
    path = folder / f"{step}-{new_id()}"
    path.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.safetensors"):
        (path / name).write_bytes(f"{name} after {step}".encode() * 100)
    record = CheckpointRecord(step, fingerprint, list_files(path), {"data": {"at": step}})
    (path / RECORD).write_bytes(record.to_bytes())
    return path, record


def send(place: Checkpoints, step: int, fingerprint: str = RUN, *, at: str = "") -> Name:
    path, record = make(place.scratch, step, fingerprint)
    name = Name(place.fence, step, at) if at else place.new_name(step)
    place.send(path, record, name, set())
    place.prune(fingerprint)
    return name


def steps(place: Checkpoints) -> list[int]:
    return [name.step for name in place.committed()]


def below(store: Store) -> set[str]:
    return {stat.path for stat in store.objects.walk("checkpoints")}


def taken(store: Store) -> int:
    """Another process takes the lease over; its number."""
    lease = store.lease(KEY, ttl_seconds=600)
    with lease:
        return lease.number


def test_there_and_back(store, tmp_path):
    place = store.checkpoints(KEY, fence=taken(store))
    path, record = make(place.scratch, 7)
    place.send(path, record, name := place.new_name(7), set())
    assert place.committed() == [name]
    found = place.record(name)
    assert found == dataclasses.replace(record, key=KEY, fence=place.fence)
    into = tmp_path / "into"
    into.mkdir()
    place.fetch(name, found, into)
    verify(into, read_folder(into))
    assert list_files(into) == record.files
    assert {path.read_bytes() for path in into.glob("*.safetensors")} == {
        path.read_bytes() for path in path.glob("*.safetensors")
    }


def test_on_a_disk_nothing_is_written_twice(tmp_path):
    store = Store.open(tmp_path / "store")
    place = store.checkpoints(KEY)
    path, record = make(place.scratch, 7)
    place.send(path, record, name := place.new_name(7), set())
    there = tmp_path / "store/checkpoints" / KEY / str(name)
    for entry in record.files:
        assert (there / entry.path).samefile(path / entry.path)


def test_the_newest_two_stay(store):
    place = store.checkpoints(KEY, fence=1)
    for step in (1, 2, 3, 10, 11):
        send(place, step)
    assert steps(place) == [11, 10]
    assert len(below(store)) == 2 * 3, "files of those that went are gone too"


def test_leftovers_of_cut_short_uploads_go_and_those_of_a_later_holder_stay(store):
    place = store.checkpoints(KEY, fence=2)
    left = [Name(fence, 5, new_id()) for fence in (1, 2, 3)]
    for name in left:
        store.objects.replace(f"checkpoints/{KEY}/{name}/model.safetensors", b"half")
    store.objects.replace(f"checkpoints/{KEY}/notes/by somebody", b"not ours")
    name = send(place, 6)
    assert {path.split("/")[2].removesuffix(".json") for path in below(store)} == {str(name), str(left[2]), "notes"}


@pytest.mark.parametrize("skew", [-300, 300])
def test_whoever_lost_the_lease_neither_commits_nor_deletes(store, skew):
    """The clocks of the two are five minutes apart, one way and the other."""
    stamp = time.strftime("%Y%m%dT%H%M%S000-00000000", time.gmtime(time.time() + skew))
    first = store.checkpoints(KEY, fence=taken(store))
    send(first, 100), send(first, 200)
    before = below(store)
    second = store.checkpoints(KEY, fence=taken(store))
    for action in (lambda: send(first, 300), lambda: first.prune(RUN) or send(first, 200)):
        with pytest.raises(FenceLost, match="number 2 has taken it over"):
            action()
    assert below(store) == before
    first.clear()
    assert below(store) == before
    send(second, 110, at=stamp)
    assert steps(second) == [110, 200], "the newest of the one before is the second newest"
    send(second, 120, at=stamp)
    assert steps(second) == [120, 110]


def test_a_lease_that_changes_hands_in_the_middle_of_an_upload(store):
    class Meanwhile(set):
        def add(self, path):
            super().add(path)
            if len(self) == 2:
                taken(store)

    place = store.checkpoints(KEY, fence=taken(store))
    path, record = make(place.scratch, 7)
    with pytest.raises(FenceLost):
        place.send(path, record, place.new_name(7), Meanwhile())
    assert steps(place) == []


def test_a_commit_that_slips_through_after_the_lease_was_lost_wins_over_nothing(store):
    """The moment between the look and the write cannot be closed: it is made harmless."""
    first = store.checkpoints(KEY, fence=taken(store))
    send(first, 100)
    path, record = make(first.scratch, 500)
    first.send(path, record, late := first.new_name(500), set())  # it looked, and was slow
    second = store.checkpoints(KEY, fence=taken(store))
    second.vouch(next(name for name in second.committed() if name.step == 100))  # it went on before that one was there
    mine = send(second, 110)
    assert second.committed()[0] == mine
    assert max([mine, late], key=lambda name: name.step) == late, "by the step alone the late one would win"
    assert steps(second) == [110, 100], "and it is gone"
    third = store.checkpoints(KEY, fence=taken(store))
    assert third.committed()[0] == mine


def test_a_store_that_was_copied_without_its_leases(store):
    """Fences from there are higher than any here: they must not win for ever."""
    send(store.checkpoints(KEY, fence=70), 500)
    place = store.checkpoints(KEY, fence=taken(store))
    assert steps(place) == [500]
    mine = send(place, 600)
    assert store.checkpoints(KEY, fence=taken(store)).committed()[0] == mine


def test_of_another_run_stays_and_one_that_nobody_can_use_goes(store):
    place = store.checkpoints(KEY, fence=1)
    foreign = send(place, 900, ANOTHER)
    damaged = send(place, 950)
    store.objects.replace(f"checkpoints/{KEY}/{damaged}.json", b"{")
    fresh = store.checkpoints(KEY, fence=1)
    send(fresh, 1), send(fresh, 2)
    assert steps(fresh) == [900, 2, 1]
    assert foreign in fresh.committed()


def encoded(record: CheckpointRecord, **changes) -> bytes:
    """A record with other fields, and a digest that fits: a forger's."""
    document = json.loads(record.to_bytes()) | changes
    del document["digest"]
    return schema.encode({**document, "digest": hashlib.sha256(schema.encode(document)).hexdigest()})


def one_file(path: str) -> list[dict[str, object]]:
    return [{"path": path, "size": 1, "sha256": "0" * 64}]


RECORDS = {
    "a bit flipped": lambda r: r.to_bytes().replace(b'"at": 7', b'"at": 3'),
    "cut short": lambda r: r.to_bytes()[:-40],
    "empty": lambda r: b"",
    "no object": lambda r: b"[1]",
    "another key": lambda r: encoded(r, key=OTHER),
    "another fence": lambda r: encoded(r, fence=5),
    "another step": lambda r: encoded(r, step=8),
    "a newer schema": lambda r: encoded(r, schema_version=99),
    "an older schema": lambda r: encoded(r, schema_version=1),
    "a path upwards": lambda r: encoded(r, files=one_file("../../secret")),
    "an absolute path": lambda r: encoded(r, files=one_file("/etc/passwd")),
    "a folder": lambda r: encoded(r, files=one_file("a/b")),
    "its own record": lambda r: encoded(r, files=one_file(RECORD)),
    "a name twice": lambda r: encoded(r, files=one_file("a") * 2),
    "a size below 0": lambda r: encoded(r, files=[{"path": "a", "size": -1, "sha256": "0" * 64}]),
    "no fingerprint": lambda r: encoded(r, fingerprint=None),
}


def test_no_record_is_believed(store):
    place = store.checkpoints(KEY, fence=1)
    path, record = make(place.scratch, 7)
    place.send(path, record, name := place.new_name(7), set())
    good = place.record(name)
    assert CheckpointRecord.from_bytes(encoded(good), "twin", key=KEY) == good, "what a forger leaves alone is read"
    for kind, spoil in RECORDS.items():
        store.objects.replace(f"checkpoints/{KEY}/{name}.json", spoil(good))
        with pytest.raises(DataError):
            pytest.fail(f"{kind} was believed: {place.record(name)}")


def test_mutated_records_end_in_our_errors(tmp_path):
    """Seeded; half of them with a digest that fits."""
    _, record = make(tmp_path, 7)
    honest, rng, refused = record.to_bytes(), random.Random(3), 0
    for turn in range(2000):
        data = mutated(honest, rng)
        if turn % 2:
            with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError, InputError):
                document = json.loads(data)
                document.pop("digest", None)
                data = json.dumps({**document, "digest": hashlib.sha256(schema.encode(document)).hexdigest()}).encode()
        try:
            read = CheckpointRecord.from_bytes(data, "mutated")
        except DataError:
            refused += 1
        else:
            assert all("/" not in entry.path for entry in read.files)
    assert refused > 1500


@pytest.mark.parametrize("kind", ["flipped", "short", "long", "missing"])
def test_no_file_is_believed(store, tmp_path, kind):
    place = store.checkpoints(KEY, fence=1)
    path, record = make(place.scratch, 7)
    place.send(path, record, name := place.new_name(7), set())
    where = f"checkpoints/{KEY}/{name}/model.safetensors"
    data = store.objects.read(where)
    store.objects.delete(where)
    spoilt = {"flipped": b"X" + data[1:], "short": data[:-1], "long": data + b"X"}.get(kind)
    if spoilt is not None:
        store.objects.replace(where, spoilt)
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(DataError, match=r"model\.safetensors"):
        place.fetch(name, place.record(name), into)
    assert not (into / RECORD).exists()


def test_a_link_in_the_store_is_not_followed(tmp_path):
    store = Store.open(tmp_path / "store")
    place = store.checkpoints(KEY, fence=1)
    name = send(place, 7)
    file = tmp_path / "store/checkpoints" / KEY / str(name) / "model.safetensors"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(DataError, match="link"):
        place.fetch(name, place.record(name), into)


class TestCollection:
    def collect(self, store: Store, **choices):
        return store.gc(wait_seconds=0, keep_runs=20, **{"min_age_seconds": 0, **choices}).checkpoints

    def test_those_of_a_committed_key_go_at_once(self, store):
        send(store.checkpoints(KEY), 7)
        attempt = store.attempt(KEY)
        (attempt.path / "a").write_bytes(b"1")
        attempt.commit(stage="s", kind="things")
        assert store.gc(dry_run=True).checkpoints == [KEY]
        assert below(store)
        assert self.collect(store, min_age_seconds=86_400) == [KEY]
        assert not below(store)

    def test_those_that_nobody_has_worked_at_for_long_go(self, store):
        send(store.checkpoints(KEY), 7)
        store.objects.replace(f"checkpoints/{OTHER}/{Name(1, 5, '20200101T000000000-00000000')}/model", b"half")
        assert self.collect(store, min_age_seconds=3600) == [OTHER]
        assert self.collect(store) == [KEY]
        assert not below(store)

    def test_live_ones_stay(self, store):
        send(store.checkpoints(KEY), 7)
        with store.lease(KEY):
            assert self.collect(store) == []
        run = store.runs.create({"nodes": [{"key": KEY}]})
        assert self.collect(store) == [], "a run that waits for its next try names it"
        store.objects.replace(f"runs/{run.id}/spec.json", b"{")
        assert self.collect(store) == [], "nobody can tell what it names"
        assert below(store)

    def test_a_lease_taken_during_the_sweep_saves_them(self, store, monkeypatch):
        send(store.checkpoints(KEY), 7)
        found, leases = checkpoints.keys, []

        def meanwhile(objects):
            yield from found(objects)
            leases.append(store.lease(KEY).acquire())

        monkeypatch.setattr("wfm.artifacts.checkpoints.keys", meanwhile)
        self.collect(store)
        leases[0].release()
        assert below(store)


def test_clear_leaves_nothing_and_never_fails(store, monkeypatch, caplog):
    place = store.checkpoints(KEY, fence=1)
    send(place, 7)
    place.clear()
    assert not below(store)
    assert not place.scratch.exists()
    send(store.checkpoints(KEY, fence=1), 8)

    def away(folder):
        raise TryAgain("the store is away")

    monkeypatch.setattr(place._objects, "names", lambda *_: away(""))
    place.clear()
    assert "stay until the next `wfm artifacts gc`: TryAgain: the store is away" in caplog.text


class Slow(Checkpoints):
    """A store that takes its time: each upload waits for the gate, or fails as often as it was told."""

    gate: threading.Event
    failures: int = 0

    def send(self, folder, record, name, sent, go_on=going_on):
        self.gate.wait(20)
        if self.failures:
            self.failures -= 1
            raise TryAgain("the store is away")
        super().send(folder, record, name, sent, go_on)


@pytest.fixture
def slow(tmp_path):
    store = Store.open(tmp_path / "store")
    place = Slow(store.objects, KEY, taken(store), store.scratch(KEY))
    place.gate = threading.Event()
    return place, Uploads(place, first_pause=0.01), store


def test_one_waits_and_the_newest_takes_its_place(slow, caplog):
    place, uploads, _ = slow
    for step in (1, 2, 3, 4):
        began = time.monotonic()
        uploads.offer(*make(place.scratch, step))
        assert time.monotonic() - began < 5, "the step goes on"
        if step == 1:
            until = time.monotonic() + 10
            while uploads._waiting is not None and time.monotonic() < until:
                time.sleep(0.01)
    assert len(uploads.using()) == 2
    assert not uploads.drain(0.05)
    assert uploads.safe is None
    place.gate.set()
    assert uploads.drain(20)
    assert (uploads.safe, uploads.replaced) == (4, 2)
    assert steps(place) == [4, 1]
    assert "step 3 is not sent (2 so far)" in caplog.text
    assert uploads.using() == set()


def test_a_store_that_is_away_is_asked_again(slow, caplog):
    place, uploads, _ = slow
    place.gate.set()
    place.failures = 3
    uploads.offer(*make(place.scratch, 1))
    assert uploads.drain(20)
    assert uploads.safe == 1
    assert caplog.text.count("TryAgain: the store is away") == 3


def test_failures_are_of_the_one_that_is_sent_now_and_none_are_deletions(slow, monkeypatch, caplog):
    """Before: a store that took every checkpoint and let none be deleted ended the training, as did one that was back."""
    place, uploads, _ = slow

    def refused(fingerprint):
        raise TryAgain("nothing may be deleted here")

    monkeypatch.setattr(place, "prune", refused)
    place.gate.set()
    uploads.offer(*make(place.scratch, 1))
    until = time.monotonic() + 20
    while caplog.text.count("nothing may be deleted here") < 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert (uploads.safe, uploads.failing, uploads.busy) == (1, (0.0, ""), False)
    assert "step 1 is in the store, older ones could not be deleted" in caplog.text
    sent = place.send

    def away_for_the_second(folder, record, *more):
        if record.step == 2:
            raise TryAgain("the store is away")
        sent(folder, record, *more)

    monkeypatch.setattr(place, "send", away_for_the_second)
    uploads.offer(*make(place.scratch, 2))
    while not uploads.failing[0] and time.monotonic() < until:
        time.sleep(0.01)
    assert "the store is away" in uploads.failing[1]
    place.gate.clear()  # for the third it is back, and slow
    uploads.offer(*make(place.scratch, 3))
    while uploads.failing[0] and time.monotonic() < until:
        time.sleep(0.01)
    assert (uploads.safe, uploads.failing, uploads.busy) == (1, (0.0, ""), True)
    monkeypatch.undo()
    place.gate.set()
    assert uploads.drain(20)
    assert uploads.safe == 3


def test_whoever_waits_at_the_end_does_not_sit_out_the_pause_after_a_failure(slow):
    """Before: SIGTERM's 15 s could pass in a pause of 60 s, while the store was back."""
    place, _, _ = slow
    uploads = Uploads(place, first_pause=600.0)
    place.gate.set()
    place.failures = 1
    uploads.offer(*make(place.scratch, 1))
    until = time.monotonic() + 20
    while place.failures and time.monotonic() < until:
        time.sleep(0.01)
    assert uploads.drain(20)
    assert steps(place) == [1]


def test_a_newer_one_takes_the_place_of_one_that_fails(slow):
    place, uploads, _ = slow
    place.failures = 10**6
    place.gate.set()
    uploads.offer(*make(place.scratch, 1))
    assert not uploads.drain(0.2)
    uploads.offer(*make(place.scratch, 2))
    place.failures = 0
    assert uploads.drain(20)
    assert uploads.safe == 2
    assert steps(place)[0] == 2


class Piecewise(Checkpoints):
    """A store on its way for as long as the gate is shut, which leaves a piece there; notes the steps."""

    gate: threading.Event
    begun: list[int]

    def send(self, folder, record, name, sent, go_on=going_on):
        self.begun.append(record.step)
        self._objects.replace(f"checkpoints/{KEY}/{name}/model.safetensors", b"half")
        while record.step == 1 and not self.gate.wait(0.01):
            go_on()
        super().send(folder, record, name, sent, go_on)


@pytest.mark.parametrize("urgent", [True, False])
def test_one_that_is_urgent_cuts_an_older_one_short(store, caplog, urgent):
    """A stop brings it: the seconds that are left are for the newest. The twin that is not urgent comes too late."""
    place = Piecewise(store.objects, KEY, taken(store), store.scratch(KEY))
    place.gate, place.begun = threading.Event(), []
    uploads = Uploads(place)
    uploads.offer(*make(place.scratch, 1))
    until = time.monotonic() + 20
    while not place.begun and time.monotonic() < until:
        time.sleep(0.01)
    uploads.offer(*make(place.scratch, 2), urgent=urgent)
    assert uploads.drain(20 if urgent else 0.5) == urgent
    assert steps(place) == ([2] if urgent else []), "never one of which some is missing"
    assert ("that of step 1 is not sent" in caplog.text) == urgent
    place.gate.set()
    assert uploads.drain(20)
    if urgent:
        assert place.begun == [1, 2]
        assert {path.split("/")[2].removesuffix(".json") for path in below(store)} == {str(place.committed()[0])}
        assert uploads.using() == set()


def test_one_that_waits_already_becomes_urgent(store):
    """The step at which a stop comes was saved in its turn a moment before, while an older one was on its way."""
    place = Piecewise(store.objects, KEY, taken(store), store.scratch(KEY))
    place.gate, place.begun = threading.Event(), []
    uploads, second = Uploads(place), make(place.scratch, 2)
    uploads.offer(*make(place.scratch, 1))
    until = time.monotonic() + 20
    while not place.begun and time.monotonic() < until:
        time.sleep(0.01)
    uploads.offer(*second)
    assert not uploads.drain(0.2)
    uploads.offer(*second, urgent=True)
    assert uploads.drain(20)
    assert (place.begun, steps(place), uploads.replaced) == ([1, 2], [2], 1)


def test_an_upload_is_cut_between_its_pieces_and_nothing_is_there(store, tmp_path):
    big, pieces = tmp_path / "big", []
    big.write_bytes(b"x" * (3 * 8 * 2**20))

    def cut():
        pieces.append(1)
        raise TryAgain("enough")

    with pytest.raises(TryAgain, match="enough"):
        store.objects.upload(big, "checkpoints/big", cut)
    assert pieces
    assert not list(store.objects.walk("checkpoints"))
    store.objects.upload(big, "checkpoints/big")
    assert [stat.size for stat in store.objects.walk("checkpoints")] == [big.stat().st_size]


def test_after_the_lease_is_lost_nothing_is_sent(slow, caplog):
    place, uploads, store = slow
    taken(store)
    place.gate.set()
    uploads.offer(*make(place.scratch, 1))
    assert not uploads.drain(20)
    assert "has taken it over" in uploads.lost
    uploads.offer(*make(place.scratch, 2))
    assert uploads.using() == set()
    assert steps(place) == []
