"""The store when things go wrong: an object store that fails, hangs or drops replies, a full disk, races and killed processes.

S3 is moto's server behind a small HTTP proxy that spoils the requests a test picks (`spoiling_proxy`).
"""

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.faults.spoiling_proxy import each_first_time
from wfm.artifacts import Store
from wfm.errors import InputError, TryAgain

KEY, OTHER = "a" * 64, "b" * 64


def write(attempt, **files):
    for name, data in files.items():
        (attempt.path / name).write_bytes(data)
    return attempt


class TestAnObjectStoreThatFails:
    @pytest.mark.parametrize("fault", ["503", "409", "drop_request", "drop_reply"])
    def test_every_first_request_fails_and_all_is_well(self, proxy, fault):
        store = proxy.open()
        proxy.plan = staticmethod(each_first_time(fault))
        attempt = write(store.attempt(KEY), a=b"one", b=b"two")
        made = attempt.commit(stage="s", kind="things")
        assert made.manifest.attempt == attempt.id
        assert store.promote("things", "n", KEY) == 1
        assert store.resolve("things/n") == KEY
        run = store.runs.create({})
        assert run.append_attempt("n") == 1
        assert run.write_outcome("n", 1, {"outcome": "done"})
        with store.lease(KEY, ttl_seconds=10) as lease:
            assert lease.number == 1
        fresh = proxy.open()
        assert [p.number for p in fresh.names.history("things", "n")] == [1]
        assert [a.number for a in fresh.runs.open(run.id).read_outcomes()] == [1]
        assert fresh.verify(KEY).ok

    def test_a_hanging_request_is_given_up_and_asked_again(self, proxy):
        store = proxy.open()
        manifest = f"artifacts/{KEY}/manifest.json"
        plan = each_first_time("hang")
        proxy.plan = staticmethod(lambda method, path: plan(method, path) if path.endswith(manifest) else None)
        attempt = write(store.attempt(KEY), a=b"one")
        assert attempt.commit(stage="s", kind="k").manifest.attempt == attempt.id
        assert store.has(KEY)

    def test_a_lost_reply_to_the_commit_is_not_taken_for_a_rival(self, proxy):
        store = proxy.open()
        dropped = []

        def plan(method, path):
            if method == "PUT" and path.endswith("manifest.json") and len(dropped) < 2:
                dropped.append(path)
                return "drop_reply"
            return None

        proxy.plan = staticmethod(plan)
        attempt = write(store.attempt(KEY), a=b"mine")
        made = attempt.commit(stage="s", kind="k")
        assert len(dropped) == 2
        assert made.manifest.attempt == attempt.id
        assert proxy.open().artifact(KEY).open("a").read() == b"mine"

    def test_a_commit_that_went_through_unheard_is_recognised_by_the_next_call(self, proxy):
        store = proxy.open(retry_seconds=0.5)
        attempt = write(store.attempt(KEY), a=b"mine")
        faults = {"PUT": "drop_reply", "GET": "503"}
        proxy.plan = staticmethod(lambda method, path: faults.get(method) if path.endswith("manifest.json") else None)
        with pytest.raises(TryAgain):
            attempt.commit(stage="s", kind="k", timings={"all": 1.0})
        proxy.plan = staticmethod(lambda method, path: None)
        assert store.has(KEY)
        made = attempt.commit(stage="s", kind="k", timings={"all": 2.0})
        assert (made.manifest.attempt, made.manifest.timings) == (attempt.id, {"all": 1.0})
        attempt.discard()
        assert proxy.open().verify(KEY).ok

    def test_a_rival_is_not_taken_for_a_lost_reply(self, proxy):
        store = proxy.open()
        first, second = write(store.attempt(KEY), a=b"first"), write(store.attempt(KEY), a=b"second")
        first.commit(stage="s", kind="k")
        plan = each_first_time("drop_reply")
        proxy.plan = staticmethod(lambda method, path: plan(method, path) if method == "PUT" else None)
        assert second.commit(stage="s", kind="k").manifest.attempt == first.id
        assert store.artifact(KEY).open("a").read() == b"first"

    @pytest.mark.parametrize("fault", ["500", "hang", "drop_reply"])
    def test_one_that_never_recovers_is_given_up_in_time(self, proxy, fault):
        store = proxy.open(retry_seconds=1.0)
        attempt = write(store.attempt(KEY), a=b"one")
        proxy.plan = staticmethod(lambda method, path: fault)
        begun = time.monotonic()
        with pytest.raises(TryAgain, match="kept failing"):
            attempt.commit(stage="s", kind="k")
        with pytest.raises(TryAgain):
            store.has(KEY)
        assert time.monotonic() - begun < 10
        proxy.plan = staticmethod(lambda method, path: None)
        assert not store.has(KEY)
        assert attempt.commit(stage="s", kind="k").open("a").read() == b"one"  # the same attempt may be committed later

    def test_files_without_a_manifest_are_not_an_artifact(self, proxy):
        store = proxy.open(retry_seconds=0.5)
        spoil = {"on": True}
        proxy.plan = staticmethod(
            lambda method, path: "503" if spoil["on"] and "manifest" in path and method == "PUT" else None
        )
        dead = write(store.attempt(KEY), a=b"half")
        with pytest.raises(TryAgain):
            dead.commit(stage="s", kind="k")
        assert [s.path for s in store.objects.walk(f"artifacts/{KEY}")] == [f"artifacts/{KEY}/attempts/{dead.id}/a"]
        assert not store.has(KEY)
        spoil["on"] = False
        write(store.attempt(KEY), a=b"whole").commit(stage="s", kind="k")
        assert store.artifact(KEY).open("a").read() == b"whole"
        assert store.gc(wait_seconds=0, min_age_seconds=0, keep_runs=0, dry_run=True).attempts == [
            f"artifacts/{KEY}/attempts/{dead.id}"
        ]

    def test_what_a_killed_attempt_left_in_the_cache_alone_is_collected(self, proxy):
        """Before: no listing of the bucket names it, so it filled the disk of each machine for ever."""
        store = proxy.open()
        made = write(store.attempt(KEY), a=b"kept").commit(stage="s", kind="k")
        store.promote("k", "n", KEY)
        now = {"wait_seconds": 0, "min_age_seconds": 0, "keep_runs": 0}
        dead = [write(store.attempt(KEY), a=b"half"), write(store.part_attempt(OTHER), a=b"half")]
        with store.lease(KEY, ttl_seconds=10):
            assert store.gc(**now, dry_run=True).attempts == [], "somebody works on it"
        assert store.gc(**{**now, "min_age_seconds": 60}).attempts == []
        names = [f"artifacts/{KEY}/attempts/{dead[0].id}", f"parts/{OTHER}/attempts/{dead[1].id}"]
        assert store.gc(**now, dry_run=True).attempts == names
        assert all(each.path.exists() for each in dead)
        assert store.gc(**now).attempts == names
        assert not any(each.path.exists() for each in dead)
        assert (store.cache / f"artifacts/{KEY}/attempts/{made.manifest.attempt}/a").read_bytes() == b"kept"
        assert store.gc(**now).attempts == []

    def test_a_body_that_breaks_off_is_read_again(self, proxy, tmp_path, monkeypatch):
        data = os.urandom(300_000)
        write(proxy.open().attempt(KEY), a=data).commit(stage="s", kind="k")
        monkeypatch.setenv("WFM_CACHE", str(tmp_path / "empty-cache"))
        fresh = proxy.open()
        plan = each_first_time("cut")
        proxy.plan = staticmethod(lambda method, path: plan(method, path) if method == "GET" else None)
        assert fresh.artifact(KEY).fetch("a").read_bytes() == data
        assert sum(count > 1 for count in plan.seen.values()) >= 2
        assert list((tmp_path / "empty-cache").rglob("*.tmp")) == []

    def test_a_storm_of_random_faults(self, proxy):
        store = proxy.open(retry_seconds=60)
        dice = random.Random(20261122)
        faults = ["500", "503", "drop_request", "drop_reply", "cut", "409"]
        proxy.plan = staticmethod(lambda method, path: dice.choice(faults) if dice.random() < 0.3 else None)
        keys = [f"{number:064x}" for number in range(4)]
        attempts = {}
        for key in keys:
            with store.lease(key, ttl_seconds=60):
                attempt = attempts[key] = write(store.attempt(key), a=key.encode(), b=b"b" * 1000)
                attempt.commit(stage="s", kind="things")
            store.promote("things", "n", key)
        proxy.plan = staticmethod(lambda method, path: None)
        fresh = proxy.open()
        assert list(fresh.committed_keys()) == keys
        for key in keys:
            assert fresh.artifact(key).manifest.attempt == attempts[key].id
            assert fresh.verify(key).ok
        assert [p.key for p in fresh.names.history("things", "n")] == keys[::-1]
        assert [p.number for p in fresh.names.history("things", "n")] == [4, 3, 2, 1]

    def test_a_lease_outlives_a_short_failure_and_not_a_long_one(self, proxy):
        store = proxy.open(retry_seconds=0.2)
        spoil = {"on": False}
        proxy.plan = staticmethod(lambda method, path: "503" if spoil["on"] else None)
        lease = store.lease(KEY, ttl_seconds=1.6).acquire()
        spoil["on"] = True
        time.sleep(0.6)
        lease.check()
        spoil["on"] = False
        time.sleep(1.6)
        lease.check()
        spoil["on"] = True
        time.sleep(2.1)
        with pytest.raises(TryAgain, match="could not be renewed"):
            lease.check()
        spoil["on"] = False
        lease.release()


def fill_up(file):
    """Write until the disk has not a byte left."""
    with open(file, "wb", buffering=0) as writer, contextlib.suppress(OSError):
        while True:
            writer.write(b"0" * 4096)


class TestAFullDisk:
    @pytest.mark.parametrize("call", ["write", "fsync", "link"])
    def test_nothing_is_half_visible_and_it_can_be_tried_again(self, tmp_path, monkeypatch, call):
        store = Store.open(tmp_path / "store")
        attempt = write(store.attempt(KEY), a=b"one")
        real = getattr(os, call)
        full = {"on": True}

        def fail(*args, **kwargs):
            if full["on"]:
                if call == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        monkeypatch.setattr(f"wfm.artifacts.atomic.os.{call}", fail)
        with pytest.raises(TryAgain, match="no space left"):
            attempt.commit(stage="s", kind="k")
        assert not store.has(KEY)
        assert [p.name for p in (tmp_path / "store" / "artifacts" / KEY).iterdir()] == ["attempts"]
        full["on"] = False
        assert attempt.commit(stage="s", kind="k").open("a").read() == b"one"

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
    def test_on_a_disk_that_is_really_full(self, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True
        ).returncode:
            pytest.skip("mounting is not allowed here")
        try:
            store = Store.open(disk / "store")
            attempt = write(store.attempt(KEY), a=b"x" * 60_000)
            filler = disk / "filler"
            fill_up(filler)
            with pytest.raises(TryAgain, match="no space left"):
                attempt.commit(stage="s", kind="k", extra={"note": "n" * 8000})
            with pytest.raises(TryAgain, match="no space left"):
                store.runs.create({"note": "n" * 8000})
            assert not store.has(KEY)
            assert [run.id for run in store.runs.list() if run.names()] == []
            filler.unlink()
            assert attempt.commit(stage="s", kind="k", extra={"note": "n" * 8000}).fetch("a").stat().st_size == 60_000
            assert list(disk.rglob("*.tmp")) == []
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    def test_a_copy_out_leaves_no_half_file(self, tmp_path, monkeypatch):
        store = Store.open(tmp_path / "store")
        write(store.attempt(KEY), **{"t.json": b"{}" * 1000}).commit(stage="s", kind="k")

        def fail(source, target):
            Path(target).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("wfm.artifacts.copying.shutil.copyfile", fail)
        with pytest.raises(TryAgain, match="no space left"):
            store.pull(KEY, tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []

    def test_a_read_only_store_is_wrong_input(self, tmp_path, monkeypatch):
        def refuse(*args, **kwargs):
            raise OSError(errno.EROFS, "Read-only file system")

        store = Store.open(tmp_path / "store")
        monkeypatch.setattr("wfm.artifacts.atomic.os.open", refuse)
        with pytest.raises(InputError, match="Read-only"):
            store.runs.create({})

    def test_a_run_that_could_not_be_written_down_is_not_listed(self, tmp_path, monkeypatch):
        """Before: its empty folder stayed, and `wfm runs` and bare `wfm rerun` ended with "has no spec" from then on."""
        store = Store.open(tmp_path / "store")
        good = store.runs.create({"pipeline": "p"})

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("wfm.artifacts.atomic.os.write", full)
            with pytest.raises(TryAgain, match="no space left"):
                store.runs.create({"pipeline": "p"})
        assert [run.id for run in store.runs.list()] == [good.id]
        assert [path.name for path in (tmp_path / "store" / "runs").iterdir()] == [good.id]


NOW = {"wait_seconds": 0, "min_age_seconds": 0, "keep_runs": 0}


class TestCollectionWhereNothingCanBeWritten:
    """A full disk is what `gc` is for; one that may only be read is told in one sentence, and a dry run works."""

    def full(self, monkeypatch):
        """Files may be made, and links, and not one byte be written: a disk without a free block."""

        def write(handle, data):
            if len(data):
                raise OSError(errno.ENOSPC, "No space left on device")
            return 0

        monkeypatch.setattr("wfm.artifacts.atomic.os.write", write)

    def test_a_full_disk_is_made_free(self, tmp_path, monkeypatch):
        """Before: TryAgain, "free some space (`wfm artifacts gc`)"."""
        store = Store.open(tmp_path / "store")
        for key in (KEY, OTHER):
            write(store.attempt(key), a=b"x" * 1000).commit(stage="s", kind="k")
        store.promote("k", "n", OTHER)
        half = write(store.attempt(KEY), a=b"half")
        (store.scratch(OTHER) / "checkpoint").write_bytes(b"x")
        self.full(monkeypatch)
        report = store.gc(**NOW)
        assert ([dead.key for dead in report.dead], len(report.attempts), report.scratch) == ([KEY], 1, [OTHER])
        assert not half.path.exists()
        assert [path.name for path in (tmp_path / "store" / "artifacts" / KEY).rglob("*") if path.is_file()] == [
            "tombstone-1.json"
        ]
        assert store.has(OTHER)
        monkeypatch.undo()
        assert write(store.attempt(KEY), a=b"y").commit(stage="s", kind="k").manifest.generation == 2

    def test_what_is_wanted_again_is_spared_on_a_full_disk_too(self, tmp_path, monkeypatch):
        store = Store.open(tmp_path / "store")
        write(store.attempt(KEY), a=b"1").commit(stage="s", kind="k")
        seen = []

        def meanwhile(_):
            monkeypatch.undo()
            seen.append(store.has(KEY))
            store.names.promote("k", "n", "latest", KEY)

        self.full(monkeypatch)
        monkeypatch.setattr("wfm.artifacts.collect._pause", meanwhile)
        assert store.gc(**{**NOW, "wait_seconds": 1}).dead == []
        assert (seen, store.has(KEY)) == ([False], True)

    def test_one_that_was_killed_in_its_wait_is_finished_by_the_next(self, tmp_path, monkeypatch):
        store = Store.open(tmp_path / "store")
        write(store.attempt(KEY), a=b"1").commit(stage="s", kind="k")

        def killed(_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            self.full(patch)
            patch.setattr("wfm.artifacts.collect._pause", killed)
            with pytest.raises(KeyboardInterrupt):
                store.gc(**{**NOW, "wait_seconds": 1})
        assert not store.has(KEY)
        report = store.gc(**{**NOW, "min_age_seconds": 3600})
        assert ([dead.key for dead in report.dead], report.unread) == ([KEY], [])

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
    def test_a_disk_that_is_really_full_is_made_free(self, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], capture_output=True
        ).returncode:
            pytest.skip("mounting is not allowed here")
        try:
            store = Store.open(disk / "store")
            for number in range(3):
                write(store.attempt(f"{number:064x}"), a=b"x" * 60_000).commit(stage="s", kind="k")
            fill_up(disk / "filler")
            with pytest.raises(TryAgain, match="no space left"):
                store.runs.create({})
            report = store.gc(**NOW)
            assert len(report.dead) == 3
            assert store.runs.create({"note": "n" * 100_000})
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    def test_a_store_that_may_only_be_read(self, tmp_path, monkeypatch):
        """Before: gc's PermissionError was "a bug of ours", and what it could not delete was said to be gone."""
        store = Store.open(tmp_path / "store")
        write(store.attempt(KEY), a=b"1").commit(stage="s", kind="k")
        half = store.attempt(OTHER)
        for _ in range(2):
            with store.lease(KEY, ttl_seconds=5):
                pass

        def refuse(*_, **__):
            raise OSError(errno.EROFS, "Read-only file system")

        for name in ("open", "unlink", "rmdir", "link", "replace", "mkdir"):
            real = getattr(os, name)
            reads = name == "open"

            def guarded(*args, real=real, reads=reads, **kwargs):
                flags = args[1] if len(args) > 1 else kwargs.get("flags", 0)
                if reads and not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                    return real(*args, **kwargs)
                return refuse()

            monkeypatch.setattr(os, name, guarded)
        for choices in (NOW, {**NOW, "min_age_seconds": 3600}):  # with something to delete, and leases alone to trim
            with pytest.raises(InputError, match="Read-only file system"):
                store.gc(**choices)
            assert store.gc(**choices, dry_run=True) is not None
        with pytest.raises(InputError, match="Read-only file system"):
            store.clear_scratch(KEY) or store.objects.delete_tree(f"artifacts/{OTHER}")
        monkeypatch.undo()
        assert half.path.exists()


RACER = textwrap.dedent(
    """
    import json, os, sys, time
    from pathlib import Path
    from wfm.artifacts import Store

    what, url, start, me, count = sys.argv[1:]
    store = Store.open(url)
    keys = [f"{number:064x}" for number in range(int(count))]
    attempts = {}
    if what == "commit":
        for key in keys:
            attempts[key] = store.attempt(key)
            (attempts[key].path / "who").write_text(me)
    Path(start, me).touch()
    while len(os.listdir(start)) < 2:
        time.sleep(0.001)
    said = {}
    for key in keys:
        if what == "commit":
            artifact = attempts[key].commit(stage="s", kind="k")
            said[key] = [attempts[key].id, artifact.manifest.attempt, artifact.open("who").read().decode()]
        else:
            with store.lease(key, ttl_seconds=20) as lease:
                begun = time.time()
                worked = not store.has(key)
                if worked:
                    time.sleep(0.02)
                    attempt = store.attempt(key)
                    (attempt.path / "who").write_text(me)
                    attempt.commit(stage="s", kind="k", fence=lease.number)
                said[key] = [worked, lease.number, begun, time.time()]
    print(json.dumps(said))
    """
)


def race(what, url, tmp_path, count, environment=None):
    """Two processes that start together; what each said."""
    start = tmp_path / f"start-{what}"
    start.mkdir()
    command = [sys.executable, "-c", RACER, what, url, str(start)]
    env = {**os.environ, **(environment or {})}
    racers = [
        subprocess.Popen([*command, name, str(count)], stdout=subprocess.PIPE, env=env, cwd=Path(__file__).parents[2])
        for name in ("one", "two")
    ]
    said = []
    for racer in racers:
        output, _ = racer.communicate(timeout=120)
        assert racer.returncode == 0
        said.append(json.loads(output))
    return said


@pytest.fixture(params=["file", "s3"])
def raced(request, tmp_path):
    """(url, environment) of a store that several processes can open."""
    if request.param == "file":
        return f"file://{tmp_path}/store", {}
    proxy = request.getfixturevalue("proxy")
    keys = {"AWS_ENDPOINT_URL": proxy.endpoint, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "secret"}
    return proxy.url, {**keys, "AWS_DEFAULT_REGION": "us-east-1"}


class TestRaces:
    def test_two_processes_commit_the_same_keys(self, raced, tmp_path):
        url, environment = raced
        one, two = race("commit", url, tmp_path, 8, environment)
        for key in one:
            assert one[key][1:] == two[key][1:]  # both were given the same artifact
            assert one[key][1] in (one[key][0], two[key][0])  # made by one of them

    def test_two_processes_do_each_piece_of_work_once(self, raced, tmp_path):
        url, environment = raced
        one, two = race("lease", url, tmp_path, 5, environment)
        for key in one:
            (worked_1, number_1, begun_1, ended_1), (worked_2, number_2, begun_2, ended_2) = one[key], two[key]
            assert worked_1 + worked_2 == 1
            assert {number_1, number_2} == {1, 2}
            assert ended_1 <= begun_2 or ended_2 <= begun_1  # never both at once


HOLDER = textwrap.dedent(
    """
    import sys, time
    from wfm.artifacts import Store

    lease = Store.open(sys.argv[1]).lease(sys.argv[2], ttl_seconds=float(sys.argv[3])).acquire()
    print(lease.number, flush=True)
    time.sleep(600)
    """
)


@pytest.fixture
def holder(raced, tmp_path):
    """A process that holds the lease of KEY (ttl 60 s)."""
    url, environment = raced
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url, KEY, "60"],
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout.readline() == b"1\n"
    yield process
    process.kill()
    process.wait()


class TestAKilledHolder:
    def test_its_lease_is_taken_over_at_once_on_the_same_machine(self, raced, holder, monkeypatch):
        url, environment = raced
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        store = Store.open(url)
        with pytest.raises(TryAgain, match=f"process {holder.pid}"):
            store.lease(KEY, ttl_seconds=60).acquire(wait_seconds=0.3)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        begun = time.monotonic()
        with store.lease(KEY, ttl_seconds=60).acquire(wait_seconds=30) as lease:
            assert (lease.number, lease.adopted) == (2, True)
        assert time.monotonic() - begun < 5  # far less than its 60 s

    def test_the_scratch_of_the_dead_is_found_and_its_attempt_is_not_seen(self, tmp_path):
        script = (
            "import os, signal, sys; from wfm.artifacts import Store; s = Store.open(sys.argv[1]); a = s.attempt(sys.argv[2]);"
            "(a.path / 'half').write_bytes(b'half'); (s.scratch(sys.argv[2]) / 'step-7').write_bytes(b'weights');"
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "store"), KEY]
        killed = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
        assert killed.returncode == -signal.SIGKILL
        store = Store.open(tmp_path / "store")
        assert not store.has(KEY)
        assert (store.scratch(KEY) / "step-7").read_bytes() == b"weights"
        assert [f.path for f in write(store.attempt(KEY), a=b"1").commit(stage="s", kind="k").files()] == ["a"]
