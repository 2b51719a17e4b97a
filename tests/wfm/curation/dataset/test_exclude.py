"""Exclude lists: in a pulled folder and in the store, honoured by our own loader, refused for what is not there, never half
written. (That Energon honours them: tests/wfm/data/test_energon.py.)"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipelines.commands.curate import app
from wfm.artifacts import Artifact, Store
from wfm.curation.dataset import exclude
from wfm.curation.dataset.exclude import exclude_in_folder, exclude_in_store
from wfm.data.energon import FOLDER, MEMBERS, write_energon
from wfm.data.exclusions import Exclusions, read_exclusions, read_split
from wfm.data.shards import ShardWriter
from wfm.data.windows import decoded_clips, split_shards, windows
from wfm.errors import ConfigError, DataError, InputError

CLIPS = {"0a": ("c0", "c1", "c2"), "f3": ("c3", "c4")}
SHARD = {part: f"shards/train/{part}-00000.tar" for part in CLIPS}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def dataset(store: Store, tmp_path: Path, write_video: Callable[..., Path]) -> Artifact:
    """Five clips of 6 frames in two parts, as write_shards leaves them."""
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    video = write_video(tmp_path / "clip.mp4", frames).read_bytes()
    facts = {"session_id": "s", "video_id": "v", "source": "a.mp4", "start_seconds": 0.0, "fps": 24.0}
    entries = []
    for part, clips in CLIPS.items():
        with store.part_attempt(hashlib.sha256(part.encode()).hexdigest()) as attempt:
            with ShardWriter(attempt.path / "shards/train", part) as writer:
                for clip in clips:
                    writer.write(clip, {"mp4": video, "json": json.dumps(facts).encode()})
            rows = [{**row, "shard": f"shards/train/{row['shard']}"} for row in writer.members]
            pq.write_table(pa.Table.from_pylist(rows, schema=MEMBERS), attempt.path / "members.parquet")
            entries.append(attempt.commit(stage="write_shards", kind="part").entry(part))
    with store.attempt("ab" * 32) as attempt:
        write_energon(
            (store.part(entry.key).table("members") for entry in entries), ("train", "val", "test"), attempt.path
        )
        (attempt.path / "card.json").write_text("{}")
        return attempt.commit(stage="write_shards", kind="dataset", counts={"outputs": 5}, parts=entries)


def seen(dataset: Artifact) -> set[str]:
    return {window.clip_id for window in windows(dataset, "train", num_frames=4, stride_frames=4, size=(32, 32))}


def test_our_loader_leaves_out_what_is_excluded(store: Store, dataset: Artifact) -> None:
    assert seen(dataset) == {"c0", "c1", "c2", "c3", "c4"}
    fewer, entries = exclude_in_store(store, dataset, ["c1", "c3"])
    assert entries == [f"{SHARD['0a']}/c1", f"{SHARD['f3']}/c3"]
    assert seen(fewer) == {"c0", "c2", "c4"}
    assert [part.key for part in fewer.parts] == [part.key for part in dataset.parts], "no shard was written again"
    assert seen(dataset) == {"c0", "c1", "c2", "c3", "c4"}, "the old artifact keeps its meaning"
    assert fewer.manifest.inputs == {"dataset": dataset.key}
    assert store.verify(fewer.key).ok
    whole, _ = exclude_in_store(store, fewer, [], [SHARD["f3"]])
    assert seen(whole) == {"c0", "c2"}
    assert [path.name for path in split_shards(whole, "train")] == ["0a-00000.tar"]
    back, entries = exclude_in_store(store, whole, ["c1", "c3"], [SHARD["f3"]], undo=True)
    assert (seen(back), entries) == (seen(dataset), [])
    assert exclude_in_store(store, dataset, ["c3", "c1"])[0].key == fewer.key, "the same list is the same artifact"


def test_an_empty_split_is_said_to_be_empty(store: Store, dataset: Artifact) -> None:
    with pytest.raises(ConfigError, match="'val' has no shards in this data set; it has train"):
        next(windows(dataset, "val", num_frames=4, stride_frames=4, size=(32, 32)))


def test_a_part_knows_its_own_entries(store: Store, dataset: Artifact) -> None:
    fewer, _ = exclude_in_store(store, dataset, ["c1"], [SHARD["f3"]])
    excluded = read_exclusions(fewer)
    assert excluded.of_part("0a") == Exclusions(frozenset({f"{SHARD['0a']}/c1"}))
    assert excluded.of_part("f3").leaves_out(f"parts/f3/{SHARD['f3']}")
    assert excluded.of_part("0a").keys == {"c1"}
    assert excluded.of_part("3") == Exclusions()
    path = fewer.fetch(f"parts/0a/{SHARD['0a']}")
    assert [clip.clip_id for clip in decoded_clips(path, (32, 32), excluded.of_part("0a").keys)] == ["c0", "c2"]


def test_a_pulled_folder(store: Store, dataset: Artifact, tmp_path: Path) -> None:
    root = tmp_path / "pulled"
    store.pull(dataset.key, root, "all")
    shards = {path: path.read_bytes() for path in root.rglob("*.tar")}
    assert exclude_in_folder(root, ["c0"]) == [f"{SHARD['0a']}/c0"]
    assert exclude_in_folder(root, ["c4"]) == [f"{SHARD['0a']}/c0", f"{SHARD['f3']}/c4"]
    assert exclude_in_folder(root, ["c0"], undo=True) == [f"{SHARD['f3']}/c4"]
    assert read_split(root / FOLDER / "split.yaml")[0]["train"] == list(SHARD.values())
    assert {path: path.read_bytes() for path in root.rglob("*.tar")} == shards
    with pytest.raises(DataError, match="no data set"):
        exclude_in_folder(tmp_path, ["c0"])


def test_a_misspelt_clip_is_not_taken_for_excluded(store: Store, dataset: Artifact, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not in this data set's shards: shards/train/zz-00000\.tar, c9"):
        exclude_in_store(store, dataset, ["c1", "c9"], ["shards/train/zz-00000.tar"])
    root = tmp_path / "pulled"
    store.pull(dataset.key, root, "all")
    before = (root / FOLDER / "split.yaml").read_bytes()
    with pytest.raises(InputError, match="c9"):
        exclude_in_folder(root, ["c1", "c9"])
    assert (root / FOLDER / "split.yaml").read_bytes() == before


def test_the_beginning_of_an_id_is_enough_if_it_is_of_one_clip(tmp_path: Path) -> None:
    row = {
        "sample_index": 0,
        "sample_offset": 0,
        "sample_size": 1024,
        "member": "mp4",
        "member_offset": 512,
        "member_size": 5,
    }
    keys = ["0123456789abcdef", "0123456789ffffff", "0123456"]
    shards = [f"shards/train/{k}-00000.tar" for k in range(3)]
    table = pa.Table.from_pylist(
        [{**row, "shard": shard, "sample_key": key} for shard, key in zip(shards, keys, strict=True)], schema=MEMBERS
    )
    write_energon([table], ("train", "val", "test"), tmp_path)
    assert exclude_in_folder(tmp_path, ["0123456789ab", "0123456"]) == [
        f"{shards[0]}/{keys[0]}",
        f"{shards[2]}/{keys[2]}",
    ]
    with pytest.raises(InputError, match="'0123456789' is the beginning of several"):
        exclude_in_folder(tmp_path, ["0123456789"])
    with pytest.raises(InputError, match="not in this data set's shards: 012345"):
        exclude_in_folder(tmp_path, ["012345"])


def test_a_kill_leaves_the_old_list_or_the_new(
    store: Store, dataset: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "pulled"
    store.pull(dataset.key, root, "all")
    before = (root / FOLDER / "split.yaml").read_bytes()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        exclude_in_folder(root, ["c1"])
    assert (root / FOLDER / "split.yaml").read_bytes() == before
    monkeypatch.undo()
    assert exclude.exclude_in_folder(root, ["c1"]) == [f"{SHARD['0a']}/c1"]


def test_the_command(store: Store, dataset: Artifact, tmp_path: Path) -> None:
    store.promote("dataset", "balls", dataset.key)
    (tmp_path / "gone.txt").write_text("c1\n\nc4\n")
    done = CliRunner().invoke(
        app, ["exclude", "dataset/balls", "c0", "--list", str(tmp_path / "gone.txt"), "--store", store.url]
    )
    assert done.exit_code == 0, done.output
    assert "3 clips or shards" in done.output
    assert seen(store.artifact(store.resolve("dataset/balls"))) == {"c2", "c3"}
    done = CliRunner().invoke(app, ["exclude", "dataset/balls", "--store", store.url])
    assert isinstance(done.exception, InputError)
