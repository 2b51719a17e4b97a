import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from wfm.artifacts import Store
from wfm.artifacts.lease import Holder, _machine, held, is_gone, read_holder, start_of
from wfm.errors import InputError, TryAgain

KEY = "a" * 64


def holder(**changes):
    base = Holder(1, "t", _machine(), "h", os.getpid(), start_of(os.getpid()), "now", 30.0, ())
    return replace(base, **changes)


def test_this_process_is_here():
    assert _machine()
    assert not is_gone(holder())


def test_an_ended_process_is_gone_even_before_it_is_reaped():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    living = holder(pid=process.pid, pid_start=start_of(process.pid))
    assert not is_gone(living)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert is_gone(living)
    process.communicate()
    assert is_gone(living)


def test_another_process_with_the_same_number_is_not_the_holder():
    assert is_gone(holder(pid_start="1"))


def test_of_other_machines_nothing_is_known():
    assert not is_gone(holder(machine="other", pid=2**30))
    assert not is_gone(holder(machine="", pid=2**30))


def test_a_job_takes_its_own_lease_up_at_once_and_no_other_does(tmp_path):
    store = Store.open(tmp_path)
    first = store.lease(KEY, owner="job-1").acquire()
    for owner in ("job-2", ""):
        with pytest.raises(TryAgain, match=f"another process works on {KEY[:12]}"):
            store.lease(KEY, owner=owner).acquire(wait_seconds=0.0)
    with store.lease(KEY, owner="job-1").acquire(wait_seconds=0.0) as again:
        assert (again.number, again.adopted) == (2, False)
        assert read_holder(store.objects, f"leases/{KEY}", 2).owner == "job-1"
    first.release()


def test_what_is_no_job_s_is_not_taken_from_another_one(tmp_path):
    store = Store.open(tmp_path)
    with store.lease(KEY), pytest.raises(TryAgain, match="another process works"):
        store.lease(KEY).acquire(wait_seconds=0.0)


def test_a_lease_from_before_there_were_owners_is_read(tmp_path):
    store = Store.open(tmp_path)
    with store.lease(KEY) as lease:
        path = f"leases/{KEY}/{lease.number:08d}.json"
        record = json.loads(store.objects.read(path))
        del record["owner"]
        store.objects.replace(path, json.dumps(record).encode())
        assert read_holder(store.objects, f"leases/{KEY}", lease.number).owner == ""


def test_held_leases_are_listed(tmp_path):
    store = Store.open(tmp_path)
    with store.lease(KEY, inputs=("b" * 64,)) as lease:
        found = held(store.objects)
        assert list(found) == [KEY]
        assert (found[KEY].number, found[KEY].inputs) == (lease.number, ("b" * 64,))
    assert held(store.objects) == {}


def test_the_package_opens_its_rooms_when_asked():
    code = "import sys, wfm.artifacts; assert 'wfm.artifacts.store' not in sys.modules; from wfm.artifacts import Store; Store"
    subprocess.run(
        [sys.executable, "-c", code + "; assert not {'torch', 'fsspec', 'pyarrow'} & set(sys.modules)"], check=True
    )


def elsewhere(store, ttl):
    """A lease that another machine holds."""
    lease = store.lease(KEY, ttl_seconds=ttl)
    lease.acquire()
    path = f"leases/{KEY}/{lease.number:08d}.json"
    record = json.loads(store.objects.read(path))
    store.objects.replace(path, json.dumps({**record, "machine": "other"}).encode())
    return lease


def test_a_silent_lease_of_another_machine_is_over_for_who_has_the_patience(tmp_path):
    store = Store.open(tmp_path)
    lease = elsewhere(store, 0.4)
    assert list(held(store.objects, patience=1.0)) == [KEY], "it beats"
    lease._stop.set()
    lease._thread.join()
    assert list(held(store.objects)) == [KEY]
    assert list(held(store.objects, patience=0.3)) == [KEY], "not watched for long enough"
    assert held(store.objects, patience=0.5) == {}


def test_the_environment_says_how_long_a_lease_may_be_silent(tmp_path, monkeypatch):
    store = Store.open(tmp_path)
    assert store.lease(KEY).ttl_seconds == 30
    monkeypatch.setenv("WFM_LEASE_SECONDS", "2.5")
    assert store.lease(KEY).ttl_seconds == 2.5
    assert store.lease(KEY, 7).ttl_seconds == 7
    for wrong in ("0", "-1", "nan", "inf", "soon"):
        monkeypatch.setenv("WFM_LEASE_SECONDS", wrong)
        with pytest.raises(InputError, match="WFM_LEASE_SECONDS is"):
            store.lease(KEY)
