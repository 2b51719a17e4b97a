"""A disk that fills while clips are cut and scored: the stage asks to be tried again, nothing is taken for a broken video."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.components.test_curation_stages import run_stage
from wfm.artifacts import Artifact, Store
from wfm.artifacts.lease import Lease
from wfm.errors import TryAgain

FREE = (1_000, 40_000, 100_000)
"Bytes left on the disk when a stage begins: for no note, for less than a clip, for less than all of them."


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def files_of(artifact: Artifact) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in artifact.files()}


def outcome(run: Callable[[], Any]) -> str:
    """How the run of a stage would be taken."""
    try:
        run()
    except TryAgain:
        return "try again"
    except OSError as error:
        return "try again" if error.errno == errno.ENOSPC else repr(error)
    return "done"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_worth_another_try_and_breaks_no_video(
    disk: Path, film: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(store: Store, key: str, ttl_seconds: float = 0.4, *, inputs: tuple[str, ...] = ()) -> Lease:
        return Lease(store.objects, key, ttl_seconds, inputs=inputs)

    monkeypatch.setattr(Store, "lease", short)  # one that cannot be released on a full disk runs out
    film(tmp_path / "film.mp4", 1)
    roomy, store = Store.open(tmp_path / "roomy"), Store.open(disk / "store")
    first: tuple[dict[str, Artifact], ...] = ({}, {})
    outcomes = []
    for stage, config in (
        ("ingest_videos", {"videos": str(tmp_path / "film.mp4")}),
        ("split_clips", {}),
        ("score_clips", {}),
    ):
        for free in FREE:
            (disk / "filler").write_bytes(bytes(max(shutil.disk_usage(disk).free - free, 0)))
            outcomes.append(outcome(partial(run_stage, store, stage, config, **first[1])))
            (disk / "filler").unlink()
        expected, found = (
            run_stage(on, stage, config, **before) for on, before in zip((roomy, store), first, strict=True)
        )
        assert found.manifest.skipped == {}
        assert (found.key, files_of(found)) == (expected.key, files_of(expected))
        of = {"ingest_videos": "videos"}.get(stage, "clips")
        first = ({of: expected}, {of: found})
    assert set(outcomes) <= {"done", "try again"}
    assert outcomes.count("try again") >= 5, "the disk was full at many places"
