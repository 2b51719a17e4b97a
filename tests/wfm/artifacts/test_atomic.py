import os
import threading

import pytest

from wfm.artifacts.atomic import create_by_put, create_on_disk, disk_error, replace_on_disk
from wfm.errors import InputError, TryAgain


class TestCreateOnDisk:
    def test_only_the_first_gets_the_name(self, tmp_path):
        target = tmp_path / "deep" / "er" / "name"
        assert create_on_disk(target, b"first")
        assert not create_on_disk(target, b"second")
        assert create_on_disk(target, b"first")  # the same bytes: ours
        assert create_on_disk(target, b"third", mine=lambda found: found == b"first")
        assert target.read_bytes() == b"first"
        assert os.listdir(target.parent) == ["name"]

    def test_of_many_threads_one_wins(self, tmp_path):
        won = []
        barrier = threading.Barrier(8)

        def run(number):
            barrier.wait()
            if create_on_disk(tmp_path / "name", f"{number}".encode() * 10_000):
                won.append(number)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert (tmp_path / "name").read_bytes() == f"{won[0]}".encode() * 10_000

    def test_a_file_system_without_links_is_refused(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(os, "link", refuse)
        with pytest.raises(InputError, match="no hard links"):
            create_on_disk(tmp_path / "name", b"x")
        assert os.listdir(tmp_path) == []

    def test_bytes_are_durable_before_the_name(self, tmp_path, monkeypatch):
        calls = []
        for name in ("fsync", "link"):
            real = getattr(os, name)
            monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))[1])
        create_on_disk(tmp_path / "name", b"x")
        assert calls == ["fsync", "link", "fsync"]  # the file, its name, the folder
        calls.clear()
        create_on_disk(tmp_path / "other", b"x", fsync=False)
        assert calls == ["link"]


def test_replace_is_whole_or_not(tmp_path, monkeypatch):
    target = tmp_path / "name"
    replace_on_disk(target, b"one")
    replace_on_disk(target, b"two")
    assert target.read_bytes() == b"two"

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        replace_on_disk(target, b"three")
    assert target.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["name"]


class TestCreateByPut:
    def test_a_free_name(self):
        assert create_by_put(lambda: True, lambda: pytest.fail("nothing to read back"), b"x")

    def test_a_taken_name_is_read_back(self):
        assert create_by_put(lambda: False, lambda: b"x", b"x")
        assert not create_by_put(lambda: False, lambda: b"y", b"x")
        assert create_by_put(lambda: False, lambda: b"y", b"x", mine=lambda found: found == b"y")

    def test_a_name_that_was_freed_meanwhile_is_tried_again(self):
        answers = iter([False, True])
        assert create_by_put(lambda: next(answers), lambda: None, b"x")
        with pytest.raises(TryAgain):
            create_by_put(lambda: False, lambda: None, b"x")


def test_disk_errors_say_what_to_do():
    assert isinstance(disk_error(OSError(28, "x"), "p"), TryAgain)
    assert isinstance(disk_error(OSError(30, "x"), "p"), InputError)
    other = OSError(5, "x")
    assert disk_error(other, "p") is other
