"""A small corpus as files, looked at as a reader of the archive would."""

import hashlib
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from wfm.actions import ActionSpec
from wfm.simulation.camera import FOV_Y_DEGREES
from wfm.simulation.config import SimulationConfig
from wfm.simulation.corpus import simulate_corpus, simulate_session
from wfm.simulation.session import plan_session


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def decode(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with av.open(str(path)) as container:
        got = [(frame.to_ndarray(format="rgb24"), float(frame.time)) for frame in container.decode(video=0)]
    return np.stack([g[0] for g in got]), np.array([g[1] for g in got])


@pytest.fixture(scope="session")
def corpus(small: SimulationConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All six sessions, made by two processes."""
    out = tmp_path_factory.mktemp("corpus")
    simulate_corpus(small, out)
    return out / "parts"


def known(corpus: Path, index: int) -> dict[str, Any]:
    name = f"session_{index:04d}"
    videos: dict[str, Any] = json.loads((corpus / name / "truth" / f"{name}.json").read_text())["videos"]
    return videos


def test_files_do_not_depend_on_workers_or_history(corpus: Path, small: SimulationConfig, tmp_path: Path) -> None:
    for index in (5, 0, 4):  # another order, another process
        simulate_session(small, index, tmp_path / str(index))
        assert hashes(tmp_path / str(index)) == hashes(corpus / f"session_{index:04d}")


def test_counts_are_what_is_there(small: SimulationConfig, corpus: Path, tmp_path: Path) -> None:
    counts = simulate_session(small, 3, tmp_path)
    assert counts["videos"] == len(list((tmp_path / "videos").iterdir())) == 3
    assert counts["duplicates"] == 1
    frames = sum(shot.num_frames for shot in plan_session(small, 3).shots)
    assert counts["frames"] == 2 * frames


def test_every_view_has_its_sidecars_and_plain_files_have_none(corpus: Path) -> None:
    for part in sorted(corpus.iterdir()):
        videos = {path.stem for path in (part / "videos").iterdir()}
        views = {name for name in videos if "_view_" in name}
        for folder in ("actions", "attributes"):
            assert {path.stem for path in (part / folder).iterdir()} == views
        assert {path.stem for path in (part / "truth").glob("*.parquet")} == views
        assert set(known(corpus, int(part.name[-4:]))) == videos


def test_rows_meet_the_frames(corpus: Path, small: SimulationConfig) -> None:
    part = corpus / "session_0001"
    _, times = decode(part / "videos" / "session_0001_view_1.mp4")
    actions = pq.read_table(part / "actions" / "session_0001_view_1.parquet")
    truth = pq.read_table(part / "truth" / "session_0001_view_1.parquet").to_pylist()
    np.testing.assert_allclose(actions["pts_seconds"].to_numpy(), times, atol=1e-4)
    assert [row["pts_seconds"] for row in truth] == actions["pts_seconds"].to_pylist()
    about = json.loads(actions.schema.metadata[b"wfm"])
    assert (about["session_id"], about["view"], about["schema_version"]) == ("session_0001", 1, 1)
    spec = ActionSpec.from_json(about["action_spec"])
    assert {len(action) for action in actions["action"].to_pylist()} == {spec.width}
    assert set(actions["fov_y_degrees"].to_pylist()) == {FOV_Y_DEGREES}
    rows = [row["action"][0] for row in actions.to_pylist()]
    np.testing.assert_allclose(rows, [row["orbit_rate"] for row in truth], rtol=1e-6)


def test_recorded_poses_move_as_the_actions_say(corpus: Path, small: SimulationConfig) -> None:
    part = corpus / "session_0001"
    rows = pq.read_table(part / "actions" / "session_0001_view_0.parquet").to_pylist()
    truth = pq.read_table(part / "truth" / "session_0001_view_0.parquet").to_pylist()
    for now, after, here, there in zip(rows, rows[1:], truth, truth[1:], strict=False):
        if here["shot"] != there["shot"]:
            continue
        turn = there["camera_yaw_degrees"] - here["camera_yaw_degrees"]
        assert turn * small.fps == pytest.approx(now["action"][0], abs=1e-4)
        angles = [np.degrees(np.arctan2(r["camera_position"][1], r["camera_position"][0])) for r in (now, after)]
        assert (angles[1] - angles[0] - turn + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)
        actor = np.subtract(there["objects"][0]["position"], here["objects"][0]["position"])
        np.testing.assert_allclose(actor[:2] * small.fps, now["action"][2:], atol=1e-5)


def test_views_see_the_same_world_from_elsewhere(corpus: Path) -> None:
    part = corpus / "session_0000" / "truth"
    first, second = (pq.read_table(part / f"session_0000_view_{v}.parquet").to_pylist() for v in (0, 1))
    assert [[o["position"] for o in row["objects"]] for row in first] == [
        [o["position"] for o in row["objects"]] for row in second
    ]
    assert [[o["pixel"] for o in row["objects"]] for row in first] != [
        [o["pixel"] for o in row["objects"]] for row in second
    ]


def test_cuts_are_hard_and_where_truth_says(corpus: Path, small: SimulationConfig) -> None:
    for index in range(6):
        name = f"session_{index:04d}_view_0"
        pictures, times = decode(corpus / f"session_{index:04d}" / "videos" / f"{name}.mp4")
        entry = known(corpus, index)[name]
        jumps = np.abs(np.diff(pictures.astype(float), axis=0)).mean(axis=(1, 2, 3))
        cuts = [int(np.abs(times - seconds).argmin()) for seconds in entry["cuts_seconds"]]
        assert len(cuts) == len(entry["shots"]) - 1 >= 1
        others = np.delete(jumps, [cut - 1 for cut in cuts])
        assert min(jumps[cut - 1] for cut in cuts) > 2 * np.median(others)
        assert entry["shots"][-1]["end_seconds"] == pytest.approx(len(times) / small.fps)


def shot_frames(corpus: Path, kind: str) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Pictures and truth rows of the first shot of a kind."""
    for index in range(6):
        name = f"session_{index:04d}_view_0"
        part = corpus / f"session_{index:04d}"
        for number, shot in enumerate(known(corpus, index)[name]["shots"]):
            if shot["kind"] == kind:
                rows = pq.read_table(part / "truth" / f"{name}.parquet").to_pylist()
                keep = [i for i, row in enumerate(rows) if row["shot"] == number]
                return decode(part / "videos" / f"{name}.mp4")[0][keep], [rows[i] for i in keep]
    raise AssertionError(f"no {kind} shot")


def test_junk_shots_are_what_they_are_called(corpus: Path) -> None:
    black, rows = shot_frames(corpus, "black")
    assert black.max() < 12
    assert not any(row["objects"] for row in rows)
    frozen, _ = shot_frames(corpus, "frozen")
    assert np.abs(frozen.astype(int) - frozen[0]).mean() < 2.5
    assert frozen.std() > 15
    moving, _ = shot_frames(corpus, "world")
    assert np.abs(moving.astype(int) - moving[0]).mean() > 2.9
    text, _ = shot_frames(corpus, "text")
    band = text[:, 44:55].astype(float)  # white letters on a dark banner
    assert np.median(band) < 70
    assert (band > 120).all(axis=-1).mean() > 0.03
    assert np.median(text[:, 30:42]) > 90


def test_copies_are_copies(corpus: Path) -> None:
    folder = corpus / "session_0003" / "videos"
    entry = known(corpus, 3)["session_0003_copy"]
    assert entry["kind"] == "exact_duplicate"
    assert (folder / "session_0003_copy.mp4").read_bytes() == (folder / f"{entry['duplicate_of']}.mp4").read_bytes()
    folder = corpus / "session_0004" / "videos"
    entry = known(corpus, 4)["session_0004_upload"]
    assert entry["kind"] == "reencoded_duplicate"
    copy, _ = decode(folder / "session_0004_upload.mp4")
    source, _ = decode(folder / f"{entry['duplicate_of']}.mp4")
    assert len(copy) == len(source)
    assert copy.shape[1] == 48
    means = [np.array([p.mean() for p in pictures]) for pictures in (copy, source)]
    assert np.abs(means[0] - means[1]).max() < 6


def test_the_static_video_never_moves(corpus: Path) -> None:
    entry = known(corpus, 5)["session_0005_lobby"]
    pictures, _ = decode(corpus / "session_0005" / "videos" / "session_0005_lobby.mp4")
    assert entry["kind"] == "static"
    assert entry["cuts_seconds"] == []
    assert np.abs(pictures.astype(int) - pictures[0]).mean() < 2.5


def test_attributes_describe_each_shot(corpus: Path) -> None:
    for index in range(6):
        name = f"session_{index:04d}_view_0"
        about = json.loads((corpus / f"session_{index:04d}" / "attributes" / f"{name}.json").read_text())
        shots = known(corpus, index)[name]["shots"]
        assert [shot["start_seconds"] for shot in about["shots"]] == [shot["start_seconds"] for shot in shots]
        for told, true in zip(about["shots"], shots, strict=True):
            assert [item["color"] for item in told["objects"]] == true["objects"]
            assert all(set(item) == {"color", "shape", "size", "motion"} for item in told["objects"])
            assert (told["camera"] == "is static") == (true["camera"] == "static")


def test_objects_stay_in_view(corpus: Path) -> None:
    inside = []
    for index in range(6):
        rows = pq.read_table(
            corpus / f"session_{index:04d}" / "truth" / f"session_{index:04d}_view_0.parquet"
        ).to_pylist()
        inside += [min(o["pixel"]) >= 0 and max(o["pixel"]) <= 1 for row in rows for o in row["objects"]]
    assert np.mean(inside) > 0.98
