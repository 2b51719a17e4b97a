"""A folder that ``wfm artifacts pull`` made, where the name of an artifact may stand, too: which of the two is meant."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from wfm.errors import InputError, TryAgain

if TYPE_CHECKING:
    from wfm.artifacts.store import Store

_PATHS = ("/", "./", "../", "~")


def pulled_folder(
    reference: str | os.PathLike[str], *, kind: str, mark: str, store: "Callable[[], Store]"
) -> Path | None:
    """The folder that `reference` means; None where it is a name or a key of the `store`.

    mark: a file that lies in such a folder. What begins with ``/``, ``./``, ``../`` or ``~``, and any path object,
    means a folder and nothing else. A plain word means a folder of the current one only where the store has nothing of that
    name: whoever can put a folder there must not decide which model is used. Raises InputError for a folder that is none,
    and for a word that means both.
    """
    words = os.fspath(reference)
    folder = Path(words).expanduser()
    there = (folder / mark).is_file()
    if isinstance(reference, os.PathLike) or words in (".", "..") or words.startswith(_PATHS):
        if not there:
            raise InputError(f"{folder}: not a {kind} that `wfm artifacts pull` made: it has no {mark}")
        return folder
    if there and _is_named(words, kind, store):
        raise InputError(
            f"{words!r} is a folder here and a name in {store().url}: write ./{words} for the folder, or "
            f"{words if '/' in words else f'{kind}/{words}'}@latest for the artifact"
        )
    return folder if there else None


def _is_named(words: str, kind: str, store: "Callable[[], Store]") -> bool:
    """Whether the store has that name; one that is not there, or does not answer, has none."""
    for name in [words] if "/" in words else [f"{kind}/{words}", words]:
        with suppress(InputError, TryAgain):
            store().resolve(name)
            return True
    return False
