"""What a policy keeps, what goes by it, and that the store says afterwards what went and why."""

import json
import os
import time
from pathlib import Path

import pytest

from wfm.artifacts import Store, collect, retention
from wfm.artifacts.names import Seen
from wfm.artifacts.retention import Policy, collections, read_policy
from wfm.errors import ConfigError, InputError, TryAgain

LATEST, OLDER, CANDIDATE, LOOSE = ("1" * 64, "2" * 64, "3" * 64, "4" * 64)
ALL = {LATEST, OLDER, CANDIDATE, LOOSE}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two promotions of a name, a candidate of it, and a commit that nothing needs."""
    store = Store.open(tmp_path / "store", {"fsync": False})
    for key in sorted(ALL):
        with store.attempt(key) as attempt:
            (attempt.path / "a.bin").write_bytes(b"a" * 100)
            attempt.commit(stage="publish_model", kind="model")
    for key in (OLDER, LATEST):
        store.promote("model", "m", key)
    store.promote_through("model", "m", CANDIDATE, lambda latest: Seen(False, latest.key if latest else ""))
    return store


def gone(store: Store, **policy: object) -> set[str]:
    """Which of them go by a policy."""
    choices = Policy.parse({"keep_days": 0.0, "wait_seconds": 0.0, "keep_runs": 0, **policy}).choices()
    store.gc(by="a clock", **choices)
    return {key for key in ALL if not store.has(key)}


def test_what_nothing_needs_goes_and_candidates_live_shorter(store: Store) -> None:
    assert gone(store) == {LOOSE}
    assert gone(store, keep_candidates_days=0.5) == {LOOSE}, "it is younger"
    path = store.objects.local_path("refs/model/m/candidate/00000001.json")
    assert path is not None
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "created_at": "2026-01-01T00:00:00.000000Z"}))
    assert gone(store, keep_candidates_days=0.5) == {LOOSE, CANDIDATE}
    assert gone(store, keep_promotions=1) == {LOOSE, CANDIDATE, OLDER}
    assert store.resolve("model/m") == LATEST


def test_no_candidates_may_be_kept_at_all(store: Store) -> None:
    assert gone(store, keep_candidates=0) == {LOOSE, CANDIDATE}


def test_what_is_young_stays(store: Store) -> None:
    assert gone(store, keep_days=1.0, keep_candidates=0, keep_promotions=1) == set()
    assert list(collections(store.objects)) == [], "nothing went, so nothing is written down"


def test_the_record_says_what_went_why_and_by_which_policy(store: Store) -> None:
    store.gc(dry_run=True, min_age_seconds=0.0, wait_seconds=0.0)
    assert list(collections(store.objects)) == []
    gone(store)
    (record,) = collections(store.objects)
    assert [(one.area, one.key, one.bytes) for one in record.gone] == [("artifacts", LOOSE, 100)]
    assert record.gone[0].reason == "no name, run or lease needs it"
    assert record.by == "a clock"
    assert record.policy == Policy(keep_days=0.0, wait_seconds=0.0, keep_runs=0).resolved()


def test_it_is_written_before_anything_goes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at the first deletion: the record is there; the next collection takes what was left."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(collect, "delete_commit", die)
    with pytest.raises(KeyboardInterrupt):
        gone(store)
    assert [one.key for record in collections(store.objects) for one in record.gone] == [LOOSE]
    monkeypatch.undo()
    manifest = store.objects.local_path(f"artifacts/{LOOSE}/manifest.json")
    assert manifest is not None
    assert manifest.exists()
    time.sleep(0.01)
    gone(store)
    assert not manifest.exists()


def test_on_a_full_disk_it_is_written_when_there_is_room(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first write of it finds none."""
    create, refused = store.objects.create, []

    def full(path: str, data: bytes) -> bool:
        if path.startswith(retention.FOLDER) and not refused:
            refused.append(path)
            raise TryAgain("no space left on device")
        return create(path, data)

    monkeypatch.setattr(store.objects, "create", full)
    assert gone(store) == {LOOSE}
    assert refused
    assert [one.key for record in collections(store.objects) for one in record.gone] == [LOOSE]


def test_records_from_outside_are_passed_over(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    gone(store)
    folder = store.objects.local_path(retention.FOLDER)
    assert folder is not None
    (folder / "20990101T000000000-00000000.json").write_text("{")
    (folder / "README.txt").write_text("not ours")
    assert len(list(collections(store.objects))) == 1
    assert "passed over" in caplog.text


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ('{"keep_run": 3}', ConfigError, "Did you mean 'keep_runs'"),
        ('{"keep_promotions": 0}', ConfigError, "keep_promotions"),
        ('{"keep_days": -1}', ConfigError, "keep_days"),
        ("[]", InputError, "give an object with any of keep_runs"),
        ("{", InputError, "is no JSON"),
        (None, InputError, "cannot be read: No such file"),
    ],
)
def test_a_wrong_policy_is_refused(tmp_path: Path, text: str | None, error: type[Exception], words: str) -> None:
    file = tmp_path / "policy.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(error, match=words):
        read_policy(os.fspath(file))
