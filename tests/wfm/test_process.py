"""Python children do not import from the current folder, whichever way they are started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wfm.curation.poison import decode_in_own_process
from wfm.process import python, safe_environment, signal_name


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is one of videos, with modules beside them; returns the mark that they leave when they run."""
    mark = tmp_path / "mark"
    (tmp_path / "videos").mkdir()
    for name in ("av", "json", "signal", "multiprocessing", "tornado", "planted", "hashlib"):
        (tmp_path / "videos" / f"{name}.py").write_text(
            f"open({str(mark)!r}, 'w').close()\nraise ImportError({name!r})\n"
        )
    monkeypatch.chdir(tmp_path / "videos")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)  # a Dask cluster leaves it behind
    return mark


def test_the_trial_of_a_video_imports_nothing_from_beside_it(planted: Path) -> None:
    assert decode_in_own_process(Path("a.mp4")) == ""
    assert not planted.exists()  # json.py ran before


@pytest.mark.parametrize("given", [None, "", os.pathsep, ".", f"{os.pathsep}/nowhere", "relative"])
def test_a_safe_child_and_its_own_children_do_not_look_here(planted: Path, given: str | None) -> None:
    code = "import json, subprocess, sys; subprocess.run([sys.executable, '-c', 'import json, planted'])"
    environment = {**os.environ, **({"PYTHONPATH": given} if given is not None else {})}
    done = subprocess.run(python("-c", code), env=safe_environment(environment), capture_output=True, text=True)
    assert done.returncode == 0
    assert "No module named 'planted'" in done.stderr
    assert not planted.exists()
    subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert planted.exists()  # without either, it runs


def test_a_path_that_the_user_names_is_kept(tmp_path: Path) -> None:
    assert safe_environment({"PYTHONPATH": f":{tmp_path}:."})["PYTHONPATH"] == str(tmp_path)
    assert "PYTHONPATH" not in safe_environment({"PYTHONPATH": ":"})
    both = {"PATH": ":/usr/bin:.", "LD_LIBRARY_PATH": "lib:/opt/lib:"}
    assert safe_environment(both).items() >= {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/opt/lib"}.items()


def test_no_library_is_linked_from_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV wrote ``.../lib64:``, and the ffmpeg that PySceneDetect starts loaded libraries from the current folder."""
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    code = "import cv2, os; print(os.environ['LD_LIBRARY_PATH'])"
    done = subprocess.run(python("-c", code), env=safe_environment(os.environ), capture_output=True, text=True)
    entries = done.stdout.strip().split(os.pathsep)
    assert len(entries) > 1, "OpenCV names none any more: the entry of ours may go"
    assert all(os.path.isabs(entry) for entry in entries)


@pytest.mark.parametrize(
    "start", [[str(Path(sys.executable).with_name("wfm"))], [sys.executable, "-m", "pipelines.commands.cli"]]
)
def test_the_command_imports_no_library_from_the_current_folder(tmp_path: Path, start: list[str]) -> None:
    """Its own modules are found first (it is installed); what is imported later must not come from here either."""
    mark = tmp_path / "mark"
    for name in ("psutil", "pyarrow", "av"):
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    done = subprocess.run([*start, "doctor"], cwd=tmp_path, capture_output=True, text=True)
    assert "shared memory" in done.stdout, done.stderr
    assert not mark.exists()


_DASK = """
import sys
from wfm.process import forget_current_folder
from wfm.parts.workers import local_cluster, map_tasks
from wfm.curation.trial import _decode
if __name__ == "__main__":
    sys.path.insert(0, "")  # as `python -m` does
    if sys.argv[1] == "forget":
        forget_current_folder()
    with local_cluster(workers=1, memory="1GiB") as address:
        print(list(map_tasks(_decode, {"a": "missing.mp4"}, scheduler=address)))
"""


def test_dask_workers_import_nothing_from_the_current_folder(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    mark = tmp_path / "mark"
    (here / "av.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    (tmp_path / "main.py").write_text(_DASK)
    for how, ran in (("forget", False), ("as it was", True)):
        subprocess.run(python(str(tmp_path / "main.py"), how), cwd=here, check=False, capture_output=True, timeout=120)
        assert mark.exists() is ran, how


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    assert [signal_name(number) for number in (9, 15, 40)] == ["SIGKILL", "SIGTERM", "signal 40"]
