"""A clip is decoded once for its scores and its embedding, and both are what the separate stages give, byte for byte."""

from pathlib import Path

import pytest

from pipelines.dags.curate import curate
from pipelines.dags.promotion import Promotion
from tests.components.test_curation_stages import encode, run_stage, world
from wfm.artifacts import Artifact, Store
from wfm.curation.embed import embed
from wfm.curation.poison import Note
from wfm.errors import DataError


def files(of: Artifact) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in of.files()}


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Store, Artifact]:
    for seed in (1, 2):
        encode(tmp_path / "in" / f"{seed}.mp4", world(seed))
    store = Store.open(tmp_path / "store")
    videos = run_stage(store, "ingest_videos", {"videos": str(tmp_path / "in")})
    return store, run_stage(store, "split_clips", videos=videos)


def test_embeddings_of_the_scores_pass_are_taken_over(
    clips: tuple[Store, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, split = clips
    alone = {
        "scores": run_stage(store, "score_clips", {"measures": True}, clips=split),
        "embeddings": run_stage(store, "embed_clips", {"signatures": True}, clips=split),
    }
    both = {"measures": True, "embed": {"signatures": True}}
    scores = run_stage(store, "score_clips", both, clips=split)
    for name in ("scores", "measures"):
        assert scores.table(name).equals(alone["scores"].table(name))

    other = run_stage(store, "embed_clips", {}, clips=split, scores=scores)  # another config: it decodes for itself
    assert files(other) == files(run_stage(store, "embed_clips", {}, clips=split))
    assert len(files(other)) < len(files(alone["embeddings"]))

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a clip was decoded again")

    monkeypatch.setattr(embed, "one_pass", refused)
    taken = run_stage(store, "embed_clips", {"signatures": True, "prefetch_bytes": 0}, clips=split, scores=scores)
    assert files(taken) == files(alone["embeddings"])
    assert taken.manifest.counts == alone["embeddings"].manifest.counts


def test_a_clip_that_the_scores_left_out_is_left_out_of_the_embeddings(clips: tuple[Store, Artifact]) -> None:
    store, split = clips
    bad = split.table("clips").column("clip_id").to_pylist()[0]
    Note("score", bad, "x", poisoned="decoding ended by SIGSEGV, 3 times").write(store)
    scores = run_stage(store, "score_clips", {"embed": {}}, clips=split)
    taken = run_stage(store, "embed_clips", clips=split, scores=scores)
    assert taken.manifest.counts == {"inputs": 4, "outputs": 3}
    assert taken.manifest.skipped == {"poisoned": 1}
    assert bad not in taken.table("embeddings").column("clip_id").to_pylist()
    assert taken.table("skips").column("step").to_pylist() == ["embed"]


def test_scores_of_other_clips_are_refused(clips: tuple[Store, Artifact], tmp_path: Path) -> None:
    store, split = clips
    scores = run_stage(store, "score_clips", {"embed": {}}, clips=split)
    videos = run_stage(store, "ingest_videos", {"videos": str(tmp_path / "in")})
    other = run_stage(store, "split_clips", {"cut": {"crf": 30, "copy_codecs": []}}, videos=videos)
    with pytest.raises(DataError, match="made from other clips"):
        run_stage(store, "embed_clips", clips=other, scores=scores)


def test_the_pipeline_asks_for_one_pass_where_the_embedding_needs_no_weights() -> None:
    assert curate({}, "videos", Promotion()).node("score_clips").follows == {"embed": "embed_clips"}
    assert embed.without_weights({}) == {}
    assert embed.without_weights({"signatures": True, "aesthetic": {"head": "x"}}) == {"signatures": True}
    assert embed.without_weights({"model": "clip", "weights": "w"}) is None
