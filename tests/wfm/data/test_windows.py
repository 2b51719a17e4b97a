"""Windows of a data set's clips: geometry, actions, and refusals."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wfm.actions import ActionSpec
from wfm.data.shards import Sample
from wfm.data.windows import clip_windows, constant_rate, decode_sample, is_moving, read_actions
from wfm.errors import DataError

SPEC = ActionSpec(
    names=("camera_orbit_rate", "actor_velocity"), units=("deg/s", "m/s"), frame="f", mean=(0.0, 0.0), scale=(30.0, 1.0)
)
ROW = {"session_id": "s", "video_id": "v", "source": "/a b.mp4", "start_seconds": 2.0, "fps": 24.0}


def table(actions: np.ndarray, note: dict | None = None) -> bytes:
    rows = pa.table({"action": [list(map(float, row)) for row in actions]})
    told = {"action_spec": SPEC.resolved()} if note is None else note
    out = io.BytesIO()
    pq.write_table(rows.replace_schema_metadata({b"wfm": json.dumps(told).encode()}), out)
    return out.getvalue()


@pytest.fixture
def sample(tmp_path, write_video) -> Sample:
    frames = np.repeat(np.arange(20, dtype=np.uint8)[:, None, None, None] * 10, 32, axis=1)
    clip = np.broadcast_to(frames, (20, 32, 48, 3)).copy()
    video = write_video(tmp_path / "clip.mp4", clip, pixel_format="yuv444p", qp="0").read_bytes()
    actions = np.stack([np.full(20, 30.0), np.arange(20)], axis=1)
    return Sample("c1", {"mp4": video, "json": json.dumps(ROW).encode(), "actions.parquet": table(actions)})


def test_windows_hold_their_own_frames_and_actions(sample):
    clip = decode_sample(sample, (16, 24))
    found = list(clip_windows(clip, num_frames=9, stride_frames=4))
    assert [w.start_frame for w in found] == [0, 4, 8]
    for window in found:
        assert window.frames.shape == (9, 16, 24, 3)
        brightness = window.frames.mean(axis=(1, 2, 3))
        assert np.allclose(brightness, 10 * (window.start_frame + np.arange(9)), atol=3)
        assert window.actions[:, 1].tolist() == list(range(window.start_frame, window.start_frame + 9))
        assert window.start_seconds == pytest.approx(2 + window.start_frame / 24)
        assert (window.session_id, window.video_id, window.source) == ("s", "v", "/a b.mp4")
        assert window.action_spec == SPEC
        assert window.moving
    assert len({w.sample_id for w in found}) == 3


def test_a_short_clip_has_no_windows(sample):
    assert list(clip_windows(decode_sample(sample, (16, 24)), num_frames=21, stride_frames=1)) == []


def test_video_without_actions_has_the_null_action(sample):
    del sample.members["actions.parquet"]
    window = next(clip_windows(decode_sample(sample, (16, 24)), num_frames=5, stride_frames=1))
    assert window.actions.shape == (5, 0)
    assert window.action_spec.width == 0
    assert not window.moving


def test_what_does_not_fit_is_refused(sample):
    with pytest.raises(DataError, match="20 frames but 3 actions"):
        decode_sample(Sample("c", {**sample.members, "actions.parquet": table(np.zeros((3, 2)))}), (16, 24))
    with pytest.raises(DataError, match="action_spec"):
        read_actions(table(np.zeros((3, 2)), note={}), 3, "c")
    with pytest.raises(DataError, match="no member 'mp4'"):
        decode_sample(Sample("c", {"json": b"{}"}), (16, 24))


def test_only_the_camera_counts_as_motion():
    actions = np.zeros((5, 2), np.float32)
    actions[:, 1] = 1
    assert not is_moving(actions, SPEC)
    actions[2, 0] = -20
    assert is_moving(actions, SPEC)
    assert is_moving(np.ones((3, 1)), ActionSpec(names=("x",), units=("m",), mean=(0.0,), scale=(1.0,)))


def test_constant_rate_ignores_the_action_after_the_window():
    actions = np.full((5, 2), 40.0, np.float32)
    actions[-1] = 0
    assert constant_rate(actions, SPEC, "camera_orbit_rate") == 40
    actions[2, 0] = 41
    assert constant_rate(actions, SPEC, "camera_orbit_rate") is None
    assert constant_rate(actions, SPEC, "zoom") is None
