"""Copies stay close, different shots stay apart, by the margin that the threshold of dedup needs."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from wfm.curation.dedup.dedup import DedupConfig
from wfm.curation.embed.embed import EmbedClip, EmbedConfig, Embedder, embed, sample_frames
from wfm.curation.rows import EMBEDDING_WIDTH as WIDTH
from wfm.curation.rows import Embedding, vectors
from wfm.records import Clip

Make = Callable[..., Path]
COPY = 0.98


def vector(path: Path) -> np.ndarray:
    return embed(sample_frames(path)).astype(np.float64)


@pytest.mark.parametrize(
    "copied",
    [
        {"crf": "35"},
        {"encoded_size": 64},
        {"encoded_size": 96, "crf": "30"},
        {"codec": "mpeg4", "q": "8"},
        {"fps": 24, "g": "1"},
        {"change": lambda frames: frames[1:-1]},
        {"change": lambda frames: np.clip(frames * 0.9 + 10, 0, 255).astype(np.uint8)},
    ],
)
def test_copies_stay_close(make_clip: Make, copied: dict[str, object]) -> None:
    for seed in (1, 2):
        assert vector(make_clip(seed)) @ vector(make_clip(seed, **copied)) >= COPY


def test_different_shots_stay_apart(make_clip: Make) -> None:
    rows = np.stack([vector(make_clip(seed)) for seed in range(12)])
    cosines = rows @ rows.T - np.eye(12)
    assert cosines.max() < 0.75  # half-way to the threshold and more
    assert DedupConfig().threshold > 0.9


def test_the_same_place_with_another_motion_is_another_clip(make_clip: Make) -> None:
    forth, back = make_clip(1, speed=(2, 0)), make_clip(1, change=lambda frames: frames[::-1])
    assert vector(forth) @ vector(back) < DedupConfig().threshold


def test_a_clip_without_contrast_is_flat_and_like_nothing(make_clip: Make, make_row: Callable[..., Clip]) -> None:
    black = make_clip(1, change=np.zeros_like)
    (row,) = EmbedClip(Embedder(EmbedConfig()), lambda _: black)(make_row("a"))
    assert row.flat
    assert not np.any(row.embedding)


def test_vectors_equal_the_description_step_by_step() -> None:
    """Against scipy's cosine transform; the numbers at the end are part of the name dct3d-v1: a change is a new name."""
    from scipy.fft import dctn

    noise = hashlib.shake_256(b"frames").digest(8 * 32 * 32 * 3)
    frames = np.frombuffer(noise, np.uint8).reshape(8, 32, 32, 3)
    luma = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    planes = (frames / 255) @ luma.T
    kept = dctn(planes, axes=(0, 1, 2), norm="ortho")[:4, :8, :8]  # [t, h, w, 3]
    for t, h, w in np.ndindex(4, 8, 8):
        kept[t, h, w] *= (1 + np.hypot(h, w)) ** 0.5 * (2 if t else 1) * np.array([1, 1.5, 1.5]) * bool(h or w)
    signs = np.unpackbits(np.frombuffer(hashlib.shake_256(b"dct3d-v1").digest(768 * 256 // 8), np.uint8))
    expected = kept.transpose(2, 1, 0, 3).reshape(-1) @ (signs.reshape(768, 256) * 2.0 - 1)
    found = embed(frames).astype(np.float64)
    assert found.shape == (WIDTH,)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-3)
    assert found == pytest.approx(expected / np.linalg.norm(expected), abs=1e-3)  # float16
    assert found[:4] == pytest.approx(GOLDEN, abs=1e-3)


GOLDEN = [-0.0425, 0.0053, -0.0698, -0.0897]


def test_the_table_holds_a_fixed_list_of_halves(make_clip: Make, make_row: Callable[..., Clip], tmp_path: Path) -> None:
    path = make_clip(1)
    rows = [row for name in "ab" for row in EmbedClip(Embedder(EmbedConfig()), lambda _: path)(make_row(name))]
    pq.write_table(Embedding.to_table(rows), tmp_path / "e.parquet")
    table = pq.read_table(tmp_path / "e.parquet")
    assert str(table.schema.field("embedding").type) == f"fixed_size_list<element: halffloat>[{WIDTH}]"
    assert vectors(table).shape == (2, WIDTH)
    assert np.array_equal(vectors(table)[0].astype(np.float64), np.array(rows[0].embedding))
    assert Embedding.from_table(table)[0].clip_sha256 == "bytes of a"
    assert vectors(table.slice(1, 1)).shape == (1, WIDTH)
    assert vectors(table.slice(0, 0)).shape == (0, WIDTH)


def test_the_name_does_not_claim_a_trained_model() -> None:
    assert EmbedConfig().model == "dct3d-v1"
