"""Videos in archives, and lists that state rights, through ingest and splitting."""

import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components import split_clips
from wfm.artifacts import Artifact, Store
from wfm.curation.source import ingest
from wfm.data import archive
from wfm.data.local import known_hash
from wfm.data.source import SourceGone
from wfm.records import Clip, Video

Stage = Callable[..., Artifact]
Film = Callable[..., Path]
SPLIT: dict[str, Any] = {"shots": {"detector": "stride", "stride_seconds": 1.0, "minimum_seconds": 0.5}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WFM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def forget_everything(cache: Path) -> None:
    """As on another machine, or after the cache was emptied."""
    shutil.rmtree(cache, ignore_errors=True)
    archive._indexes.clear()


def by_name(artifact: Artifact) -> dict[str, Video]:
    return {row.name: row for row in Video.from_table(artifact.table("videos"))}


@pytest.fixture
def shards(tmp_path: Path, film: Film) -> Path:
    """A folder with a WebDataset-like ``.tar.gz``: two films, one with its facts; beside it a copy and a file that is none."""
    folder = tmp_path / "in"
    folder.mkdir()
    first, second = (film(tmp_path / f"{seed}.mp4", seed, frames=48) for seed in (1, 2))
    with tarfile.open(folder / "000.tar.gz", "w:gz") as tar:
        tar.add(first, "0001.mp4")
        facts = json.dumps({"license": "CC0-1.0", "session_id": "s1", "caption": "a pan"}).encode()
        info = tarfile.TarInfo("0001.json")
        info.size = len(facts)
        tar.addfile(info, io.BytesIO(facts))
        tar.add(second, "0002.mp4")
        tar.addfile(tarfile.TarInfo("0003.mp4"))
    shutil.copy(second, folder / "copy.mp4")
    return folder


def test_members_are_videos_like_any_other(run_stage: Stage, shards: Path, cache: Path) -> None:
    found = run_stage("ingest_videos", {"videos": str(shards)})
    rows = by_name(found)
    assert {name: row.status for name, row in rows.items()} == {
        "0001.mp4": "ok",
        "0002.mp4": "ok",
        "0003.mp4": "failed",
        "copy.mp4": "duplicate",
    }
    assert found.manifest.skipped == {"duplicate_bytes": 1, "empty_file": 1}
    assert rows["0001.mp4"].source == f"{shards}/000.tar.gz!/0001.mp4"
    assert rows["0001.mp4"].session_id == "s1"
    assert rows["copy.mp4"].reason == f"duplicate_bytes: same bytes as {shards}/000.tar.gz!/0002.mp4"
    forget_everything(cache)
    clips = Clip.from_table(run_stage("split_clips", SPLIT, videos=found).table("clips"))
    assert {clip.source for clip in clips} == {rows["0001.mp4"].source, rows["0002.mp4"].source}
    assert len(clips) == 4


def test_a_split_that_was_broken_off_goes_on(
    run_stage: Stage, shards: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_stage("ingest_videos", {"videos": str(shards)})
    made: list[str] = []
    split_part = split_clips.split.split_part

    def dies_at_the_second(part: Any) -> Any:
        if made:
            raise KeyboardInterrupt
        made.append(part.name)
        return split_part(part)

    with monkeypatch.context() as patch:
        patch.setattr(split_clips.split, "split_part", dies_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            run_stage("split_clips", SPLIT, videos=found)
    forget_everything(cache)
    assert len(Clip.from_table(run_stage("split_clips", SPLIT, videos=found).table("clips"))) == 4


def test_an_archive_that_is_packed_anew_makes_only_its_changes_again(
    run_stage: Stage, shards: Path, tmp_path: Path, film: Film
) -> None:
    first = run_stage("ingest_videos", {"videos": str(shards)})
    path = shards / "000.tar.gz"
    plain = gzip.decompress(path.read_bytes())
    path.unlink()
    (shards / "000.tar").write_bytes(plain)
    again = run_stage("ingest_videos", {"videos": str(shards)})
    assert [row.video_id for row in by_name(again).values()] == [row.video_id for row in by_name(first).values()]
    (shards / "000.tar").write_bytes(b"x" * 2000)
    with pytest.raises(SourceGone, match=r"0001|0002"):
        run_stage("split_clips", SPLIT, videos=again)
    damaged = run_stage("ingest_videos", {"videos": str(shards)})
    assert damaged.manifest.skipped == {"damaged_archive": 1}
    assert by_name(damaged)["copy.mp4"].status == "ok"


def test_an_archive_that_changes_under_our_hands_is_told(shards: Path, store: Store) -> None:
    from wfm.curation.source.listing import list_source

    (file, *_) = list_source(str(shards)).files
    os.utime(shards / "000.tar.gz", ns=(7, 7))
    assert ingest.examine(file, store, ingest.IngestConfig())[0].reason.startswith("changed_while_read")


def test_rights_of_a_list_change_the_data_set_and_cut_no_clip_again(
    run_stage: Stage, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed: list[str] = []
    examine = ingest.examine
    monkeypatch.setattr(ingest, "examine", lambda file, *rest: probed.append(file.name) or examine(file, *rest))
    names = shards / "list.jsonl"

    def ingested(**rights: str) -> Artifact:
        names.write_text(json.dumps({"source": "000.tar.gz", **rights}) + "\n")
        return run_stage("ingest_videos", {"videos": str(names)})

    before = ingested(license="CC-BY-4.0", rights_holder="A. Uthor", url="https://example.org/1")
    clips = run_stage("split_clips", SPLIT, videos=before)
    assert sorted(probed) == ["0001.mp4", "0002.mp4", "0003.mp4"]
    after = ingested(licence="CC0-1.0", consent="form 12")
    assert len(probed) == 3, "what is said of a file does not change the file"
    assert after.key != before.key
    rows = after.table("rights").to_pylist()
    assert {row["source"].rpartition("!/")[2]: (row["licence"], row["consent"]) for row in rows} == dict.fromkeys(
        ("0001.mp4", "0002.mp4", "0003.mp4"), ("CC0-1.0", "form 12")
    )
    again = run_stage("split_clips", SPLIT, videos=after)
    assert [entry.key for entry in again.parts] == [entry.key for entry in clips.parts]
    unstated = ingested()
    assert unstated.table("rights").num_rows == 0


def test_parts_grow_by_bytes(run_stage: Stage, tmp_path: Path, film: Film) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(6):
        film(folder / f"{seed}.mp4", seed, frames=24)
    sizes = sorted(path.stat().st_size for path in folder.iterdir())
    config = {"videos": str(folder), "part_prefix_length": 1, "part_bytes": sizes[0] + sizes[1]}
    found = run_stage("ingest_videos", config)
    for entry in found.parts:
        rows = Video.from_table(found.part(entry.name).table("videos"))
        assert len(rows) == 1 or sum(row.size_bytes for row in rows) <= config["part_bytes"]
    clips = run_stage("split_clips", SPLIT, videos=found)
    assert [entry.name for entry in clips.parts] == [entry.name for entry in found.parts]


def test_a_purge_leaves_nothing_of_a_member_but_the_archive_itself(
    run_stage: Stage, shards: Path, store: Store, cache: Path
) -> None:
    from wfm.artifacts.purge import carry_out, find_video

    found = run_stage("ingest_videos", {"videos": str(shards)})
    video = by_name(found)["0001.mp4"]
    cached = [path for name in ("sources", "archives") for path in (cache / name).iterdir()]
    assert len(cached) == 3 + 1 + 2, "films, facts, and what lies where: a list, and pieces of the stream"
    carry_out(store, find_video(store, video.video_id), "asked by its author")
    assert {path.suffix for path in (cache / "sources").iterdir()} == {".mp4"}
    assert video.video_id not in {known_hash(path) for path in (cache / "sources").iterdir()}
    assert list((cache / "archives").iterdir()) == []
    archive._indexes.clear()
    again = run_stage("ingest_videos", {"videos": str(shards)})
    assert by_name(again)["0001.mp4"].reason.startswith("purged: ")
    assert by_name(again)["0002.mp4"].status == "ok"
