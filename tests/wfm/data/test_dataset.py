"""``wfm.dataset``: every clip once, in an order that a seed decides, in bounded memory, with nothing left open."""

import itertools
import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import wfm
from tests.components.one_clip_parts import SPEC, members
from wfm.artifacts import Store
from wfm.data.exclusions import SPLIT_FILE, split_text
from wfm.data.shards import ShardWriter
from wfm.errors import ConfigError, DataError, InputError

SHARDS = 30


def pulled(root: Path, samples: dict[str, dict[str, bytes]], per_shard: int = 3, exclude: tuple[str, ...] = ()) -> Path:
    """A folder as `wfm artifacts pull` leaves it: shards of one split, the table of clips, the split file."""
    names, rows = [], []
    for number, some in enumerate(_some(samples, per_shard)):
        with ShardWriter(root / "shards" / "train" / "bin", f"{number:02x}") as writer:
            for key, parts in some:
                shard = f"shards/train/bin/{writer.write(key, parts)}"
                rows.append({"clip_id": key, "split": "train", "shard": shard, "reason": ""})
        names.append(shard)
    rows.append({"clip_id": "refused", "split": "", "shard": "", "reason": "black"})
    (root / "clips.parquet").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), root / "clips.parquet" / "00.parquet")
    (root / SPLIT_FILE).parent.mkdir()
    (root / SPLIT_FILE).write_text(split_text({"train": names, "test": []}, exclude))
    (root / "card.json").write_text(json.dumps({"clips": {"kept": len(samples)}}))
    return root


def _some(samples: dict[str, dict[str, bytes]], size: int) -> Iterator[list[tuple[str, dict[str, bytes]]]]:
    items = iter(samples.items())
    while some := list(itertools.islice(items, size)):
        yield some


def plain(count: int, size: int = 8) -> dict[str, dict[str, bytes]]:
    return {
        f"clip{number:04d}": {"mp4": bytes(size), "json": json.dumps({"fps": 24.0, "num_frames": 10}).encode()}
        for number in range(count)
    }


def ids(dataset: wfm.Dataset) -> list[str]:
    return [sample.clip_id for sample in dataset]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_every_clip_once_and_again(tmp_path) -> None:
    dataset = wfm.dataset(pulled(tmp_path, plain(20)))
    assert ids(dataset) == ids(dataset) == list(plain(20))
    assert (len(dataset), dataset.splits, dataset.card) == (20, ("train", "test"), {"clips": {"kept": 20}})
    assert ids(wfm.dataset(tmp_path, split="test")) == []
    assert "split train: 7 shards" in repr(dataset)


def test_a_seed_decides_the_order(tmp_path) -> None:
    root = pulled(tmp_path, plain(200))
    orders = {seed: ids(wfm.dataset(root, shuffle=seed)) for seed in (0, 1)}
    assert orders[0] == ids(wfm.dataset(root, shuffle=0))
    assert orders[0] != orders[1]
    for order in orders.values():
        assert sorted(order) == list(plain(200))
        shards = [int(name[4:]) // 3 for name in order]
        together = sum(one == two for one, two in itertools.pairwise(shards))
        assert together < 20, "clips of one shard do not stand together: in the order of the shards 133 do"


def test_what_is_excluded_is_left_out(tmp_path) -> None:
    first, second = "shards/train/bin/00-00000.tar", "shards/train/bin/01-00000.tar"
    dataset = wfm.dataset(pulled(tmp_path, plain(9), exclude=(first, f"{second}/clip0004")))
    assert ids(dataset) == ["clip0003", "clip0005", "clip0006", "clip0007", "clip0008"]
    assert len(dataset) == 5
    told = {"clip0004": "is excluded", "clip0000": "with its shard", "refused": "not kept: black", "x": "no clip 'x'"}
    for clip_id, words in told.items():
        with pytest.raises(InputError, match=words):
            dataset.clip(clip_id)
    assert dataset.clip("clip0003").clip_id == "clip0003"


def test_a_sample_says_what_it_is(tmp_path) -> None:
    dataset = wfm.dataset(pulled(tmp_path / "data", {"c1": members(1, "a ball rolls", 7.0)}))
    (sample,) = dataset
    assert (sample.caption, sample.fps, sample.embedding) == ("a ball rolls", 24.0, None)
    assert (sample.video.dtype, sample.video.shape) == (np.uint8, (10, 16, 16, 3))
    assert sample.video is sample.video, "decoded once"
    assert sample.frames(size=(8, 8)).shape == (10, 8, 8, 3)
    assert sample.actions.tolist() == [[7.0]] * 10
    assert sample.action_spec == SPEC
    assert sample.save(tmp_path / "c.mp4").read_bytes() == sample.members["mp4"]
    with pytest.raises(InputError, match=r"c\.mp4"):
        sample.save(tmp_path / "c.mp4")
    with pytest.raises(DataError, match="its height is None; a number was expected"):
        sample.size  # noqa: B018


@pytest.mark.alone
def test_memory_does_not_grow_with_the_data_set(tmp_path) -> None:
    """Of 30 shards of one clip of 4 MB a few are held at a time; the twin, who keeps the samples, holds all."""
    root = pulled(tmp_path, plain(SHARDS, size=4_000_000), per_shard=1)

    tracemalloc.start()

    def peak(keep: bool) -> float:
        kept = []
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for sample in wfm.dataset(root):
            kept.append(sample if keep else len(sample.members["mp4"]))
        return (tracemalloc.get_traced_memory()[1] - before) / 4_000_000

    assert peak(keep=False) < 4
    assert peak(keep=True) > SHARDS - 1


def test_nothing_stays_open(tmp_path) -> None:
    """After a whole pass, and after one that was left in its midst."""
    root = pulled(tmp_path, plain(90))
    dataset = wfm.dataset(root)
    before = open_files()
    ids(dataset)
    assert open_files() == before
    passing = iter(dataset)
    next(passing)
    assert open_files() == before + 1, "the twin: one shard is open in the midst"
    del passing
    assert open_files() == before


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"split": "valid"}, ConfigError, "split: 'valid' is none of this data set; it has train, test"),
        ({"shuffle": "yes"}, ConfigError, "shuffle is 'yes'; give a whole number"),
        ({"shuffle": True}, ConfigError, "shuffle is True"),
        ({"dataset": "./none"}, InputError, r"none: not a dataset that .* it has no \.nv-meta/split\.yaml"),
        ({"dataset": "none"}, InputError, "there is no dataset/none@latest"),
        ({"dataset": "none", "store": "nowhere"}, InputError, "the store .*nowhere does not exist"),
        ({"dataset": "model/m"}, InputError, "of kind 'model', wanted a dataset"),
    ],
)
def test_what_cannot_be_opened(tmp_path, monkeypatch, change, error, words) -> None:
    store = Store.open(tmp_path / "wfm-store")
    with store.attempt("ab" * 32) as attempt:
        (attempt.path / "x").write_text("x")
        attempt.commit(stage="publish_model", kind="model")
    store.promote("model", "m", "ab" * 32)
    monkeypatch.chdir(tmp_path)
    root = pulled(tmp_path / "data", plain(3))
    with pytest.raises(error, match=words):
        wfm.dataset(**{"dataset": root, **change})


def test_damage_is_told(tmp_path) -> None:
    root = pulled(tmp_path, plain(6))
    shard = root / "shards/train/bin/01-00000.tar"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"01-00000\.tar"):
        ids(wfm.dataset(root))
    shard.unlink()
    with pytest.raises(InputError, match="was not pulled"):
        ids(wfm.dataset(root))
    (root / "card.json").write_text("no")
    with pytest.raises(DataError, match=r"card\.json is not JSON"):
        wfm.dataset(root).card  # noqa: B018
