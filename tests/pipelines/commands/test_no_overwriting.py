"""No command replaces a file of somebody's without being told to. The old code replaced each of these in silence."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wfm.artifacts.atomic import put_in_place, require_empty, write_new
from wfm.curation.search.search_page import write_page
from wfm.errors import InputError
from wfm.generation.command import generate_from_files

THEIRS = b"somebody's thesis"


def test_a_file_is_written_once_and_replaced_when_told(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    write_new(path, b"one", force=False)
    with pytest.raises(
        InputError, match=r"page.html is there already: give another name, move it away, or say --force"
    ):
        write_new(path, b"two", force=False)
    assert path.read_bytes() == b"one"
    write_new(path, b"two", force=True)
    assert path.read_bytes() == b"two"
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]


def test_what_appears_while_the_work_goes_on_stays(tmp_path: Path) -> None:
    made, path = tmp_path / "made", tmp_path / "out.mp4"
    made.write_bytes(b"ours")
    path.write_bytes(THEIRS)
    with pytest.raises(InputError, match=r"out\.mp4 is there already"):
        put_in_place(made, path, force=False)
    assert path.read_bytes() == THEIRS
    assert not made.exists()


def test_a_link_that_leads_nowhere_is_somebodys_too(tmp_path: Path) -> None:
    (tmp_path / "page.html").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is there already"):
        write_new(tmp_path / "page.html", b"one", force=False)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["future.mp4", "future.json"])
def test_generate(tmp_path: Path, name: str) -> None:
    """Before anything is loaded: the model need not even be there."""
    (tmp_path / name).write_bytes(THEIRS)
    store: Any = None
    with pytest.raises(InputError, match=rf"{name} is there already"):
        generate_from_files(store, "none", tmp_path / "past.mp4", out=tmp_path / "future.mp4", force=False)
    assert (tmp_path / name).read_bytes() == THEIRS


def test_the_page_of_a_search(tmp_path: Path) -> None:
    (tmp_path / "hits.html").write_bytes(THEIRS)
    with pytest.raises(InputError, match=r"hits\.html is there already"):
        write_page(tmp_path / "hits.html", "title", "about", [], lambda hit: b"")
    assert (tmp_path / "hits.html").read_bytes() == THEIRS
    write_page(tmp_path / "hits.html", "title", "about", [], lambda hit: b"", force=True)


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (("generate", "none", "--past", "past.mp4"), "future.mp4"),
        (("search", "red ball", "--page", "hits.html"), "hits.html"),
        (("taxonomy", "--out", "."), "mixture.parquet"),
        (("curate", "report", "dataset/none"), "thresholds.html"),
        (("weights", "import", "nowhere", "model"), "model/config.json"),
    ],
)
def test_every_command_says_so_before_it_works(tmp_path: Path, command: tuple[str, ...], file: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(THEIRS)
    whole = [sys.executable, "-m", "pipelines.commands.cli", *command]
    if command[0] != "weights":
        (tmp_path / "store").mkdir()
        whole += ["--store", "store"]
    done = subprocess.run(whole, cwd=tmp_path, capture_output=True, text=True, env=_environment())
    assert done.returncode == 78, done.stderr
    assert f"{path.name} is there already" in done.stderr
    assert path.read_bytes() == THEIRS


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}


def test_a_folder_that_holds_something(tmp_path: Path) -> None:
    require_empty(tmp_path / "new", force=False)
    require_empty(tmp_path, force=False)
    (tmp_path / "a").write_bytes(THEIRS)
    with pytest.raises(InputError, match="a is there already"):
        require_empty(tmp_path, force=False)
    require_empty(tmp_path, force=True)
