"""Faults of other curation systems that show in whole stages only; see tests/wfm/curation/rival_faults.toml."""

import shutil
import socket
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wfm.artifacts import Artifact
from wfm.curation.cut import shots_transnet
from wfm.curation.cut.shot_detection import ShotConfig
from wfm.data.decode import read_frames
from wfm.records import Clip, Video

Stage = Callable[..., Artifact]
Film = Callable[..., Path]


def clips(artifact: Artifact) -> list[Clip]:
    return sorted(Clip.from_table(artifact.table("clips")), key=lambda clip: (clip.video_id, clip.start_pts))


def uneven(path: Path, times: list[int]) -> Path:
    """Two shots of 40 frames, shown at ``times`` [1/48 s]; a shot's pictures are of one colour that grows a little brighter."""
    import av

    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 48)
        for index, time in enumerate(times):
            picture = np.full((64, 96, 3), 30 if index < 40 else 170, np.uint8) + np.uint8(index)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 48)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("copy_codecs", [["h264"], []])
def test_spans_of_uneven_video_are_its_own_times_and_hold_its_last_frame(
    run_stage: Stage, tmp_path: Path, copy_codecs: list[str]
) -> None:
    """The first shot at 24 frames a second, the second at 12: by an average rate the cut would lie 0.6 s too late."""
    (tmp_path / "in").mkdir()
    times = [*range(0, 80, 2), *range(80, 240, 4)]
    source = uneven(tmp_path / "in" / "a.mp4", times)
    videos = run_stage("ingest_videos", {"videos": str(tmp_path / "in")})
    found = run_stage("split_clips", {"cut": {"copy_codecs": copy_codecs}}, videos=videos)
    rows = clips(found)
    assert [(clip.start_seconds, clip.num_frames) for clip in rows] == [(0, 40), (pytest.approx(80 / 48), 40)]
    (video,) = Video.from_table(videos.table("videos"))
    assert [clip.end_seconds for clip in rows] == pytest.approx([80 / 48, video.duration_seconds])
    last = read_frames(found.part(found.parts[0].name).fetch(rows[1].path))[0][-1]
    assert np.abs(last.astype(int) - read_frames(source)[0][-1]).mean() < 2


def test_ids_are_of_content_and_stay_when_everything_moves(run_stage: Stage, tmp_path: Path, film: Film) -> None:
    for name in ("a", "ü b"):
        (tmp_path / "old bucket").mkdir(exist_ok=True)
        film(tmp_path / "old bucket" / f"{name}.mp4", len(name))
    first = run_stage("split_clips", videos=run_stage("ingest_videos", {"videos": str(tmp_path / "old bucket")}))
    (tmp_path / "new" / "deep").mkdir(parents=True)
    for number, path in enumerate(sorted((tmp_path / "old bucket").iterdir())):
        shutil.move(path, tmp_path / "new" / "deep" / f"{number}.mp4")
    again = run_stage("split_clips", videos=run_stage("ingest_videos", {"videos": str(tmp_path / "new")}))
    known = [(clip.video_id, clip.clip_id, clip.clip_sha256) for clip in clips(first)]
    assert known == [(clip.video_id, clip.clip_id, clip.clip_sha256) for clip in clips(again)]
    assert len(known) == 4


def test_a_bad_file_is_read_once_and_stops_nothing(
    run_stage: Stage, tmp_path: Path, film: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wfm.curation.source import ingest

    read: list[str] = []
    examine = ingest.examine

    def counted(file: Any, *rest: Any) -> Any:
        read.append(file.name)
        return examine(file, *rest)

    monkeypatch.setattr(ingest, "examine", counted)
    folder = tmp_path / "in"
    folder.mkdir()
    film(folder / "good.mp4", 1)
    whole = film(tmp_path / "whole.mp4", 2).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    videos = run_stage("ingest_videos", {"videos": str(folder)})
    assert videos.manifest.skipped == {"truncated": 1}
    read.clear()
    film(folder / "late.mp4", 3)
    videos = run_stage("ingest_videos", {"videos": str(folder)})
    assert read == ["late.mp4"]
    assert {row.name: row.status for row in Video.from_table(videos.table("videos"))} == {
        "good.mp4": "ok", "cut.mp4": "failed", "late.mp4": "ok",
    }  # fmt: skip


def test_everything_runs_on_a_cpu_without_a_network(
    run_stage: Stage, tmp_path: Path, film: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the networks that come in packages: no download, no GPU."""

    def refused(*_: Any) -> None:
        raise AssertionError("a connection was asked for")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    (tmp_path / "in").mkdir()
    film(tmp_path / "in" / "a.mp4", 0, frames=40)
    videos = run_stage("ingest_videos", {"videos": str(tmp_path / "in")})
    shots_transnet.load(ShotConfig().transnet_weights_sha256, "cpu")
    made = {"clips": run_stage("split_clips", {"shots": {"minimum_seconds": 0.5}}, videos=videos)}
    scored = {"measures": True, "text_detector": "ppocr"}
    made["scores"] = run_stage("score_clips", scored, clips=made["clips"])
    made["captions"] = run_stage("caption_clips", clips=made["clips"])
    made["embeddings"] = run_stage("embed_clips", {"signatures": True}, clips=made["clips"])
    duplicates = run_stage(
        "dedup_clips", {"look": True}, **{name: made[name] for name in ("clips", "scores", "embeddings")}
    )
    chosen = run_stage(
        "select_clips", {"minimum_frames": 8}, duplicates=duplicates, clips=made["clips"], scores=made["scores"]
    )
    dataset = run_stage("write_shards", videos=videos, selection=chosen, **made)
    assert dataset.manifest.counts["outputs"] == len(clips(made["clips"])) > 0
