"""What killed writers leave is collected, and nothing else is."""

import os
import time

from tests.wfm.artifacts.test_lease import KEY
from wfm.artifacts import Store
from wfm.artifacts.address import new_id

OLD = time.time() - 7200


def leave(path, when=OLD):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    os.utime(path, (when, when))
    return path


def test_old_nameless_files_go_and_young_and_foreign_ones_stay(tmp_path):
    store = Store.open(tmp_path)
    name = ".0123456789abcdef.tmp"
    gone = [
        leave(tmp_path / folder / name)
        for folder in (f"artifacts/{KEY}", f"leases/{KEY}", "runs/r/nodes/n/attempts/0001")
    ]
    own = leave(tmp_path / f"artifacts/{KEY}/attempts/{new_id()}/{name}")
    stay = [
        own,  # a stage's own file, which goes with its attempt
        leave(tmp_path / f"parts/{KEY}/{name}", time.time() - 60),
        leave(tmp_path / f"artifacts/{KEY}/.notes.tmp"),
    ]
    assert store.gc(dry_run=True, min_age_seconds=0.0).nameless == sorted(gone)
    assert all(path.exists() for path in gone)
    store.gc(min_age_seconds=86_400.0)
    assert all(path.exists() for path in gone), "younger than a day"
    store.gc(wait_seconds=0.0, min_age_seconds=3600.0)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in stay)
