"""Clips and images at their own shape: aspect kept, limits held, what is left over counted."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from wfm.data.own_shape import OwnShape, OwnSize, TooSmall
from wfm.data.shards import ShardWriter
from wfm.data.windows import DecodedClip

ROW = {"session_id": "s", "video_id": "v", "source": "a", "start_seconds": 2.0, "fps": 24.0}
IMAGE = {**ROW, "kind": "image", "fps": 0.0, "start_seconds": 0.0, "num_frames": 1}


@settings(max_examples=500, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(64, 1 << 20), st.sampled_from([1, 2, 8, 16, 32]))
@example(720, 1280, 65536, 8)
@example(64, 64, 4096, 8)
@example(4999, 1, 4096, 8)
def test_sizes_hold_every_limit_and_keep_the_aspect(height: int, width: int, most: int, multiple: int) -> None:
    own = OwnSize(most, multiple)
    scale = min(1.0, (most / (height * width)) ** 0.5)
    try:
        (tall, wide), (high, broad) = own.sides(height, width), own(height, width)
    except TooSmall:
        assert min(height, width) * scale < multiple + 1e-6
        return
    assert tall % multiple == wide % multiple == 0
    assert tall * wide <= most
    assert high <= height, "never up"
    assert broad <= width
    assert (high == tall) or (broad == wide), "no more is cut off than has to be"
    assert 0 <= high - tall < multiple
    assert 0 <= broad - wide < multiple
    assert abs(high * width / height - broad) <= max(1.0, width / height), "the same aspect, to a pixel"
    assert tall > height * scale - multiple - 1, "as large as it may be"
    assert wide > width * scale - multiple - 1


def clip(frames: int, row: dict = ROW, size: tuple[int, int] = (20, 27)) -> DecodedClip:
    pixels = np.arange(frames * size[0] * size[1] * 3, dtype=np.uint32).reshape(frames, *size, 3)
    return DecodedClip("c", row, (pixels % 251).astype(np.uint8))


@pytest.mark.parametrize(
    ("frames", "temporal", "most", "lengths"),
    [
        (33, 8, 0, [33]), (40, 8, 0, [33]), (41, 8, 0, [41]),  # whole, but for what no latent frame takes
        (8, 8, 0, []), (9, 8, 0, [9]), (1, 8, 0, []), (0, 8, 0, []),  # one latent frame would be a still
        (40, 8, 17, [17, 17]), (52, 8, 17, [17, 17, 17]), (43, 8, 17, [17, 17, 9]), (40, 8, 20, [17, 17]),
        (7, 1, 0, [7]), (7, 1, 3, [3, 3, 1]), (3, 8, 1, [1, 1, 1]), (20, 8, 5, []),
    ],
)  # fmt: skip
def test_a_clip_is_taken_whole_or_in_pieces_one_after_the_other(frames, temporal, most, lengths) -> None:
    whole = clip(frames)
    found = list(OwnShape(OwnSize(4096, 8), temporal, most).pieces(whole))
    assert [len(piece.frames) for piece in found] == lengths
    start = 0
    for piece in found:
        assert piece.start_frame == start
        assert piece.start_seconds == 2 + start / 24
        assert np.array_equal(piece.frames, whole.frames[start : start + len(piece.frames), 2:18, 1:25]), "the middle"
        assert not np.shares_memory(piece.frames, whole.frames)
        start += len(piece.frames)


def test_an_image_is_one_frame_whatever_the_tokenizer_packs() -> None:
    (found,) = OwnShape(OwnSize(4096, 8), 8).pieces(clip(1, IMAGE))
    assert (found.kind, found.fps, found.start_seconds, found.frames.shape) == ("image", 0.0, 0.0, (1, 16, 24, 3))


@pytest.fixture
def shard(tmp_path: Path, write_video) -> Path:
    """A landscape and a portrait video, a short one, two images, one of them narrow."""

    def video(frames: int, height: int, width: int, fps: float) -> dict[str, bytes]:
        pixels = np.linspace(0, 255, frames * height * width * 3).reshape(frames, height, width, 3).astype(np.uint8)
        data = write_video(tmp_path / "clip.mp4", pixels, fps=int(fps)).read_bytes()
        return {"mp4": data, "json": json.dumps({**ROW, "fps": fps}).encode()}

    def image(height: int, width: int) -> dict[str, bytes]:
        file = io.BytesIO()
        pixels = np.linspace(0, 255, height * width * 3).reshape(height, width, 3).astype(np.uint8)
        Image.fromarray(pixels).save(file, "png")
        return {"png": file.getvalue(), "json": json.dumps(IMAGE).encode()}

    with ShardWriter(tmp_path, "0a") as writer:
        writer.write("wide", video(20, 32, 48, 24.0))
        writer.write("tall", video(12, 64, 32, 30.0))
        writer.write("short", video(3, 32, 32, 24.0))
        writer.write("picture", image(50, 30))
        writer.write("narrow", image(16, 2000))
        writer.write("left_out", image(50, 30))
    return tmp_path / "0a-00000.tar"


def test_every_clip_of_a_shard_at_its_own_shape_and_the_rest_by_reason(shard: Path) -> None:
    counts = Counter()
    found = list(OwnShape(OwnSize(1200, 8), 4).samples([shard], {"left_out"}, counts))
    assert {piece.clip_id: (*piece.frames.shape[:3], piece.fps, piece.kind) for piece in found} == {
        "wide": (17, 24, 40, 24.0, "video"),
        "tall": (9, 48, 24, 30.0, "video"),
        "picture": (1, 40, 24, 0.0, "image"),
    }
    assert counts == {"clips": 5, "too_short": 1, "too_small": 1, "frames_left_over": 3 + 3 + 3}
