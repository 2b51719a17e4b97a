"""The perceptual tier through its stages: a cropped, shortened upload is a duplicate by its look, a mirrored one is not."""

from pathlib import Path

import pytest

from tests.components.test_curation_stages import encode, run_stage, world
from wfm.artifacts import Store
from wfm.errors import InputError


def test_a_cropped_and_a_mirrored_upload(tmp_path: Path) -> None:
    frames = world(1, shots=1)
    for name, pixels in (
        ("original", frames),
        ("cropped", frames[3:, 4:, :61]),
        ("mirrored", frames[:, :, ::-1]),
        ("other", world(2, shots=1)),
    ):
        encode(tmp_path / "in" / f"{name}.mp4", pixels)
    store = Store.open(tmp_path / "store")
    clips = run_stage(store, "split_clips", videos=run_stage(store, "ingest_videos", {"videos": str(tmp_path / "in")}))
    scores = run_stage(store, "score_clips", clips=clips)
    embeddings = run_stage(store, "embed_clips", {"signatures": True}, clips=clips)
    found = run_stage(store, "dedup_clips", {"look": True}, clips=clips, scores=scores, embeddings=embeddings)
    names = {row["clip_id"]: Path(row["source"]).stem for row in clips.table("clips").to_pylist()}
    dropped = {
        names[row["clip_id"]]: (names[row["duplicate_of"]], row["tier"])
        for row in found.table("duplicates").to_pylist()
        if row["duplicate_of"]
    }
    assert dropped == {"cropped": ("original", "perceptual")}
    assert found.table("pairs").column("tier").to_pylist() == ["perceptual"]
    assert found.manifest.counts["perceptual_candidates"] >= 1

    plain = run_stage(store, "embed_clips", clips=clips)
    with pytest.raises(InputError, match="signatures"):
        run_stage(store, "dedup_clips", {"look": True}, clips=clips, scores=scores, embeddings=plain)
