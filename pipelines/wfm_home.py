"""The folder of wfm's own engine: nobody else may read or write it, and what is in it is believed only while that holds.

It is ``~/.wfm/prefect`` (``WFM_HOME`` moves it). In it lie the engine's database, the address of a server that is up, and
the password of its API (``wfm password`` shows and changes it).
"""

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wfm.artifacts.atomic import replace_on_disk
from wfm.errors import InputError

USER = "wfm"
"""The name before the colon, for clients that want one."""
MINIMUM_LENGTH = 12
_PASSWORD_FILE = "password"


def home() -> Path:
    """The folder; made when missing, closed to others when an earlier wfm left it open. `InputError` when it is not ours."""
    folder = Path(os.environ.get("WFM_HOME") or Path.home() / ".wfm") / "prefect"
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    for seen in (folder.lstat(), folder.stat()):  # a link that another user planted, and what it leads to
        if seen.st_uid != os.geteuid():
            raise InputError(
                f"{folder} belongs to user {seen.st_uid}, not to you ({os.geteuid()}): whoever owns it could run programs as "
                "you. Set WFM_HOME to a folder of your own"
            )
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process of this user at a time."""
    with open(home() / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_private(path: Path, forbidden: int = 0o022) -> str:
    """Text of a file that is ours and that others cannot write (``forbidden``: mode bits that must not be set).

    Raises FileNotFoundError when there is none, `InputError` when it is not to be believed.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(handle, encoding="utf-8", errors="replace") as file:
        seen = os.fstat(handle)
        if not stat.S_ISREG(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & forbidden:
            raise InputError(
                f"{path} is open to others (owner {seen.st_uid}, mode {stat.S_IMODE(seen.st_mode):o}), so it is not used: "
                "delete it, and it is made anew"
            )
        return file.read(2**16)


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, whole, over whatever is there."""
    replace_on_disk(path, text.encode(), mode=0o600)


def api_login() -> str:
    """``wfm:PASSWORD`` of the engine's API, made at first use."""
    path = home() / _PASSWORD_FILE
    with locked(_PASSWORD_FILE):
        try:
            return read_private(path, forbidden=0o077)
        except FileNotFoundError:
            login = f"{USER}:{secrets.token_urlsafe(24)}"
            write_private(path, login)
            return login


def change_login(password: str = "") -> str:
    """Put another password in place of the old one (empty: a random one); returns the new ``wfm:PASSWORD``.

    A server that is up keeps the old one until it is started again. Raises `InputError` for a password that will not do.
    """
    password = password.removeprefix(f"{USER}:") or secrets.token_urlsafe(24)
    if len(password) < MINIMUM_LENGTH or not all("!" <= letter <= "~" for letter in password):
        raise InputError(
            f"a password has at least {MINIMUM_LENGTH} letters, digits or signs of ASCII and no space: this one has "
            f"{len(password)} characters"
        )
    with locked(_PASSWORD_FILE):
        write_private(home() / _PASSWORD_FILE, f"{USER}:{password}")
    return f"{USER}:{password}"
