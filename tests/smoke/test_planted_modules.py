"""A whole curation in a folder that holds Python files by the names of what it imports: none of them runs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

NAMES = (
    *("av", "cv2", "numpy", "dask", "distributed", "tornado", "prefect", "uvicorn", "alembic"),
    *("json", "hashlib", "typer"),
)


@pytest.mark.long
def test_no_file_beside_the_videos_is_run(tmp_path: Path, film: Callable[..., Path]) -> None:
    here = tmp_path / "videos"
    here.mkdir()
    film(here / "a.mp4", seed=1)
    for name in NAMES:
        (here / f"{name}.py").write_text(f"open({str(tmp_path / f'{name}.ran')!r}, 'w').close()\n")
    command = [str(Path(sys.executable).with_name("wfm")), "run", "curate", "--profile", "smoke", "--videos", "."]
    subprocess.run([*command, "--store", str(tmp_path / "store")], cwd=here, capture_output=True, timeout=500)
    ran = sorted(path.stem for path in tmp_path.glob("*.ran"))
    assert (
        ran == []
    )  # json, from the first stage on, before; with only `-P` for the stages: distributed, in the run itself
    assert [
        path.parent.name for path in (tmp_path / "store" / "runs").glob("*/nodes/split_clips/attempts/*/outcome.json")
    ]
