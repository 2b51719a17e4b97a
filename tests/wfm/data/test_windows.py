"""Windows of a data set's clips: geometry and refusals."""

import json
import weakref

import numpy as np
import pytest

from wfm.data.shards import Sample
from wfm.data.windows import clip_windows, decode_sample
from wfm.errors import DataError

ROW = {"session_id": "s", "video_id": "v", "source": "/a b.mp4", "start_seconds": 2.0, "fps": 24.0}


@pytest.fixture
def sample(tmp_path, write_video) -> Sample:
    frames = np.repeat(np.arange(20, dtype=np.uint8)[:, None, None, None] * 10, 32, axis=1)
    clip = np.broadcast_to(frames, (20, 32, 48, 3)).copy()
    video = write_video(tmp_path / "clip.mp4", clip, pixel_format="yuv444p", qp="0").read_bytes()
    return Sample("c1", {"mp4": video, "json": json.dumps(ROW).encode()})


def test_windows_hold_their_own_frames(sample):
    clip = decode_sample(sample, (16, 24))
    found = list(clip_windows(clip, num_frames=9, stride_frames=4))
    assert [w.start_frame for w in found] == [0, 4, 8]
    for window in found:
        assert window.frames.shape == (9, 16, 24, 3)
        brightness = window.frames.mean(axis=(1, 2, 3))
        assert np.allclose(brightness, 10 * (window.start_frame + np.arange(9)), atol=3)
        assert window.start_seconds == pytest.approx(2 + window.start_frame / 24)
        assert (window.session_id, window.video_id, window.source) == ("s", "v", "/a b.mp4")
    assert len({w.sample_id for w in found}) == 3


def test_a_window_that_is_kept_keeps_no_clip(sample):
    """One frame of an hour would hold the hour."""
    clip = decode_sample(sample, (16, 24))
    found = list(clip_windows(clip, num_frames=9, stride_frames=4))
    assert all(window.frames.base is None for window in found)
    assert not any(np.shares_memory(window.frames, clip.frames) for window in found)
    alive = weakref.ref(clip.frames)
    del clip
    assert alive() is None


def test_pictures_are_brought_to_a_size_that_depends_on_their_own(sample):
    asked = []

    def half(height, width):
        asked.append((height, width))
        return height // 2, width // 2

    assert decode_sample(sample, half).frames.shape == (20, 16, 24, 3)
    assert asked == [(32, 48)]
    assert np.array_equal(decode_sample(sample, half).frames, decode_sample(sample, (16, 24)).frames)


def test_a_short_clip_has_no_windows(sample):
    assert list(clip_windows(decode_sample(sample, (16, 24)), num_frames=21, stride_frames=1)) == []


def test_what_does_not_fit_is_refused(sample):
    with pytest.raises(DataError, match="no member 'mp4'"):
        decode_sample(Sample("c", {"json": b"{}"}), (16, 24))
