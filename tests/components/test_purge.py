"""`wfm artifacts purge`: nothing of a video stays, nothing else goes, and it does not come back."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wfm.artifacts import Artifact, Store
from wfm.artifacts.purge import carry_out, find_video, purge_of
from wfm.curation.poison import Note, poisoned
from wfm.data.local import known_hash
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
    victim = known_hash(folder / "0.mp4")
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

    begun = store.part_attempt("f" * 64)
    (begun.path / "clip.mp4").write_bytes(b"it may be this one")
    ahead = begun.path.rename(begun.path.with_name("20990101T000000000-00000000"))  # of a machine whose clock is ahead
    record = carry_out(store, found, "asked by its author")
    assert not ahead.exists(), "the old code left it alone"
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
        known_hash(folder / "1.mp4"),
        known_hash(folder / "2.mp4"),
    }
    kept = {entry.key for kind in before if kind in after for entry in after[kind].parts}
    assert set(others.values()) <= kept, "what did not hold the video is not made again"


def test_models_go_when_asked(run_stage: Stage, store: Store, folder: Path) -> None:
    videos = run_stage("ingest_videos", {"videos": str(folder)})
    model = weights(store, videos, "tokenizer", "c" * 64)
    victim = known_hash(folder / "1.mp4")
    found = find_video(store, victim)
    carry_out(store, found, "licence ended", models=True)
    assert not store.has(model.key)
    assert everything(store).keys().isdisjoint({f"artifacts/{model.key}/manifest.json"})
    again = find_video(store, victim)
    assert (again.held, again.learned) == ([], [])


def test_a_killed_purge_goes_on(run_stage: Stage, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stage("ingest_videos", {"videos": str(folder)})
    victim = known_hash(folder / "2.mp4")
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
    carry_out(store, find_video(store, known_hash(tmp_path / "elsewhere" / "9.mp4")), "theirs")
    assert store.has(first.key)
    assert run_stage("ingest_videos", {"videos": str(folder)}).key == first.key


def test_a_purge_waits_for_those_at_work_and_wants_a_whole_id(store: Store) -> None:
    with pytest.raises(InputError, match="64 hex digits"):
        find_video(store, "0123abcd")
    with store.lease("d" * 64), pytest.raises(TryAgain, match="at work"):
        carry_out(store, find_video(store, "e" * 64), "any")
    assert purge_of(store, "e" * 64) is None


KILLED = """
import os, signal, sys
from wfm.artifacts import Store, purge
from wfm.artifacts.environment import store_options
real, calls = purge.delete_commit, []
def delete_commit(store, dead):
    calls.append(dead)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    real(store, dead)
purge.delete_commit = delete_commit
store = Store.open(sys.argv[1], store_options())
purge.carry_out(store, purge.find_video(store, sys.argv[2]), "asked by its author")
"""


@pytest.fixture
def bucket(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on moto's S3 with the recordings below ``in``; the environment leads there."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "k", "secret": "secret", "endpoint_url": f"http://{host}:{port}"}
    monkeypatch.setenv("WFM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WFM_STORE_OPTIONS", json.dumps(options))
    files = s3fs.S3FileSystem(**options)
    files.mkdir("videos")
    for path in sorted(folder.iterdir()):
        files.put(str(path), f"videos/in/{path.name}")
    yield "s3://videos"
    server.stop()


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """On disk, or in the bucket for tests that say ``s3``."""
    if getattr(request, "param", "disk") == "disk":
        return Store.open(tmp_path / "store")
    from wfm.artifacts.environment import store_options

    return Store.open(request.getfixturevalue("bucket") + "/store", store_options())


def traces(cache: Path, ids: set[str], digests: set[str]) -> list[Path]:
    """Files of a cache that have one of the ids in their name, or one of the hashes."""
    files = [path for path in cache.rglob("*") if path.is_file()]
    return [path for path in files if known_hash(path) in digests or any(each in str(path) for each in ids)]


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_on_s3_a_purge_that_was_killed_goes_on_and_clears_every_cache(
    run_stage: Stage, store: Store, bucket: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wfm: Any
) -> None:
    def curated() -> dict[str, Artifact]:
        videos = run_stage("ingest_videos", {"videos": f"{bucket}/in"})
        clips = run_stage("split_clips", videos=videos)
        return {"videos": videos, "clips": clips, "scores": run_stage("score_clips", clips=clips)}

    before = curated()
    count = len(before["scores"].table("scores"))
    victim = known_hash(folder / "0.mp4")
    for key, inputs in (("e" * 64, (before["clips"].key,)), ("f" * 64, ())):
        with store.lease(key, inputs=inputs):  # a training that was interrupted, and one of something else
            (store.scratch(key) / "checkpoint").write_text("weights")
            store.objects.replace(
                f"checkpoints/{key}/00000001-0000000007-20260101T000000000-00000000/model", b"weights"
            )
    found = find_video(store, victim)
    Note("score", min(found.ids), "0.mp4", poisoned="for a test").write(store)
    of_clip = next(row.clip_sha256 for row in Clip.from_table(before["clips"].table("clips")) if row.video_id == victim)
    said = f"captions/{of_clip[:2]}/{of_clip}/{'0' * 64}.json"
    store.objects.replace(said, b"{}")
    assert len(found.copies) == 2, "the same bytes under two names"
    assert {known_hash(path) for path in found.copies} == {victim}
    cache, elsewhere = tmp_path / "cache", tmp_path / "another machine"
    shutil.copytree(cache, elsewhere)
    assert traces(cache, found.ids, found.digests)

    command = [sys.executable, "-c", KILLED, store.url, victim]
    assert subprocess.run(command, check=False, cwd=Path(__file__).parents[2]).returncode == -signal.SIGKILL
    assert find_video(store, victim).held, "the rest is still to be done"
    shown = wfm("artifacts", "purge", "--video", victim, "--yes", store=store.url).stdout
    assert "asked by its author" in shown, "it knows of the first"

    for area in ("artifacts", "parts"):
        for stat in store.objects.walk(area):
            data = store.objects.read(stat.path)
            assert not any(each in stat.path or each.encode() in data for each in found.ids), stat.path
    assert poisoned(store) == []
    assert not list(store.objects.walk("captions"))
    assert traces(cache, found.ids, found.digests) == []
    assert len(list((cache / "sources").iterdir())) == 2, "other videos' downloads stay"
    assert not (store.scratch("e" * 64) / "checkpoint").exists()
    assert (store.scratch("f" * 64) / "checkpoint").exists()
    assert [stat.path.split("/")[1] for stat in store.objects.walk("checkpoints")] == ["f" * 64]

    monkeypatch.setenv("WFM_CACHE", str(elsewhere))
    assert traces(elsewhere, found.ids, found.digests)
    there = Store.open(store.url, store.options)
    carry_out(there, find_video(there, victim), "asked by its author")
    left = traces(elsewhere, found.ids, found.digests)
    assert left == [], "called again, it clears the cache of another machine"
    after = curated()
    assert after["videos"].manifest.skipped == {"purged": 2}
    assert len(after["scores"].table("scores")) == count - found.clips
