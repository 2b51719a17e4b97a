import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wfm.artifacts import Store
from wfm.errors import DataError
from wfm.evaluation.worlds import Worlds

FPS, FRAMES = 24.0, 48


@pytest.fixture
def raw(tmp_path):
    """A raw_videos artifact with one part that knows one video, and that part's key."""
    store = Store.open(str(tmp_path))
    part_key, key = "a" * 64, "b" * 64
    part = store.part_attempt(part_key)
    (part.path / "truth").mkdir(parents=True)
    (part.path / "videos").mkdir()
    (part.path / "videos" / "x.mp4").write_bytes(b"not looked at")
    rows = [
        {
            "pts_seconds": t / FPS,
            "shot": 0,
            "objects": [{"name": "ball", "rgb": [200, 0, 0], "pixel": [t / 100, 0.5], "visible_pixels": 9}],
        }
        for t in range(FRAMES)
    ]
    pq.write_table(pa.Table.from_pylist(rows), part.path / "truth" / "x.parquet")
    made = part.commit(stage="simulate_videos", kind="part")
    attempt = store.attempt(key)
    (attempt.path / "note.txt").write_text("own file")
    return attempt.commit(stage="simulate_videos", kind="raw_videos", parts=[made.entry("session_0000")]), part_key


def test_the_objects_are_those_of_the_frame(raw):
    artifact, part = raw
    seconds = 0.5 + np.arange(4) / FPS
    found = Worlds(artifact).objects(f"wfm://{part}/videos/x.mp4", seconds)
    assert [frame[0]["pixel"][0] for frame in found] == pytest.approx([0.12, 0.13, 0.14, 0.15])


def test_what_is_not_of_this_artifact_is_not_known(raw):
    artifact, part = raw
    worlds, seconds = Worlds(artifact), np.zeros(1)
    for source in (
        "/home/x.mp4",
        f"wfm://{'c' * 64}/videos/x.mp4",
        f"wfm://{part}/videos/y.mp4",
        f"wfm://{part}/../x.mp4",
    ):
        assert worlds.objects(source, seconds) is None


def test_a_window_that_misses_the_frames_is_an_error_and_not_a_guess(raw):
    artifact, part = raw
    with pytest.raises(DataError, match="miss the simulator's"):
        Worlds(artifact).objects(f"wfm://{part}/videos/x.mp4", np.array([FRAMES / FPS + 1.0]))


def test_a_closed_truth_stays_closed(raw):
    artifact, part = raw
    closed = artifact.without("truth/")
    with pytest.raises(Exception, match="closed"):
        Worlds(closed).objects(f"wfm://{part}/videos/x.mp4", np.zeros(1))
