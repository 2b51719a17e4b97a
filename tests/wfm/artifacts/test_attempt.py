import os

import pytest

from wfm.artifacts import Store
from wfm.errors import InputError

KEY = "a" * 64


@pytest.fixture
def attempt(tmp_path):
    return Store.open(tmp_path / "store").attempt(KEY)


def refuse(attempt, words):
    with pytest.raises(InputError, match=words):
        attempt.commit(stage="s", kind="k")


def test_links_are_refused(attempt, tmp_path):
    (tmp_path / "outside").write_text("secret")
    (attempt.path / "link").symlink_to(tmp_path / "outside")
    refuse(attempt, "'link' cannot be committed")


def test_linked_folders_are_refused(attempt, tmp_path):
    (attempt.path / "folder").symlink_to(tmp_path)
    refuse(attempt, "'folder' cannot be committed")


def test_pipes_are_refused_without_waiting_for_a_writer(attempt):
    os.mkfifo(attempt.path / "pipe.mp4")
    refuse(attempt, r"'pipe\.mp4' cannot be committed")


@pytest.mark.parametrize("name", [b"new\nline", b"back\\slash", b"odd\xff", b"tab\t"])
def test_odd_names_are_refused(attempt, name):
    os.close(os.open(os.path.join(os.fsencode(attempt.path), name), os.O_CREAT | os.O_WRONLY))
    refuse(attempt, "not allowed")


def test_the_folder_of_parts_is_reserved(attempt):
    (attempt.path / "parts").mkdir()
    (attempt.path / "parts" / "x").write_text("x")
    refuse(attempt, "'parts/'")


def test_what_a_stage_writes_into_the_lists_folder_is_not_listed(attempt):
    (attempt.path / ".listing").mkdir()
    (attempt.path / ".listing" / "x").write_text("x")
    (attempt.path / "a").write_text("x")
    assert [f.path for f in attempt.commit(stage="s", kind="k").files()] == ["a"]


def test_empty_folders_are_not_kept(attempt):
    (attempt.path / "empty").mkdir()
    assert list(attempt.commit(stage="s", kind="k").files()) == []


@pytest.mark.parametrize(("fsync", "least"), [(True, 6), (False, 0)])
def test_files_are_made_durable_before_the_commit(tmp_path, monkeypatch, fsync, least):
    calls = []
    for name in ("fsync", "link"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))[1])
    attempt = Store.open(tmp_path / "store", {"fsync": fsync}).attempt(KEY)
    (attempt.path / "deep").mkdir()
    for name in ("a", "b", "deep/c"):
        (attempt.path / name).write_text("x")
    attempt.commit(stage="s", kind="k")
    before = calls[: calls.index("link")]
    assert len(before) >= least
    assert ("fsync" in calls) == fsync


def test_an_unknown_option_is_refused(tmp_path):
    with pytest.raises(InputError, match="no option 'fsink': the choices are fsync"):
        Store.open(tmp_path, {"fsink": True})


def test_a_file_is_not_a_store(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        Store.open(tmp_path / "file")
