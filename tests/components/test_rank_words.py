"""What ranks say of themselves when they end."""

import errno
import tempfile
from typing import Any

import pytest

from components.rank_words import stacks_of_all_threads


def test_stacks_show_where_threads_are_and_a_full_disk_is_said_in_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: a watch that could make no file ended with an error of its own, and what hung hung on."""
    assert "test_stacks_show_where_threads_are" in stacks_of_all_threads()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert stacks_of_all_threads() == "not to be seen: [Errno 28] No space left on device"
