"""A folder as users have them: good videos, one too many, and everything that can be wrong with a file."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from wfm.artifacts import Store

Wfm = Callable[..., subprocess.CompletedProcess[str]]
Film = Callable[..., Path]
pytestmark = pytest.mark.smoke


def _sound_only(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), dtype=np.float32), format="fltp", layout="mono")
        frame.rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory, wfm: Wfm, film: Film) -> tuple[Path, Path, Path]:
    """(folder of videos, store, pulled tables) after one curation of the whole zoo."""
    root = tmp_path_factory.mktemp("zoo")
    videos = root / "videos"
    videos.mkdir()
    film(videos / "good one.mp4", 1)
    film(videos / 'it\'s "quoted"\nand broken.mp4', 2)
    film(videos / "odd.mp4", 3, size=(98, 130))
    film(videos / "deep.mp4", 4, pixel_format="yuv420p10le")
    film(videos / "short.mp4", 5, frames=2)
    whole = film(root / "whole.mp4", 6, frames=240).read_bytes()
    (videos / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (videos / "copy.mp4").write_bytes((videos / "good one.mp4").read_bytes())
    (videos / "text.mp4").write_text("this is no video\n" * 50)
    (videos / "empty.mp4").write_bytes(b"")
    _sound_only(videos / "sound.mp4")
    (videos / "dangling.mp4").symlink_to(root / "nowhere.mp4")
    os.mkfifo(videos / "pipe.mp4")
    store = root / "store"
    wfm("run", "curate", "--profile", "smoke", "--videos", str(videos), store=store)
    wfm("artifacts", "pull", "dataset/curated-smoke@latest", str(root / "out"), store=store)
    return videos, store, root / "out"


def test_every_file_has_a_row_and_the_bad_ones_a_reason(curated: tuple[Path, Path, Path]) -> None:
    _, _, out = curated
    rows = {Path(row["source"]).name: row for row in pq.read_table(out / "videos.parquet").to_pylist()}
    good = {"good one.mp4", 'it\'s "quoted"\nand broken.mp4', "odd.mp4", "deep.mp4"}
    assert {name for name, row in rows.items() if row["status"] == "ok"} - {"copy.mp4"} >= good - {"good one.mp4"}
    reasons = {name: row["reason"] for name, row in rows.items() if row["status"] != "ok"}
    expected = {
        "short.mp4": "too_short", "truncated.mp4": "", "text.mp4": "not_a_video", "empty.mp4": "empty_file",
        "sound.mp4": "no_video_stream", "dangling.mp4": "dangling_link", "pipe.mp4": "not_a_regular_file",
    }  # fmt: skip
    for name, code in expected.items():
        assert reasons[name].startswith(code), f"{name}: {reasons[name]!r}"
        assert reasons[name]
    assert ("copy.mp4" in reasons) != ("good one.mp4" in reasons)
    assert any(reason.startswith("duplicate_bytes") for reason in reasons.values())


def test_clips_come_from_the_good_files_only(curated: tuple[Path, Path, Path]) -> None:
    _, _, out = curated
    rows = pq.read_table(out / "clips.parquet").to_pylist()
    good = {row["source"] for row in pq.read_table(out / "videos.parquet").to_pylist() if row["status"] == "ok"}
    assert rows
    assert {row["source"] for row in rows} <= good
    assert all(row["end_seconds"] > row["start_seconds"] >= 0 for row in rows)


def test_one_more_video_runs_its_own_parts_only(curated: tuple[Path, Path, Path], wfm: Wfm, film: Film) -> None:
    videos, store, _ = curated
    before = _parts(store)
    film(videos / "one more.mp4", 99)
    wfm("run", "curate", "--profile", "smoke", "--videos", str(videos), store=store)
    new = _parts(store) - before
    stages = [Store.open(store).part(key).manifest.stage for key in new]
    # one probe, and one part of each stage: its prefix of two hex digits is its own (if another video shared it, so be it)
    assert stages.count("ingest_videos") == 2
    for stage in ("split_clips", "score_clips", "caption_clips", "embed_clips"):
        assert stages.count(stage) == 1, stages


def test_an_empty_folder_is_wrong_input_and_not_tried_again(tmp_path: Path, wfm: Wfm) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = wfm("run", "curate", "--profile", "smoke", "--videos", str(empty), store=tmp_path / "store", check=False)
    assert done.returncode == 78
    assert str(empty) in (done.stdout + done.stderr).replace("\n", "")
    assert "Traceback" not in done.stdout + done.stderr
    assert len(list((tmp_path / "store").glob("runs/*/nodes/*/attempts/*"))) <= 1


def _parts(store: Path) -> set[str]:
    return {path.parent.name for path in store.glob("parts/*/manifest.json")}
