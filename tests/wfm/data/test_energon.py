"""Megatron-Energon and webdataset open our shards as they are written: same samples, same bytes, nothing prepared."""

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from wfm.data.energon import FOLDER, MEMBERS, write_energon, write_split
from wfm.data.shards import ShardWriter, read_keys, read_sample
from wfm.errors import DataError

SPLITS = ("train", "val", "test")


def members_of(number: int) -> dict[str, bytes]:
    facts = {"number": number, "caption": f"clip {number}"}
    return {
        "mp4": bytes([number]) * (700 + 37 * number),
        "json": json.dumps(facts).encode(),
        "txt": f"clip {number}".encode(),
        "emb.npy": b"\x93NUMPY" + bytes([number]) * 99,
        **({"actions.parquet": b"PAR1" * number} if number % 3 == 0 else {}),
    }


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Eleven clips in two parts, one of them in a bin; the shards are small, so that a part has several. No split `test`."""
    tables = []
    for part, bin_, numbers in (("0a", "", range(6)), ("f3", "/overflow", range(6, 11))):
        rows = []
        for split, mine in (("train", [n for n in numbers if n % 4]), ("val", [n for n in numbers if n % 4 == 0])):
            folder = tmp_path / f"data/shards/{split}{bin_}"
            with ShardWriter(folder, part, maximum_bytes=6000) as writer:
                for number in mine:
                    writer.write(f"clip{number:02d}", members_of(number))
            rows += [{**row, "shard": f"shards/{split}{bin_}/{row['shard']}"} for row in writer.members]
        tables.append(pa.Table.from_pylist(rows, schema=MEMBERS))
    counts = write_energon(tables, SPLITS, tmp_path / "data")
    assert sum(counts.values()) == 11
    assert len(counts) > 4
    return tmp_path / "data"


def opened(folder: Path, split: str) -> dict[str, dict[str, bytes]]:
    """Every sample that Energon reads of a split, once: key -> members."""
    from megatron.energon import Cooker, DefaultTaskEncoder, WorkerConfig, get_loader, get_val_dataset, stateless
    from megatron.energon.flavors import CrudeSample

    class AsItIs(DefaultTaskEncoder):
        decoder = None
        cookers = (Cooker(stateless(lambda sample: sample)),)

        def batch(self, samples):
            return samples

        def encode_batch(self, batch):
            return batch

    found, worker = {}, WorkerConfig(rank=0, world_size=1, num_workers=0)
    dataset = get_val_dataset(folder, split_part=split, worker_config=worker, batch_size=1, task_encoder=AsItIs())
    for batch in get_loader(dataset):
        for sample in batch:
            assert isinstance(sample, CrudeSample)
            key = sample["__key__"].rpartition("/")[2]
            found[key] = {name: value for name, value in sample.items() if not name.startswith("__")}
    return found


def test_energon_opens_it(dataset: Path) -> None:
    for split, numbers in (("train", [n for n in range(11) if n % 4]), ("val", [0, 4, 8])):
        found = opened(dataset, split)
        assert found == {f"clip{number:02d}": members_of(number) for number in numbers}


def test_exclusions_need_no_new_shards(dataset: Path) -> None:
    split = json.loads((dataset / FOLDER / "split.yaml").read_text())
    shard = next(name for name in split["split_parts"]["val"] if "clip04" in read_keys(dataset / name))
    write_split(dataset / FOLDER, split["split_parts"], [f"{shard}/clip04"])
    assert "clip04" not in opened(dataset, "val")
    assert len(opened(dataset, "val")) == 2
    gone = split["split_parts"]["train"][-1]
    write_split(dataset / FOLDER, split["split_parts"], [gone])  # a whole shard
    assert set(opened(dataset, "train")) == {f"clip{n:02d}" for n in range(11) if n % 4} - set(
        read_keys(dataset / gone)
    )


def test_the_index_is_what_energon_itself_would_write(dataset: Path, tmp_path: Path) -> None:
    theirs = shutil.copytree(dataset, tmp_path / "theirs")
    shutil.rmtree(theirs / FOLDER)
    for index in theirs.rglob("*.idx"):
        index.unlink()
    program = "from megatron.energon.cli.main import main; main()"
    splits = [argument for s in ("train", "val") for argument in ("--split-parts", f"{s}:shards/{s}/.*")]
    done = subprocess.run(
        [sys.executable, "-c", program, "prepare", str(theirs), "--non-interactive", *splits,
         "--sample-type", "CrudeWebdataset", "--num-workers", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    ours_info, their_info = (json.loads((root / FOLDER / ".info.json").read_text()) for root in (dataset, theirs))
    assert ours_info["shard_counts"] == their_info["shard_counts"]
    assert rows(dataset) == rows(theirs)
    for index in dataset.rglob("*.idx"):
        assert index.read_bytes() == (theirs / index.relative_to(dataset)).read_bytes()


def rows(root: Path) -> list[tuple[object, ...]]:
    """Every member by shard name, with all offsets and sizes."""
    shards = list(json.loads((root / FOLDER / ".info.json").read_text())["shard_counts"])
    with sqlite3.connect(root / FOLDER / "index.sqlite") as database:
        found = database.execute(
            "SELECT s.tar_file_id, s.sample_key, s.byte_offset, s.byte_size, p.part_name, p.content_byte_offset,"
            " p.content_byte_size FROM samples s JOIN sample_parts p ON s.tar_file_id = p.tar_file_id AND"
            " s.sample_index = p.sample_index"
        ).fetchall()
    return sorted((shards[number], *rest) for number, *rest in found)


def test_webdataset_opens_it(dataset: Path) -> None:
    import webdataset

    shards = sorted(str(path) for path in (dataset / "shards").rglob("*.tar"))
    found = {}
    for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False):
        found[sample["__key__"]] = {name: value for name, value in sample.items() if not name.startswith("__")}
    assert found == {f"clip{number:02d}": members_of(number) for number in range(11)}


def test_the_same_again_is_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    table = pa.Table.from_pylist(
        [{"shard": "shards/train/a-00000.tar", "sample_key": "k", "sample_index": 0, "sample_offset": 0, "sample_size": 1024,
          "member": "mp4", "member_offset": 512, "member_size": 5}], schema=MEMBERS,
    )  # fmt: skip
    for name in ("one", "two"):
        write_energon([table], SPLITS, tmp_path / name)
    for path in (tmp_path / "one" / FOLDER).iterdir():
        assert path.read_bytes() == (tmp_path / "two" / FOLDER / path.name).read_bytes()
    assert (tmp_path / "one" / FOLDER / "index.uuid").read_text() != (dataset / FOLDER / "index.uuid").read_text()
    with pytest.raises(DataError, match=r"a sample key stands in two shards .*of latents clip and first frame"):
        write_energon(
            [table, table.set_column(0, "shard", pa.array(["shards/val/b-00000.tar"]))], SPLITS, tmp_path / "x"
        )


def test_members_lie_where_the_writer_says(dataset: Path) -> None:
    with sqlite3.connect(dataset / FOLDER / "index.sqlite") as database:
        shards = list(json.loads((dataset / FOLDER / ".info.json").read_text())["shard_counts"])
        for number, key, index in database.execute(
            "SELECT tar_file_id, sample_key, sample_index FROM samples"
        ).fetchall():
            data = (dataset / shards[number]).read_bytes()
            sample = read_sample(dataset / shards[number], key)
            wanted = "SELECT part_name, content_byte_offset, content_byte_size FROM sample_parts"
            found = database.execute(f"{wanted} WHERE tar_file_id = ? AND sample_index = ?", (number, index))
            for name, offset, size in found.fetchall():
                assert data[offset : offset + size] == sample.members[name]
