"""With a home that cannot be written to, what libraries keep goes to one stated place; without any, words say what to set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wfm import caches
from wfm.errors import InputError

NOWHERE = "/dev/null/x"  # nobody can write below it, root neither


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A pod's: an own environment that is put back, a home of nobody's, temporary files in a folder."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in (*caches.COMPILED, "XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME", "WFM_CACHE"):
        os.environ.pop(name, None)
    os.environ.update(HOME=NOWHERE, TMPDIR=str(tmp_path))
    return monkeypatch


def test_on_a_laptop_nothing_changes(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    os.environ["HOME"] = str(tmp_path)
    before = dict(os.environ)
    caches.prepare()
    assert dict(os.environ) == before


def test_a_stated_place_takes_what_is_compiled_and_leaves_what_was_downloaded(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.environ.update(HOME=str(tmp_path), WFM_CACHE=str(tmp_path / "cache"), TRITON_CACHE_DIR="/mine")
    caches.prepare()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"].startswith(str(tmp_path / "cache"))
    assert os.environ["TRITON_CACHE_DIR"] == "/mine"
    assert (os.environ["HOME"], "HF_HOME" in os.environ) == (str(tmp_path), False)


def test_what_an_image_brought_along_is_still_read(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".cache/huggingface").mkdir(parents=True)
    os.environ["HOME"] = str(home)
    environment.setattr(caches, "can_be_written", lambda folder: folder != home)
    caches.prepare()
    assert os.environ["HF_HOME"] == str(home / ".cache/huggingface")
    assert os.environ["HOME"] != str(home)


def test_no_place_at_all_says_what_to_set(environment: pytest.MonkeyPatch) -> None:
    os.environ["TMPDIR"] = NOWHERE
    with pytest.raises(InputError, match=f"tried: HOME='{NOWHERE}', {NOWHERE}.*set WFM_CACHE"):
        caches.prepare()
    os.environ["WFM_CACHE"] = "/proc/1/x"
    with pytest.raises(InputError, match="WFM_CACHE is '/proc/1/x', which cannot be written to"):
        caches.prepare()


def test_a_folder_that_somebody_else_made_for_us_is_not_trusted(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / f"wfm-cache-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / f"wfm-cache-{os.getuid()}").chmod(0o777)
    with pytest.raises(InputError, match="no place for caches"):
        caches.prepare()


def test_libraries_really_write_there(tmp_path: Path) -> None:
    """In a process of its own: the homeless one of before fell over its home, or wrote beside the stated place."""
    program = """
import getpass, os, tempfile
from pathlib import Path
from wfm import caches
caches.prepare()
import torch
from torch._inductor.runtime.cache_dir_utils import cache_dir
print(cache_dir(), Path.home(), tempfile.gettempdir(), getpass.getuser())
Path.home().joinpath("x").write_text("x")
"""
    cache = tmp_path / "cache"
    given = {name: value for name, value in os.environ.items() if name not in (*caches.COMPILED, "USER", "LOGNAME")}
    given |= {"HOME": NOWHERE, "TMPDIR": NOWHERE, "WFM_CACHE": str(cache), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], env=given, capture_output=True, text=True, check=True)
    compiled, home, temporary, _ = done.stdout.split()
    assert (compiled, home, temporary) == (
        str(cache / "libraries/torchinductor"),
        str(cache / "home"),
        str(cache / "tmp"),
    )
