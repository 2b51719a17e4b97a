"""The folder of the engine is closed to others, and so is the password in it."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.engines.prefect_server import running_server
from pipelines.wfm_home import api_login, change_login, home
from wfm.errors import InputError

WFM = [sys.executable, "-P", "-m", "pipelines.commands.cli"]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WFM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_password_is_made_once_and_only_its_owner_can_read_it(own_home: Path) -> None:
    old = os.umask(0)
    try:
        with ThreadPoolExecutor(8) as pool:
            logins = set(pool.map(lambda _: api_login(), range(16)))
    finally:
        os.umask(old)
    assert len(logins) == 1
    assert len(logins.pop()) >= 36
    assert (mode(own_home), mode(own_home / "prefect")) == (0o700, 0o700)
    assert mode(own_home / "prefect" / "password") == 0o600


def test_a_home_of_before_is_closed_and_goes_on(own_home: Path) -> None:
    folder = own_home / "prefect"
    folder.mkdir(parents=True)
    folder.chmod(0o755)  # as it was made before
    (folder / "prefect.db").write_text("kept")
    assert home() == folder
    assert mode(folder) == 0o700
    assert (folder / "prefect.db").read_text() == "kept"


def test_a_home_of_another_user_is_refused(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_home / "prefect").mkdir(parents=True)
    (own_home / "prefect" / "server.json").write_text('{"api": "http://127.0.0.1:9/api"}')
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    with pytest.raises(InputError, match="Set WFM_HOME to a folder of your own"):
        home()
    assert running_server() is None


def test_a_password_that_others_could_read_is_not_used(own_home: Path) -> None:
    api_login()
    (own_home / "prefect" / "password").chmod(0o640)
    with pytest.raises(InputError, match=r"mode 640.*made anew"):
        api_login()
    (own_home / "prefect" / "password").unlink()
    (own_home / "prefect" / "password").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic links"):
        api_login()


@pytest.mark.parametrize(
    "text", ["{", "[1]", "null", '{"api": 5}', '{"api": "file:///etc"}', '{"api": "http://x:99999/"}']
)
def test_a_planted_address_is_not_followed(own_home: Path, text: str) -> None:
    (home() / "server.json").write_text(text)
    assert running_server() is None


def test_it_is_shown_and_changed_by_a_command(own_home: Path) -> None:
    def wfm(*arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*WFM, "password", *arguments], input=given, capture_output=True, text=True)

    first = wfm().stdout.strip()
    assert first == api_login()
    second = wfm("--new").stdout.strip()
    assert second == api_login() != first
    assert wfm("--change", given="correct-horse-battery\n").stdout.strip() == api_login() == "wfm:correct-horse-battery"
    refused = wfm("--change", given="short\n")
    assert refused.returncode == 78
    assert "at least 12" in refused.stderr
    assert wfm("--change").returncode == 78
    assert api_login() == "wfm:correct-horse-battery"


@pytest.mark.parametrize(
    "password", ["short", "with a space in it", "tab\tand more of it", "ümlaut-and-more", "a" * 11]
)
def test_a_password_that_will_not_do_is_refused(password: str) -> None:
    with pytest.raises(InputError, match="has at least 12"):
        change_login(password)
