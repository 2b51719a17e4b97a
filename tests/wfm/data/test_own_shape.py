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

from wfm.data.frame_order import FrameOrder
from wfm.data.own_shape import OwnShape, OwnSize, TooSmall
from wfm.data.shards import ShardWriter, iter_samples
from wfm.data.windows import Window, clip_windows, decode_sample

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


def pixels(frames: int, size: tuple[int, int] = (20, 27)) -> np.ndarray:
    values = np.arange(frames * size[0] * size[1] * 3, dtype=np.uint32).reshape(frames, *size, 3)
    return (values % 251).astype(np.uint8)


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize(
    ("frames", "temporal", "most", "lengths"),
    [
        (33, 8, 0, [33]), (40, 8, 0, [33]), (41, 8, 0, [41]),  # whole, but for what no latent frame takes
        (8, 8, 0, []), (9, 8, 0, [9]), (1, 8, 0, []), (0, 8, 0, []),  # one latent frame would be a still
        (40, 8, 17, [17, 17]), (52, 8, 17, [17, 17, 17]), (43, 8, 17, [17, 17, 9]), (40, 8, 20, [17, 17]),
        (7, 1, 0, [7]), (7, 1, 3, [3, 3, 1]), (3, 8, 1, [1, 1, 1]), (20, 8, 5, []),
    ],
)  # fmt: skip
def test_a_clip_is_taken_whole_or_in_pieces_one_after_the_other(frames, temporal, most, lengths, stated) -> None:
    whole, asked = pixels(frames), []
    each = (asked.append(1) or frame for frame in whole)
    row, counts = {**ROW, **({"num_frames": frames} if stated else {})}, Counter()
    found = list(OwnShape(OwnSize(4096, 8), temporal, most).pieces("c", row, each, counts))
    assert [len(piece.frames) for piece in found] == lengths
    start = 0
    for piece in found:
        assert piece.start_frame == start
        assert piece.start_seconds == 2 + start / 24
        assert np.array_equal(piece.frames, whole[start : start + len(piece.frames), 2:18, 1:25]), "the middle"
        assert not np.shares_memory(piece.frames, whole)
        start += len(piece.frames)
    assert counts == {"too_short": int(not lengths), "frames_left_over": frames - sum(lengths)}
    assert len(asked) == (min(frames, max(1, sum(lengths))) if stated else frames), "no frame that is left over"


def test_a_sample_is_given_before_the_frames_behind_it_are_asked_for() -> None:
    asked = []
    each = (asked.append(1) or frame for frame in pixels(52))
    for nth, piece in enumerate(OwnShape(OwnSize(4096, 8), 8, 17).pieces("c", {**ROW}, each, Counter()), 1):
        assert len(piece.frames) == 17
        assert len(asked) == 17 * nth, "one sample in memory"


@pytest.mark.parametrize(("stated", "there"), [(40, 20), (20, 40)])
def test_a_row_that_lies_about_frames_gives_no_frame_that_is_not_there(stated, there) -> None:
    counts = Counter()
    (found,) = OwnShape(OwnSize(4096, 8), 8).pieces("c", {**ROW, "num_frames": stated}, iter(pixels(there)), counts)
    assert (len(found.frames), counts["frames_left_over"]) == (17, 3)


@pytest.mark.parametrize("stated", [0, -3])
def test_a_row_that_says_it_has_no_frames_says_nothing(stated) -> None:
    counts: Counter[str] = Counter()
    (found,) = OwnShape(OwnSize(4096, 8), 8).pieces("c", {**ROW, "num_frames": stated}, iter(pixels(9)), counts)
    assert (len(found.frames), counts["too_short"]) == (9, 0)


def test_an_image_is_one_frame_whatever_the_tokenizer_packs() -> None:
    (found,) = OwnShape(OwnSize(4096, 8), 8).pieces("c", IMAGE, pixels(1), Counter())
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


def decoded_whole(shape: OwnShape, path: Path) -> list[Window]:
    """The twin, as it was made before: each clip decoded whole, then cut."""
    found = []
    for sample in iter_samples(path):
        try:
            clip = decode_sample(sample, shape.size)
        except TooSmall:
            continue
        total = len(clip.frames)
        still = shape.max_frames == 1 or clip.row.get("kind") == "image"
        start = 0
        while (frames := shape._taken(min(shape.max_frames or total, total - start))) >= (1 if still else 5):
            found.append(next(clip_windows(clip, num_frames=frames, stride_frames=total, first=start)))
            start += frames
    return found


@pytest.mark.parametrize(
    ("most", "needed"),
    [(0, 17 + 9 + 1), (9, 18 + 9 + 1), (5, 20 + 10 + 1), (1, 20 + 12 + 3), (3, 3)],
)
def test_frames_that_are_left_over_are_not_decoded(tmp_path, shard, monkeypatch, most, needed) -> None:
    """Of 20, 12 and 3 frames in shards whose rows say so; of a clip that gives nothing the first one, for its size."""
    lengths = {"wide": 20, "tall": 12, "short": 3}
    with ShardWriter(tmp_path, "0b") as writer:
        for sample in iter_samples(shard):
            row = json.loads(sample.members["json"]) | {"num_frames": lengths.get(sample.key, 1)}
            writer.write(sample.key, {**sample.members, "json": json.dumps(row).encode()})
    shape, counts, came = OwnShape(OwnSize(1200, 8), 4, most), Counter(), []
    own = FrameOrder._release

    def counted(self):
        for shown in own(self):
            came.append(1)
            yield shown

    monkeypatch.setattr(FrameOrder, "_release", counted)
    found = list(shape.samples([tmp_path / "0b-00000.tar"], (), counts))
    assert len(came) == needed
    came.clear()
    twin = decoded_whole(shape, tmp_path / "0b-00000.tar")
    assert len(came) == 20 + 12 + 3, "the twin decodes all"
    assert [piece.sample_id for piece in found] == [piece.sample_id for piece in twin]
    for piece, other in zip(found, twin, strict=True):
        height, width = (side // 8 * 8 for side in other.frames.shape[1:3])
        top, left = (other.frames.shape[1] - height) // 2, (other.frames.shape[2] - width) // 2
        assert np.array_equal(piece.frames, other.frames[:, top : top + height, left : left + width])
        assert piece.row() == other.row()
