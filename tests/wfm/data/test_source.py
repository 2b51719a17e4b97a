"""A source becomes a local file of known bytes, or is refused."""

import hashlib
import os
from pathlib import Path

import pytest

from wfm.artifacts import Store
from wfm.data.local import known_hash, problem_of
from wfm.data.source import SourceGone, fetch_source, open_source
from wfm.errors import InputError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_a_local_file_is_itself_and_checked(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a b\n.mp4"
    path.write_bytes(b"bytes")
    digest = hashlib.sha256(b"bytes").hexdigest()
    assert open_source(store, str(path)) == path
    assert open_source(store, str(path), digest) == path
    assert fetch_source(store, str(path)) == (path, digest)
    path.write_bytes(b"other")
    with pytest.raises(SourceGone, match="has changed since it was ingested"):
        open_source(store, str(path), digest)


def test_a_change_that_keeps_size_and_name_is_seen(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    before = known_hash(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(5, 5))
    assert known_hash(path) != before


def test_what_is_gone_or_special_is_refused_with_advice(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SourceGone, match="put it back, or ingest again"):
        open_source(store, str(tmp_path / "nowhere.mp4"))
    os.mkfifo(tmp_path / "fifo.mp4")
    with pytest.raises(InputError, match="not_a_regular_file: it is a FIFO"):
        open_source(store, str(tmp_path / "fifo.mp4"))
    (tmp_path / "broken.mp4").symlink_to("/proc/self/mem")
    with pytest.raises(InputError, match="Input/output error"):
        open_source(store, str(tmp_path / "broken.mp4"), "0" * 64)


def test_a_file_in_the_store_comes_from_an_artifact_or_a_part(store: Store) -> None:
    key, part_key = "a" * 64, "b" * 64
    for of, attempt in ((key, store.attempt(key)), (part_key, store.part_attempt(part_key))):
        (attempt.path / "videos").mkdir()
        (attempt.path / "videos" / "x.mp4").write_bytes(of.encode())
        (attempt.path / "truth").mkdir()
        (attempt.path / "truth" / "x.json").write_bytes(b"{}")
        attempt.commit(stage="simulate_videos", kind="raw_videos")
        digest = hashlib.sha256(of.encode()).hexdigest()
        assert open_source(store, f"wfm://{of}/videos/x.mp4", digest).read_bytes() == of.encode()
        with pytest.raises(SourceGone):
            open_source(store, f"wfm://{of}/videos/x.mp4", "0" * 64)
        with pytest.raises(InputError, match="closed"):
            open_source(store, f"wfm://{of}/truth/x.json")


@pytest.mark.parametrize("source", ["wfm://short/videos/x.mp4", f"wfm://{'c' * 64}/x.mp4", f"wfm://{'a' * 64}"])
def test_a_wrong_store_address_is_refused(store: Store, source: str) -> None:
    with pytest.raises(InputError):
        open_source(store, source)


def test_problems_are_told_without_opening(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert problem_of(str(tmp_path / "file")) == ""
    assert problem_of(str(tmp_path)).startswith("not_a_regular_file: it is a folder")
    assert problem_of("/dev/null").startswith("not_a_regular_file: it is a character device")
    assert problem_of(str(tmp_path / "none")).startswith("not_found")


def test_the_download_cache_lets_go_of_the_longest_unused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wfm.data.local import CACHE_GIB_VARIABLE, _make_room

    monkeypatch.setenv(CACHE_GIB_VARIABLE, str(250 / 2**30))
    for index, name in enumerate(["old", "middle", "new"]):
        (tmp_path / name).write_bytes(b"x" * 100)
        if name != "new":
            os.utime(tmp_path / name, (1000 + index, 1000 + index))
    _make_room(tmp_path, 60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]
    _make_room(tmp_path, 10_000)
    assert (tmp_path / "new").exists(), "what was used a moment ago may still be open"
