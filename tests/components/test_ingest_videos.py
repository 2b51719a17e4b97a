"""The whole stage: bad input beside good, nothing read twice, simulated videos by the key of their part."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wfm.artifacts import Artifact, Store
from wfm.curation.source import ingest
from wfm.errors import ConfigError, DataError, InputError
from wfm.records import Video

Stage = Callable[..., Artifact]


def video(path: Path, seed: int, frames: int = 24) -> Path:
    """A small mp4 whose bytes depend on the seed."""
    import av

    picture = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for _ in range(frames):
            image = np.kron(picture, np.ones((8, 8, 1), np.uint8))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode(None))
    return path


def rows(artifact: Artifact) -> dict[str, Video]:
    return {row.name: row for row in Video.from_table(artifact.table("videos"))}


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were really read."""
    names: list[str] = []
    examine = ingest.examine

    def watched(file: Any, store: Store, config: Any) -> Any:
        names.append(file.name)
        return examine(file, store, config)

    monkeypatch.setattr(ingest, "examine", watched)
    return names


def test_good_and_bad_files_side_by_side(run_stage: Stage, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    first = video(folder / "a first.mp4", 1)
    shutil.copy(first, folder / "copy.mp4")
    video(folder / "deep" / "new\nline 'ü\".mp4", 2)
    (folder / "text.mp4").write_text("text")
    (folder / "empty.mp4").touch()
    os.mkfifo(folder / "fifo.mp4")
    (folder / "link.mp4").symlink_to("nowhere")
    (folder / "notes.txt").touch()
    found = run_stage("ingest_videos", {"videos": str(folder)})
    table = rows(found)
    assert {name: row.status for name, row in table.items()} == {
        "a first.mp4": "ok",
        "copy.mp4": "duplicate",
        "new\nline 'ü\".mp4": "ok",
        "text.mp4": "failed",
        "empty.mp4": "failed",
        "fifo.mp4": "failed",
        "link.mp4": "failed",
    }
    assert found.manifest.counts == {"inputs": 7, "outputs": 2}
    assert found.manifest.skipped == {
        "dangling_link": 1,
        "duplicate_bytes": 1,
        "empty_file": 1,
        "not_a_regular_file": 1,
        "not_a_video": 1,
    }
    for entry in found.parts:
        for row in Video.from_table(found.part(entry.name).table("videos")):
            assert not row.video_id or row.video_id.startswith(entry.name)


def test_unchanged_files_are_not_read_again(run_stage: Stage, tmp_path: Path, probed: list[str]) -> None:
    folder = tmp_path / "in"
    for seed in range(4):
        video(folder / f"{seed}.mp4", seed)
    config = {"videos": str(folder)}
    first = run_stage("ingest_videos", config)
    assert sorted(probed) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    probed.clear()
    assert run_stage("ingest_videos", config).key == first.key
    assert probed == []
    video(folder / "4.mp4", 4)
    second = run_stage("ingest_videos", config)
    assert probed == ["4.mp4"]
    assert second.key != first.key
    shared = {entry.key for entry in first.parts} & {entry.key for entry in second.parts}
    assert len(shared) >= len(first.parts) - 1, "one more file redoes one part"
    probed.clear()
    os.utime(folder / "2.mp4", ns=(9, 9))
    third = run_stage("ingest_videos", config)
    assert probed == ["2.mp4"]
    assert [entry.key for entry in third.parts] == [entry.key for entry in second.parts], "the bytes are the same"
    (folder / "0.mp4").unlink()
    assert "0.mp4" not in rows(run_stage("ingest_videos", config))


def test_the_address_is_not_in_the_key_but_what_lies_there_is(run_stage: Stage, tmp_path: Path) -> None:
    video(tmp_path / "in" / "a.mp4", 1)
    by_folder = run_stage("ingest_videos", {"videos": str(tmp_path / "in")})
    assert run_stage("ingest_videos", {"videos": f"file://{tmp_path}/in/"}).key == by_folder.key
    assert run_stage("ingest_videos", {"videos": str(tmp_path / "in"), "minimum_frames": 5}).key != by_folder.key


def test_nothing_readable_is_a_failure_that_says_why(run_stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="no video files in"):
        run_stage("ingest_videos", {"videos": str(tmp_path / "in")})
    (tmp_path / "in" / "a.mp4").write_text("text")
    with pytest.raises(DataError, match=r"1 inputs gave no output at all.*not_a_video: 1"):
        run_stage("ingest_videos", {"videos": str(tmp_path / "in")})


@pytest.fixture
def raw(store: Store) -> Callable[..., Artifact]:
    """A raw_videos artifact of parts, each with one video and its attributes."""

    def make(*seeds: int) -> Artifact:
        entries = []
        for seed in seeds:
            key = f"{seed:064x}"
            if not store.has_part(key):
                attempt = store.part_attempt(key)
                video(attempt.path / "videos" / f"s{seed}.mp4", seed)
                (attempt.path / "attributes").mkdir()
                text = f'{{"schema_version": 1, "session_id": "session {seed}", "view": "front", "shots": []}}'
                (attempt.path / "attributes" / f"s{seed}.json").write_text(text)
                attempt.commit(stage="simulate_videos", kind="part")
            entries.append(store.part(key).entry(f"session_{seed}"))
        return store.attempt(f"{len(seeds) + 1000:064x}").commit(
            stage="simulate_videos", kind="raw_videos", parts=entries
        )

    return make


def test_simulated_videos_come_with_their_sidecars(run_stage: Stage, raw: Any, store: Store, probed: list[str]) -> None:
    from wfm.data.source import open_source

    found = run_stage("ingest_videos", raw=raw(1, 2))
    row = rows(found)["s1.mp4"]
    assert row.source == f"wfm://{1:064x}/videos/s1.mp4"
    assert (row.session_id, row.view, row.attributes) == ("session 1", "front", f"attributes/{row.video_id}.json")
    assert found.part(row.video_id[:2]).open(row.attributes).read().startswith(b'{"schema_version"')
    assert open_source(store, row.source, row.video_id).stat().st_size == row.size_bytes
    probed.clear()
    more = run_stage("ingest_videos", raw=raw(1, 2, 3))
    assert probed == ["s3.mp4"], "a new part changes no other"
    assert len(rows(more)) == 3


def test_two_sources_at_once_are_refused(run_stage: Stage, raw: Any) -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        run_stage("ingest_videos", {"videos": "/x"}, raw=raw(1))


def test_keys_need_no_codec_nor_torch() -> None:
    code = (
        "import sys, components.ingest_videos as i, components.split_clips as s\n"
        "i.CONFIG().what(), s.CONFIG().what()\n"
        "heavy = {'av', 'torch', 'dask', 'distributed', 'cv2', 'scenedetect', 'mujoco'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
