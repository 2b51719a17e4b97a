"""Ingest then split: frames, actions and attributes of a clip belong together, and what is left out is in the books."""

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.wfm.numbered import remux
from wfm.actions import ActionSpec
from wfm.artifacts import Artifact, Store
from wfm.curation.step import SkippedRow
from wfm.data.decode import read_frames
from wfm.data.source import SourceGone
from wfm.records import Clip, clip_id_of

Stage = Callable[..., Artifact]
CUTS = (0, 48, 60, 120)  # frames: shots of 2.0, 0.5 and 2.5 s


def picture(shot: int) -> np.ndarray:
    rng = np.random.default_rng(shot)
    return np.kron(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))


def write(path: Path, *, codec: str = "libx264", seed: int = 0, container: str | None = None, **options: str) -> Path:
    """Three shots; a band of the top row's brightness counts the frames."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.options = options
        for index in range(CUTS[-1]):
            image = picture(sum(index >= cut for cut in CUTS) + 10 * seed)
            image[:16] = 2 * index
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode(None))
    return path


def sidecars(path: Path, *, last: int = CUTS[-1], session: str = "s") -> None:
    """Actions whose value is the frame's number, and what is said of the shots."""
    spec = ActionSpec(names=("n",), units=("m/s",), mean=(0.0,), scale=(1.0,))
    header = {"schema_version": 1, "action_spec": spec.resolved(), "session_id": session, "view": "left"}
    numbers = np.arange(last)
    table = pa.table(
        {"pts_seconds": numbers / 24, "action": pa.array([[float(n)] for n in numbers], pa.list_(pa.float32()))}
    )
    pq.write_table(
        table.replace_schema_metadata({b"wfm": json.dumps(header).encode()}), path.with_suffix(".actions.parquet")
    )
    shots = [
        {"start_seconds": a / 24, "end_seconds": b / 24, "number": i}
        for i, (a, b) in enumerate(itertools.pairwise(CUTS))
    ]
    text = json.dumps({"schema_version": 1, "session_id": session, "view": "left", "shots": shots})
    path.with_suffix(".attributes.json").write_text(text)


def split(run_stage: Stage, folder: Path, config: dict[str, Any] | None = None) -> Artifact:
    return run_stage("split_clips", config, videos=run_stage("ingest_videos", {"videos": str(folder)}))


def clips(artifact: Artifact) -> list[tuple[Artifact, Clip]]:
    found = [
        (artifact.part(e.name), c)
        for e in artifact.parts
        for c in Clip.from_table(artifact.part(e.name).table("clips"))
    ]
    return sorted(found, key=lambda item: (item[1].source, item[1].start_pts))


def test_clips_hold_their_own_frames_actions_and_attributes(run_stage: Stage, tmp_path: Path) -> None:
    sidecars(write(tmp_path / "in" / "a.mp4"))
    found = split(run_stage, tmp_path / "in")
    rows = clips(found)
    assert [(c.start_seconds, c.end_seconds, c.num_frames) for _, c in rows] == [(0.0, 2.0, 48), (2.5, 5.0, 60)]
    source = read_frames(tmp_path / "in" / "a.mp4")[0]
    for (part, clip), first, shot in zip(rows, (0, 60), (0, 2), strict=True):
        assert clip.clip_id == clip_id_of(clip.video_id, clip.start_pts, clip.end_pts)
        assert (clip.session_id, clip.view, clip.fps) == ("s", "left", pytest.approx(24))
        data = part.open(clip.path).read()
        assert hashlib.sha256(data).hexdigest() == clip.clip_sha256
        frames, seconds = read_frames(part.fetch(clip.path))
        assert frames.shape == (clip.num_frames, clip.height, clip.width, 3)
        np.testing.assert_allclose(seconds, np.arange(clip.num_frames) / 24)
        assert np.abs(frames.astype(int) - source[first : first + clip.num_frames]).mean() < 3
        table = pq.read_table(part.fetch(clip.action_path))
        assert [row[0] for row in table["action"].to_pylist()] == list(range(first, first + clip.num_frames))
        np.testing.assert_allclose(table["pts_seconds"].to_numpy(), seconds, atol=1e-9)
        assert json.loads(table.schema.metadata[b"wfm"])["action_spec"]["names"] == ["n"]
        assert json.loads(clip.attributes_json)["number"] == shot
    assert found.manifest.skipped == {"below_minimum_length": 1}
    (skip,) = SkippedRow.from_table(found.table("skips"))
    assert (skip.start_seconds, skip.end_seconds) == (2.0, 2.5)
    assert skip.reason == "below_minimum_length: 0.500 s, at least 1.5 s are asked"


def test_options_change_what_they_say(run_stage: Stage, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.mp4")

    def spans(config: dict[str, Any]) -> list[tuple[float, float]]:
        return [(clip.start_seconds, clip.end_seconds) for _, clip in clips(split(run_stage, tmp_path / "in", config))]

    assert spans({"shots": {"minimum_seconds": 0.4}}) == [(0.0, 2.0), (2.0, 2.5), (2.5, 5.0)]
    assert spans({"shots": {"detector": "whole"}}) == [(0.0, 5.0)]
    assert spans({"shots": {"detector": "stride", "stride_seconds": 2}}) == [(0.0, 2.0), (2.0, 4.0)]
    assert spans({"shots": {"minimum_seconds": 0.5, "maximum_seconds": 1.25}})[-2:] == [(2.5, 3.75), (3.75, 5.0)]
    assert spans({"shots": {"crop_start_seconds": 0.25}}) == [(0.25, 2.0), (2.75, 5.0)]
    encoded = clips(split(run_stage, tmp_path / "in", {"cut": {"copy_codecs": []}}))
    assert {c.transcode for _, c in encoded} == {"encode"}


def test_a_video_without_sidecars_has_clips_without_actions(run_stage: Stage, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.mp4")
    for _, clip in clips(split(run_stage, tmp_path / "in")):
        assert (clip.action_path, clip.attributes_json, clip.session_id) == ("", "", clip.video_id)


def test_a_span_without_actions_is_left_out_where_its_video_has_some(run_stage: Stage, tmp_path: Path) -> None:
    sidecars(write(tmp_path / "in" / "a.mp4"), last=70)
    found = split(run_stage, tmp_path / "in")
    assert [clip.start_seconds for _, clip in clips(found)] == [0.0]
    assert found.manifest.skipped == {"actions_missing": 1, "below_minimum_length": 1}


def test_a_video_without_a_sound_picture_is_left_out_whole(run_stage: Stage, tmp_path: Path) -> None:
    """All of it refers to a key frame that is not there."""
    write(tmp_path / "in" / "good.mp4")
    whole = write(tmp_path / "bad.mp4", codec="mpeg4", container="mp4", seed=1, g="600", sc_threshold="1000000000")
    remux(whole, tmp_path / "in" / "bad.mp4", lambda number, _: number >= 5)
    found = split(run_stage, tmp_path / "in")
    assert {Path(clip.source).name for _, clip in clips(found)} == {"good.mp4"}
    assert found.manifest.skipped == {"below_minimum_length": 1, "decode_error": 1}
    listed = {
        f"parts/{e.name}/{c.path}" for e in found.parts for c in Clip.from_table(found.part(e.name).table("clips"))
    }
    assert {file.path for file in found.files() if file.path.endswith(".mp4")} == listed, "no stray files"


def test_a_source_that_changed_since_ingest_is_refused(run_stage: Stage, tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "a.mp4")
    videos = run_stage("ingest_videos", {"videos": str(tmp_path / "in")})
    write(path, seed=3)
    with pytest.raises(SourceGone, match=r"has changed since it was ingested.*ingest again"):
        run_stage("split_clips", {}, videos=videos)


def test_one_more_video_splits_one_more(run_stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wfm.curation.cut.split import SplitVideo

    write(tmp_path / "in" / "a.mp4")
    first = split(run_stage, tmp_path / "in")
    names: list[str] = []
    call = SplitVideo.__call__

    def watched(self: SplitVideo, row: Any) -> Any:
        names.append(row.name)
        return call(self, row)

    monkeypatch.setattr(SplitVideo, "__call__", watched)
    write(tmp_path / "in" / "b.mp4", seed=5)
    second = split(run_stage, tmp_path / "in")
    assert names == ["b.mp4"]
    assert {entry.key for entry in first.parts} < {entry.key for entry in second.parts}


def test_splitting_again_gives_the_same_bytes(run_stage: Stage, store: Store, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.mp4")
    config = {"shots": {"minimum_seconds": 0.3}, "cut": {"copy_codecs": []}}
    first = split(run_stage, tmp_path / "in", config)
    digests = {entry.name: entry.digest for entry in first.parts}
    store.invalidate(first.key, "to make it again")  # its parts too
    again = split(run_stage, tmp_path / "in", config)
    assert again.manifest.generation != first.manifest.generation
    assert {entry.name: entry.digest for entry in again.parts} == digests
