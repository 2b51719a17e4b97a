"""Records read back as samples: their own shapes, parts as one, and every lie of the table refused by name."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.wfm.data.record_rows import SHAPES, TRAIN, committed, latents, record_row
from tests.wfm.data.test_energon import opened
from wfm.artifacts import Artifact, Store
from wfm.artifacts.listing import PartEntry
from wfm.artifacts.pull import pull
from wfm.data.encoded_samples import encoded_samples, require_samples
from wfm.data.lengths import open_lengths
from wfm.data.order import Source, sample_keys
from wfm.data.record_table import place_of
from wfm.data.records import LENGTHS, RecordWriter, npy_bytes, read_npy, record_key
from wfm.data.samples import Samples
from wfm.data.shards import read_sample
from wfm.errors import DataError

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return committed(Store.open(str(tmp_path_factory.mktemp("of") / "store")))


@pytest.fixture(scope="module")
def pulled(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("of") / "pulled"
    pull(artifact, folder, "all")
    return folder


@pytest.fixture
def folder(pulled: Path, tmp_path: Path) -> Path:
    """What was pulled, to be damaged."""
    return shutil.copytree(pulled, tmp_path / "pulled")


def test_parts_are_one_list_of_samples_of_their_own_shape(artifact: Artifact, folder: Path) -> None:
    for source in (artifact, folder):
        found: Samples = require_samples(source, "train")
        assert list(found.ids) == [f"clip{number:02d}:0" for number in TRAIN]
        assert found.ids[2] == "clip02:0"
        assert found.ids[1:3] == ("clip01:0", "clip02:0")
        assert found.shapes.dtype == np.int64
        assert [tuple(shape) for shape in found.shapes] == [SHAPES[number % 4] for number in TRAIN]
        for row, number in enumerate(TRAIN):
            sample = found.read(row)
            assert np.array_equal(sample["latents"], latents(number, SHAPES[number % 4]))
            assert sample["fps"] == (0 if number % 4 == 0 else 24 + number)
            assert found.sizes[row] == sum(tensor.nbytes for tensor in sample.values())
        for row, sample in zip((5, 0, 5), found.read_many([5, 0, 5]), strict=True):
            assert sample.keys() == found.read(row).keys()
            assert all(torch.equal(tensor, found.read(row)[name]) for name, tensor in sample.items())
    assert require_samples(artifact, "train").identity == require_samples(folder, "train").identity
    assert require_samples(artifact, "train").identity != require_samples(artifact, "val").identity


def test_several_threads_may_read(artifact: Artifact) -> None:
    found = require_samples(artifact, "train")
    rows = list(range(len(found))) * 20
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(found.read, rows))
    assert all(
        np.array_equal(s["latents"], latents(TRAIN[r], SHAPES[TRAIN[r] % 4])) for r, s in zip(rows, read, strict=True)
    )


def test_energon_and_webdataset_open_what_was_pulled(folder: Path) -> None:
    """Counts, bytes and shapes, both splits; nothing is prepared."""
    import webdataset

    table = open_lengths(place_of(folder), "train").table()
    tars = sorted(str(path) for path in (folder / "shards/train").glob("*.tar"))
    assert len(tars) > 3
    theirs = {sample["__key__"]: sample for sample in webdataset.WebDataset(tars, shardshuffle=False).decode()}
    raw = opened(folder, "train")
    assert raw.keys() == theirs.keys() == {f"clip{number:02d}-0" for number in TRAIN}
    assert len(opened(folder, "val")) == 2
    for row, number in zip(table.to_pylist(), TRAIN, strict=True):
        wanted, members = latents(number, SHAPES[number % 4]), raw[row["key"]]
        assert members == read_sample(folder / row["shard"], row["key"]).members
        assert members["latents.npy"] == npy_bytes(wanted)
        assert theirs[row["key"]]["latents.npy"].shape == wanted.shape
        assert np.array_equal(theirs[row["key"]]["latents.npy"], wanted)
        facts = json.loads(members["json"])
        assert facts == {name: row[name] for name in facts}
        assert facts["kind"] == ("image" if number % 4 == 0 else "video")
        data = (folder / row["shard"]).read_bytes()[row["offset"] : row["offset"] + row["bytes"]]
        assert hashlib.sha256(data).digest() == row["sha256"]
        assert google_crc32c.value(data) == row["crc32c"]


def test_tokens_and_a_guess(tmp_path: Path) -> None:
    tokens = {kind: np.arange(24, dtype=kind).reshape(2, 3, 4) for kind in ("int32", "int64")}
    with RecordWriter(tmp_path, "0a") as records:
        for kind, array in tokens.items():
            records.write("train", record_row(kind), {"tokens": array, "extrapolated": array + 1})
    found = require_samples(tmp_path, "train")
    for row, array in enumerate(tokens.values()):
        sample = found.read(row)
        assert {name: tensor.dtype for name, tensor in sample.items()} == {
            "tokens": torch.int64, "extrapolated": torch.int64, "fps": torch.float32,
        }  # fmt: skip
        assert np.array_equal(sample["tokens"], array)
        assert np.array_equal(sample["extrapolated"], array + 1)
        assert found.sizes[row] == sum(tensor.nbytes for tensor in sample.values())


def test_an_empty_split_is_refused_by_name(folder: Path, artifact: Artifact) -> None:
    assert encoded_samples(folder, "test") is None
    with pytest.raises(DataError, match="latents aaaaaaaaaaaa: the split 'test' is empty"):
        require_samples(artifact, "test")


def test_what_holds_no_records_is_refused(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    attempt = store.attempt("b" * 64)
    (Path(attempt.path) / "x").write_text("x")
    with pytest.raises(DataError, match="dataset bbbbbbbbbbbb holds no encoded samples"):
        encoded_samples(attempt.commit(stage="s", kind="dataset"), "train")
    with pytest.raises(DataError, match=r"no samples\.parquet is in it"):
        encoded_samples(tmp_path, "train")


def told(folder: Path, **columns: Callable[[object], object]) -> None:
    """The table of lengths with what row 4 (in part 0a, clip05) says changed."""
    path = folder / "samples.parquet/0a.parquet"
    rows = pq.read_table(path).to_pylist()
    assert rows[4]["sample_id"] == "clip05:0"
    for name, change in columns.items():
        rows[4][name] = change(rows[4][name])
    pq.write_table(pa.Table.from_pylist(rows, schema=LENGTHS), path)


def named(sample: str) -> dict[str, Callable[[object], object]]:
    """All that a row says of its id."""
    own = {"sample_id": sample, "key": record_key(sample), "order_key": int(sample_keys([sample])[0])}
    return {name: lambda _, value=value: value for name, value in own.items()}  # type: ignore[misc]


LIES: dict[str, tuple[dict[str, Callable[[object], object]], str]] = {
    "a shape that is none": ({"latent_height": lambda _: 0}, "a shape that no sample has.*clip05:0.*latent_height 0"),
    "a huge shape": ({"latent_width": lambda _: 1 << 40}, "a shape that no sample has"),
    "a shape of other bytes": ({"latent_width": lambda _: 1 << 12}, "a shape that is not of so many bytes.*clip05:0"),
    "a shape whose size overflows": (
        {side: lambda _: 1 << 22 for side in ("latent_frames", "latent_height", "latent_width")}
        | {"num_frames": lambda _: 1 << 22},
        "a shape that is not of so many bytes",
    ),
    "a start before the clip": ({"start_frame": lambda _: -3}, "frames that no clip has.*clip05:0: start_frame -3"),
    "a start that overflows": ({"start_frame": lambda _: (1 << 63) - 2}, "frames that no clip has"),
    "fewer frames than latent ones": ({"num_frames": lambda _: 0}, "frames that no clip has.*num_frames 0"),
    "frames beyond memory": ({"num_frames": lambda _: 1 << 40}, "frames that no clip has"),
    "channels below 0": ({"channels": lambda _: -1}, "channels -1"),
    "no such shard": ({"shard": lambda _: "shards/train/zz-00000.tar"}, "a shard that is not there.*clip05:0"),
    "outside of the shard": ({"offset": lambda at: at + (1 << 20)}, "a range outside of its shard.*clip05:0"),
    "longer than the shard": ({"bytes": lambda size: size + (1 << 20)}, "a range outside of its shard"),
    "before the shard": ({"offset": lambda _: -512}, "a range outside of its shard"),
    "so large that sums overflow": ({"offset": lambda _: (1 << 63) - 512}, "a range outside of its shard"),
    "not on a block": ({"offset": lambda at: at + 1}, "a range outside of its shard"),
    "no bytes": ({"bytes": lambda _: 0}, "a range outside of its shard"),
    "another kind": ({"kind": lambda _: "sound"}, "a kind other than video and image.*'sound'"),
    "a rate that is none": ({"fps": lambda _: float("nan")}, "a rate that is none"),
    "an id twice": (named("clip00:0"), "the id of another row.*clip00:0"),
    "an id twice, in another part": (named("clip06:0"), "the id of another row.*clip06:0"),
    "nothing": ({"sha256": lambda _: None}, "rows without sha256"),
}  # fmt: skip


LIES_OF_TEXT: dict[str, tuple[dict[str, Callable[[object], object]], str]] = {
    "another id": ({"sample_id": lambda _: "clip00:0"}, "the order key of another sample.*clip00:0: order_key"),
    "another order key": ({"order_key": lambda key: key ^ 1}, "the order key of another sample.*clip05:0: order_key"),
    "another key": ({"key": lambda _: "clip04-0"}, "the key of another sample.*clip05:0: key 'clip04-0'"),
    "no clip": ({"clip_id": lambda _: None}, "rows without clip_id"),
    "no key": ({"key": lambda _: None}, "rows without key"),
}  # fmt: skip


def test_all_that_decides_what_a_row_gives_is_in_the_identity(folder: Path) -> None:
    """Signals and text are joined by clip, first frame, number of frames and mirror: with others the same bytes are another
    sample."""
    seen = {require_samples(folder, "train").identity}
    for name, other in {
        "start_frame": 1, "num_frames": 8, "clip_id": "clip15", "mirrored": True, "fps": 12.0, "sha256": bytes(32),
    }.items():  # fmt: skip
        told(folder, **{name: lambda _, other=other: other})
        seen.add(require_samples(folder, "train").identity)
    assert len(seen) == 7
    told(folder, source=lambda _: "elsewhere.mp4", start_seconds=lambda _: 9.0)
    assert require_samples(folder, "train").identity in seen, "where it comes from decides nothing"


@pytest.mark.parametrize("lie", LIES)
def test_a_table_that_cannot_be_true_is_refused_when_it_is_opened(folder: Path, lie: str) -> None:
    columns, words = LIES[lie]
    told(folder, **columns)
    with pytest.raises(DataError, match=words):
        encoded_samples(folder, "train")


@pytest.mark.parametrize("lie", LIES_OF_TEXT)
def test_text_that_cannot_be_true_is_refused_when_it_is_read(folder: Path, lie: str) -> None:
    """Before the first step of a training, which asks for the identity; keys of shards are read by nobody there."""
    columns, words = LIES_OF_TEXT[lie]
    told(folder, **columns)
    found = require_samples(folder, "train")
    for _ in range(2):
        with pytest.raises(DataError, match=words):
            _ = found.table.column("key") if "key" in columns else found.identity


READS = """
import sys
from pathlib import Path
import pyarrow.parquet as pq
from wfm.data.encoded_samples import require_samples
from wfm.data.loader import Loader, LoaderConfig
from wfm.data.order import Batching, BatchOrder, Lane, Source

read, asked = pq.ParquetFile.read, set()
pq.ParquetFile.read = lambda self, columns=None, **more: asked.update(columns) or read(self, columns=columns, **more)
found = require_samples(Path(sys.argv[1]), "train")
order = BatchOrder([Lane("all", [Source.of("all", found)])], Batching(samples=1), seed=0)
with Loader({"all": found}, order, LoaderConfig()) as loader:
    for _ in found.shapes:
        loader.next()
    loader.restore(loader.state())
    loader.next()
if len(sys.argv) > 2:
    found.identity
print(*sorted(asked))
"""


def test_no_text_is_read_to_open_restore_and_read_samples(folder: Path) -> None:
    """Nothing of the table, where it has an index, and of text columns those of few values alone, where it has none; the twin
    asks for the identity, which holds ids and clips."""
    text = {field.name for field in LENGTHS if field.type == pa.string()}
    asked = [
        set(subprocess.run([sys.executable, "-c", READS, folder, *more], check=True, capture_output=True, text=True,
                           cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}).stdout.split())
        for more in ([], ["identity"])
    ]  # fmt: skip
    assert asked == [set(), {"sha256", "mirrored", "sample_id", "clip_id"}]
    for index in folder.rglob("samples.arrow"):
        index.unlink()
    asked = subprocess.run([sys.executable, "-c", READS, folder], check=True, capture_output=True, text=True,
                           cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}).stdout.split()  # fmt: skip
    assert set(asked) & text == {"split", "shard", "kind"}


def test_text_is_read_once_however_many_ask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = require_samples(folder, "train")
    read, calls = pq.ParquetFile.read, []

    def slow(self: pq.ParquetFile, columns: list[str], **more: object) -> pa.Table:
        calls.append(columns)
        time.sleep(0.02)
        return read(self, columns=columns, **more)

    monkeypatch.setattr(pq.ParquetFile, "read", slow)
    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(lambda row: found.ids[row % len(found)], range(64)))
    assert ids == [f"clip{TRAIN[row % len(found)]:02d}:0" for row in range(64)]
    assert calls == [["sample_id"]] * 2, "once of each part"
    assert found.table.column("video_id").to_pylist() == ["v"] * len(found)
    assert calls[2:] == [["video_id"]] * 2


def test_rows_of_a_split_may_lie_anywhere_in_a_part(folder: Path) -> None:
    """Those that lie side by side are a slice, others are chosen one by one: the same rows."""
    path = folder / "samples.parquet/0a.parquet"
    wanted = require_samples(folder, "train").table.table().to_pylist()
    rows = pq.read_table(path).to_pylist()
    assert [row["split"] for row in rows] == ["train"] * 5 + ["val"]
    pq.write_table(pa.Table.from_pylist([*rows[:2], rows[5], *rows[2:5]], schema=LENGTHS), path, row_group_size=2)
    found = require_samples(folder, "train")
    assert found.table.table().to_pylist() == wanted
    assert found.identity == require_samples(folder, "train").identity


def test_a_table_that_was_written_anew_is_refused_when_its_text_is_read(folder: Path) -> None:
    found = require_samples(folder, "train")
    told(folder, clip_id=lambda _: "another")
    with pytest.raises(DataError, match=r"0a\.parquet is another file since it was opened, and clip_id is to be read"):
        found.table.column("clip_id")
    (folder / "samples.parquet/0a.parquet").unlink()
    with pytest.raises(DataError, match=r"0a\.parquet is not a Parquet file that can be read: .*No such file"):
        found.table.column("clip_id")


def test_a_table_without_a_column_is_refused(folder: Path) -> None:
    path = folder / "samples.parquet/f3.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["offset"]), path)
    with pytest.raises(DataError, match=r"samples\.parquet of .*pulled lacks offset"):
        encoded_samples(folder, "train")
    pq.write_table(pq.read_table(path).append_column("offset", pa.array(["x"] * 5)), path)
    with pytest.raises(DataError, match=r"samples\.parquet of .*pulled: "):
        encoded_samples(folder, "train")


@pytest.mark.parametrize("damage", ["no text", "lists", "a column twice"])
def test_a_table_of_other_columns_is_refused(folder: Path, damage: str) -> None:
    path = folder / "samples.parquet/f3.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("clip_id")
    if damage == "a column twice":
        table = table.append_column("clip_id", table.column(place))
    else:
        no_text = pa.array([b"\xff"] * len(table)).view(pa.string())
        table = table.set_column(place, "clip_id", no_text if damage == "no text" else pa.array([[1]] * len(table)))
    pq.write_table(table, path)
    if damage == "no text":
        found = require_samples(folder, "train")
        with pytest.raises(DataError, match=r"samples\.parquet of .*: .*UTF8"):
            found.table.column("clip_id")
    else:
        with pytest.raises(DataError, match=r"samples\.parquet"):
            encoded_samples(folder, "train")


FALSE: dict[str, tuple[dict[str, Callable[[object], object]], str]] = {
    "another shape": ({"latent_frames": lambda t: t + 1}, r"clip05:0: latents\.npy holds .*\(3, 3, 2, 2\).*4, 2, 2\]"),
    "other channels": ({"channels": lambda _: 2}, r"latents\.npy holds .*its row says <f4 \[2, 3, 2, 2\]"),
    "tokens": ({"channels": lambda _: 0}, r"sample clip05:0: no member 'tokens\.npy'; it has json, latents\.npy"),
    "a guess": ({"extrapolated": lambda _: True}, r"sample clip05:0: no member 'extrapolated\.npy'"),
    "another hash": ({"crc32c": lambda _: 7}, r"sample clip05:0: .*0a-\d+\.tar, .* do not have the crc32c 7"),
}  # fmt: skip


@pytest.mark.parametrize("lie", FALSE)
def test_a_sample_that_is_not_what_its_row_says_is_refused_when_it_is_read(folder: Path, lie: str) -> None:
    columns, words = FALSE[lie]
    told(folder, **columns)
    found = require_samples(folder, "train")
    row = list(found.ids).index("clip05:0")
    with pytest.raises(DataError, match=words):
        found.read(row)
    for other in set(range(len(found))) - {row}:
        found.read(other)


def test_an_order_key_that_lies_is_refused_when_its_sample_is_read(folder: Path, monkeypatch) -> None:
    """It is one of those rows that nobody looks at before."""
    told(folder, order_key=lambda key: key ^ 1)
    monkeypatch.setattr("wfm.data.lengths._LOOKED_AT", 2)
    found = require_samples(folder, "train")
    for row, name in enumerate(found.ids):
        if name != "clip05:0":
            found.read(row)
    row = list(found.ids).index("clip05:0")
    with pytest.raises(
        DataError, match=rf"sample clip05:0: its order_key .* is {found.order_keys[row]}, .* another sample's"
    ):
        found.read(row)


def test_the_order_takes_its_keys_from_the_table_or_from_the_ids_of_an_older_one(folder: Path, monkeypatch) -> None:
    new = require_samples(folder, "train")
    np.testing.assert_array_equal(new.order_keys, sample_keys(new.ids))
    identity = new.identity
    with monkeypatch.context() as patched:
        patched.setattr("wfm.data.order.sources.sample_keys", lambda _: pytest.fail("ids were hashed"))
        known = Source.of("latents", new)
    for path in (folder / "samples.parquet").glob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["order_key"]), path)
    old = require_samples(folder, "train")
    np.testing.assert_array_equal(old.order_keys, new.order_keys)
    assert old.identity == identity
    assert Source.of("latents", old).sha256 == known.sha256
    assert torch.equal(old.read(3)["latents"], new.read(3)["latents"])


def test_rows_that_have_changed_places_are_refused_when_they_are_read(folder: Path) -> None:
    """All that they say of the shards is true, and of other samples."""
    path = folder / "samples.parquet/0a.parquet"
    rows = pq.read_table(path).to_pylist()
    one, other = (next(row for row in rows if row["clip_id"] == clip) for clip in ("clip00", "clip04"))
    for name in ("shard", "offset", "bytes", "sha256", "crc32c"):
        one[name], other[name] = other[name], one[name]
    pq.write_table(pa.Table.from_pylist(rows, schema=LENGTHS), path)
    with pytest.raises(DataError, match="sample clip00:0: the record that its row names is of another sample"):
        require_samples(folder, "train").read(0)


def test_a_truncated_shard_is_refused_by_name(folder: Path) -> None:
    found = require_samples(folder, "train")
    path = folder / found.table.column("shard")[4].as_py()
    path.write_bytes(path.read_bytes()[: found.table.column("offset")[4].as_py() + 700])
    with pytest.raises(DataError, match=r"sample clip05:0: .*0a-\d+\.tar"):
        found.read(4)
    with pytest.raises(DataError, match="a range outside of its shard, such as sample clip05:0"):
        require_samples(folder, "train")


def test_a_changed_byte_is_refused(folder: Path) -> None:
    found = require_samples(folder, "train")
    path = folder / found.table.column("shard")[0].as_py()
    data = bytearray(path.read_bytes())
    data[found.table.column("offset")[0].as_py() + 600] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"sample clip00:0: .* do not have the crc32c"):
        found.read(0)


def test_numbers_are_mapped_and_not_copied(folder: Path) -> None:
    table = open_lengths(place_of(folder), "train")
    column = table.numbers("offset")
    assert not column.flags.writeable
    assert column.__array_interface__["data"][0] == table.column("offset").chunk(0).buffers()[1].address
    shutil.rmtree(folder)
    assert len(column) == len(TRAIN), "nothing of the source is needed any more"


def test_no_two_samples_share_a_key() -> None:
    clips = ["a", "a-0", "a-0-mirrored", "b-3"]
    names = {f"{clip}:{start}{turn}" for clip in clips for start in (0, 3) for turn in ("", ":mirrored")}
    assert len({record_key(name) for name in names}) == len(names)


def test_an_array_is_taken_by_its_row_and_not_by_its_header() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(read_npy(npy_bytes(array), (2, 3), ["<f4"], "x"), array)
    for data in (
        b"",
        b"\x93NUMPY",
        npy_bytes(array)[:-1],
        npy_bytes(array) + b"x",
        npy_bytes(array.T),
        npy_bytes(array > 1),
    ):
        with pytest.raises(DataError, match=r"x holds .* its row says <f4 \[2, 3\]"):
            read_npy(data, (2, 3), ["<f4"], "x")


def test_many_parts_are_opened_at_once_and_stay_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, entries = Store.open(tmp_path), []
    for number in range(40):
        key = hashlib.sha256(f"many {number}".encode()).hexdigest()
        with store.part_attempt(key) as attempt:
            with RecordWriter(attempt.path, f"{number:02x}") as records:
                records.write("train", record_row(f"clip{number:02d}"), {"latents": latents(number, (1, 2, 2))})
            attempt.commit(stage="encode_latents", kind="part")
        entries.append(store.part(key).entry(f"{number:02x}"))
    whole = store.attempt("d" * 64).commit(stage="encode_latents", kind="latents", parts=entries)
    open_part, at_once, most = Artifact.open_part, [], 0

    def slow(self: Artifact, entry: PartEntry) -> Artifact:
        nonlocal most
        at_once.append(1)
        most = max(most, len(at_once))
        time.sleep(0.02)
        at_once.pop()
        return open_part(self, entry)

    monkeypatch.setattr(Artifact, "open_part", slow)
    samples = require_samples(whole, "train")
    assert list(samples.ids) == [f"clip{number:02d}:0" for number in range(40)]
    assert most > 4, "one after the other it would be 1"
    assert torch.equal(samples.read(7)["latents"], torch.from_numpy(latents(7, (1, 2, 2))))
