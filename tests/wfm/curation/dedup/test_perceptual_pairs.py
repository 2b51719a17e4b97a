"""Copies are found by kind, look-alikes are not, on generated video; and the parts of the search do what they say."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.dedup_kinds import NEGATIVE, POSITIVE, corpus, found_pairs, table
from wfm.curation.dedup.dedup import DedupConfig, find_duplicates
from wfm.curation.dedup.perceptual_pairs import PerceptualConfig, crop_vectors, same_clip
from wfm.curation.embed.embed import EmbedClip, EmbedConfig, Embedder
from wfm.curation.embed.signature import SIDE, Signature, SignClip, picture_box, thumbnails_of
from wfm.curation.rows import Embedding
from wfm.errors import DataError
from wfm.records import Clip

Make = Callable[..., Path]


def test_precision_and_recall_by_kind(tmp_path: Path) -> None:
    """The claim of the tier, in small; tests/benchmarks/dedup_kinds.py has the same table for more worlds."""
    found = table(made := corpus(tmp_path, 2, seed=2), found_pairs(made, DedupConfig()))
    assert found["all"]["precision"] >= 0.99
    assert {kind: found[kind]["recall"] for kind in POSITIVE} == dict.fromkeys(POSITIVE, 1.0)
    assert {kind: found[kind]["false"] for kind in NEGATIVE} == dict.fromkeys(NEGATIVE, 0.0)


def test_bars_are_taken_off_and_a_dark_clip_keeps_its_picture() -> None:
    frames = np.full((3, 96, 96), 120.0)
    frames[:, :10] = frames[:, -10:] = 16
    assert picture_box(frames) == (10, 86, 0, 96)
    assert picture_box(np.full((3, 96, 96), 16.0)) == (0, 96, 0, 96)


def test_thumbnails_follow_time_and_are_bounded(make_clip: Make) -> None:
    short, step = thumbnails_of(make_clip(1, frames=48))
    assert short.shape == (16, SIDE, SIDE)
    assert step == 1 / 8
    long, step = thumbnails_of(make_clip(1, frames=600, size=64, speed=(0, 0)))  # 25 s at 8 a second are 200
    assert (len(long), step) == (100, 1 / 4)


@pytest.mark.parametrize("lost", [0.02, 0.1, 0.2])
def test_trims_up_to_a_tenth_and_no_further(make_clip: Make, lost: float) -> None:
    whole, _ = thumbnails_of(make_clip(3, frames=120, size=64, speed=(1, 0)))
    cut = whole[round(lost * len(whole)) :]
    assert bool(same_clip(whole, cut, PerceptualConfig())) == (lost <= 0.1)


def test_mirrors_and_flat_pictures_match_nothing(make_clip: Make) -> None:
    thumbnails, _ = thumbnails_of(make_clip(4))
    assert same_clip(thumbnails, thumbnails, PerceptualConfig()) == pytest.approx(1, abs=1e-5)
    assert same_clip(thumbnails, thumbnails[:, :, ::-1], PerceptualConfig()) == 0
    flat = np.full_like(thumbnails, 90)
    assert same_clip(flat, flat, PerceptualConfig()) == 0
    assert not crop_vectors(flat).any()


def test_the_order_of_two_clips_does_not_matter(make_clip: Make) -> None:
    a, b = (thumbnails_of(make_clip(seed))[0] for seed in (5, 6))
    crop = a[:, 1:, 2:][:, np.linspace(0, SIDE - 2, SIDE).astype(int)][:, :, np.linspace(0, SIDE - 3, SIDE).astype(int)]
    for x, y in ((a, b), (a, crop)):
        assert same_clip(x, y, PerceptualConfig()) == same_clip(y, x, PerceptualConfig())


def test_tiers_sessions_and_other_bytes(make_clip: Make, make_row: Callable[..., Clip]) -> None:
    """A crop is a duplicate by its look; not within a session; a signature of other bytes is refused."""
    whole, crop = make_clip(7, size=128), make_clip(7, size=128, change=lambda frames: frames[:, 8:, 6:])

    def found(*sessions: str) -> tuple[str, str]:
        clips = [make_row(name, session_id=s) for name, s in zip("ab", sessions, strict=True)]
        paths = dict(zip("ab", (whole, crop), strict=True))
        fetch = lambda path: paths[Path(path).stem]  # noqa: E731
        embeddings = Embedding.to_table([row for c in clips for row in EmbedClip(Embedder(EmbedConfig()), fetch)(c)])
        signatures = Signature.to_table([row for c in clips for row in SignClip(fetch)(c)])
        assert str(signatures.schema.field("thumbnails").type) == "list<item: uint8>"
        rows, _, counts = find_duplicates(clips, [], embeddings, DedupConfig(), signatures)
        if sessions == ("s", "t"):
            assert counts["duplicates_by_look"] == 1
            other = [make_row("a", session_id="s", clip_sha256="newer"), clips[1]]
            with pytest.raises(DataError, match="signature of clip"):
                find_duplicates(other, [], embeddings.slice(1), DedupConfig(), signatures)
        return rows[1].duplicate_of, rows[1].tier

    assert found("s", "t") == ("a", "perceptual")
    assert found("s", "s") == ("", "")
