"""`wfm artifacts purge`: nothing of a video stays, nothing else goes, and it does not come back."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wfm.artifacts import Artifact, Store
from wfm.artifacts.purge import carry_out, find_video, purge_of
from wfm.data.source import hash_file
from wfm.errors import InputError, TryAgain
from wfm.records import Clip, Video

Stage = Callable[..., Artifact]
FRAMES = 48


def recording(path: Path, seed: int) -> Path:
    """A window that glides over a random picture, 2 s at 24 frames a second."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.kron(
        np.random.default_rng(seed).integers(0, 256, (8, 24, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)
    )
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=24)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "veryfast", "threads": "1"}
        for t in range(FRAMES):
            frame = np.ascontiguousarray(picture[:, 2 * t : 2 * t + 64])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(stream.encode())
    return path


def curate(run_stage: Stage, folder: Path) -> dict[str, Artifact]:
    done = {"videos": run_stage("ingest_videos", {"videos": str(folder)})}
    done["clips"] = run_stage("split_clips", videos=done["videos"])
    for kind, name in (("scores", "score_clips"), ("captions", "caption_clips"), ("embeddings", "embed_clips")):
        done[kind] = run_stage(name, clips=done["clips"])
    three = {name: done[name] for name in ("clips", "scores", "embeddings")}
    done["duplicates"] = run_stage("dedup_clips", **three)
    loose = {"minimum_sharpness": None}
    chosen = {name: done[name] for name in ("clips", "scores", "duplicates")}
    done["selection"] = run_stage("select_clips", loose, **chosen)
    tables = {name: done[name] for name in ("videos", "clips", "scores", "captions", "selection")}
    done["dataset"] = run_stage("write_shards", **tables)
    return done


def weights(store: Store, dataset: Artifact, kind: str, key: str) -> Artifact:
    """An artifact of that kind with the data set as its input."""
    attempt = store.attempt(key)
    (attempt.path / "weights.bin").write_bytes(kind.encode())
    return attempt.commit(stage=f"train_{kind}", kind=kind, inputs={"dataset": dataset.key})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three recordings; the bytes of the first a second time, under another name."""
    for seed in range(3):
        recording(tmp_path / "in" / f"{seed}.mp4", seed)
    shutil.copy(tmp_path / "in" / "0.mp4", tmp_path / "in" / "copy of 0.mp4")
    return tmp_path / "in"


def everything(store: Store) -> dict[str, int]:
    return {stat.path: stat.size for area in ("artifacts", "parts") for stat in store.objects.walk(area)}


def test_a_purged_video_is_gone_from_everything_and_refused(run_stage: Stage, store: Store, folder: Path) -> None:
    before = curate(run_stage, folder)
    victim = hash_file(folder / "0.mp4")
    clips = [row for row in Clip.from_table(before["clips"].table("clips")) if row.video_id == victim]
    model = weights(store, before["dataset"], "world_model", "a" * 64)
    page = weights(store, before["dataset"], "page", "b" * 64)
    store.promote("world_model", "mine", model.key)
    others = {
        (kind, entry.name): entry.key
        for kind in ("videos", "clips", "scores", "captions", "embeddings")
        for entry in before[kind].parts
        if not victim.startswith(entry.name)
    }
    assert clips
    assert others

    files = everything(store)
    found = find_video(store, victim.upper())
    assert everything(store) == files, "looking changes nothing"
    assert found.sources == sorted(str(folder / name) for name in ("0.mp4", "copy of 0.mp4"))
    assert found.clips == len(clips)
    assert {one.key for one in found.held} >= {artifact.key for artifact in before.values()} | {page.key}
    assert [one.key for one in found.learned] == [model.key]
    assert found.names == ["world_model/mine@latest"]
    assert not {one.key for one in found.held} & set(others.values()), "parts of other videos are shared and stay"

    record = carry_out(store, found, "asked by its author")
    assert record == purge_of(store, victim)
    assert record.models_kept == [model.key]
    assert store.has(model.key)
    assert not any(store.has(artifact.key) for artifact in before.values())
    assert all(store.has_part(key) for key in others.values())
    ids = {victim, *(row.clip_id for row in clips)}
    for path in everything(store):
        assert not any(name in path for name in ids), path
        data = store.objects.read(path)
        assert not any(name.encode() in data for name in ids), path
    again = find_video(store, victim)
    assert again.held == []
    assert [one.key for one in again.learned] == [model.key], "a model that was kept is not forgotten"

    after = curate(run_stage, folder)
    refused = {Path(row.source).name: row for row in Video.from_table(after["videos"].table("videos"))}
    for name in ("0.mp4", "copy of 0.mp4"):
        assert refused[name].status == "failed"
        assert refused[name].reason.startswith("purged: ")
        assert "asked by its author" in refused[name].reason
    assert after["videos"].manifest.skipped == {"purged": 2}
    assert after["videos"].key != before["videos"].key, "or a model that has learned from it would be taken for cached"
    assert {row["video_id"] for row in after["dataset"].table("clips").to_pylist()} == {
        hash_file(folder / "1.mp4"),
        hash_file(folder / "2.mp4"),
    }
    kept = {entry.key for kind in before if kind in after for entry in after[kind].parts}
    assert set(others.values()) <= kept, "what did not hold the video is not made again"


def test_models_go_when_asked(run_stage: Stage, store: Store, folder: Path) -> None:
    videos = run_stage("ingest_videos", {"videos": str(folder)})
    model = weights(store, videos, "tokenizer", "c" * 64)
    victim = hash_file(folder / "1.mp4")
    found = find_video(store, victim)
    carry_out(store, found, "licence ended", models=True)
    assert not store.has(model.key)
    assert everything(store).keys().isdisjoint({f"artifacts/{model.key}/manifest.json"})
    again = find_video(store, victim)
    assert (again.held, again.learned) == ([], [])


def test_a_killed_purge_goes_on(run_stage: Stage, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stage("ingest_videos", {"videos": str(folder)})
    victim = hash_file(folder / "2.mp4")
    from wfm.artifacts import purge

    real = purge.delete_commit
    calls: list[str] = []

    def killed(store: Store, dead: purge.Dead) -> None:
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(dead.key)
        real(store, dead)

    with monkeypatch.context() as patch:
        patch.setattr(purge, "delete_commit", killed)
        with pytest.raises(KeyboardInterrupt):
            carry_out(store, find_video(store, victim), "first")
    assert purge_of(store, victim) is not None, "remembered before anything is deleted"
    found = find_video(store, victim)
    assert found.held, "the rest is still to be done"
    carry_out(store, found, "first")
    assert find_video(store, victim).held == []


def test_purges_of_other_corpora_change_no_key(run_stage: Stage, store: Store, folder: Path, tmp_path: Path) -> None:
    recording(tmp_path / "elsewhere" / "9.mp4", 9)
    first = run_stage("ingest_videos", {"videos": str(folder)})
    run_stage("ingest_videos", {"videos": str(tmp_path / "elsewhere")})
    carry_out(store, find_video(store, hash_file(tmp_path / "elsewhere" / "9.mp4")), "theirs")
    assert store.has(first.key)
    assert run_stage("ingest_videos", {"videos": str(folder)}).key == first.key


def test_a_purge_waits_for_those_at_work_and_wants_a_whole_id(store: Store) -> None:
    with pytest.raises(InputError, match="64 hex digits"):
        find_video(store, "0123abcd")
    with store.lease("d" * 64), pytest.raises(TryAgain, match="at work"):
        carry_out(store, find_video(store, "e" * 64), "any")
    assert purge_of(store, "e" * 64) is None
