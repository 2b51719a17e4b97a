"""The index of a table of lengths: what it says is what the table says; one that is not the table's is passed over by name."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wfm.data.record_rows import committed
from wfm.artifacts import Artifact, Store
from wfm.artifacts.pull import pull
from wfm.data.encoded_samples import require_samples
from wfm.data.lengths import Lengths, open_lengths
from wfm.data.lengths_index import INDEX, NotItsIndex, open_index, write_index
from wfm.data.order import Batching, BatchOrder, Lane, Source
from wfm.data.record_table import TableFile, place_of
from wfm.data.records import LENGTHS
from wfm.errors import DataError

NUMBERS = [field.name for field in LENGTHS if field.type != pa.string()]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return committed(Store.open(str(tmp_path_factory.mktemp("of") / "store")))


@pytest.fixture
def folder(artifact: Artifact, tmp_path: Path) -> Path:
    pull(artifact, tmp_path / "pulled", "all")
    return tmp_path / "pulled"


def said(table: Lengths, leave_out: tuple[str, ...] = ()) -> list[object]:
    """All that a table says, by either way, with the types."""
    numbers = [(name, table.numbers(name).dtype, table.numbers(name).tolist()) for name in NUMBERS]
    codes = [(name, table.codes[name].tolist(), table.values[name]) for name in table.codes]
    names = [name for name in LENGTHS.names if name not in leave_out]
    return [len(table), numbers, codes, table.table(names).to_pylist()]


def decoded(folder: Path, split: str) -> Lengths:
    """Of the table alone: the twin, as all of it was before."""
    for index in folder.rglob("samples.arrow"):
        index.rename(index.with_suffix(".away"))
    found = open_lengths(place_of(folder), split)
    for index in folder.rglob("samples.away"):
        index.rename(index.with_suffix(".arrow"))
    return found


def test_columns_of_the_index_are_of_the_types_of_the_table() -> None:
    for field in INDEX:
        wanted = LENGTHS.field(field.name).type
        assert field.type == (pa.dictionary(pa.int32(), pa.string()) if wanted == pa.string() else wanted)


MADE_OF_IDS = ("sample_id", "key")
"""Columns that are compared with others when they are read."""
TEXT = st.sampled_from(["train", "val", "ä", "shards/train/0.tar", ""])
NUMBER = {"int64": st.integers(-(2**63), 2**63 - 1), "int32": st.integers(-(2**31), 2**31 - 1), "bool": st.booleans(),
          "uint32": st.integers(0, 2**32 - 1), "uint64": st.integers(0, 2**64 - 1), "double": st.floats(allow_nan=False),
          "string": TEXT, "fixed_size_binary[32]": st.binary(min_size=32, max_size=32)}  # fmt: skip
ROWS = st.lists(st.fixed_dictionaries({field.name: NUMBER[str(field.type)] for field in LENGTHS}), max_size=6)


@settings(max_examples=25, deadline=None)
@given(ROWS, st.booleans())
def test_an_index_is_its_table(tmp_path_factory: pytest.TempPathFactory, rows: list, chunked: bool) -> None:
    folder = tmp_path_factory.mktemp("any")
    table = pa.Table.from_pylist(rows, schema=LENGTHS)
    if chunked:
        table = pa.concat_tables([table.slice(0, 2), table.slice(2)])
    parquet = folder / "samples.parquet"
    pq.write_table(table, parquet)
    write_index(table, parquet, folder / "samples.arrow")
    found = open_index(folder / "samples.arrow", TableFile("t", lambda: parquet, False))
    assert (
        found.cast(pa.schema([LENGTHS.field(name) for name in INDEX.names])).to_pylist()
        == table.select(INDEX.names).to_pylist()
    )
    for split in ("train", "val"):
        found, twin = open_lengths(place_of(folder), split), decoded(folder, split)
        assert said(found, MADE_OF_IDS) == said(twin, MADE_OF_IDS)
    shutil.rmtree(folder)


def test_parts_with_an_index_without_one_and_with_a_foreign_one_are_the_same_samples(
    folder: Path, artifact: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    indices = sorted(folder.rglob("samples.arrow"))
    assert [str(each.relative_to(folder)) for each in indices] == ["parts/0a/samples.arrow", "parts/f3/samples.arrow"]
    wanted = said(decoded(folder, "train"))
    with caplog.at_level(logging.WARNING):
        assert (
            said(open_lengths(place_of(artifact), "train")) == said(open_lengths(place_of(folder), "train")) == wanted
        )
        assert not caplog.records
        orders = [
            BatchOrder([Lane("all", [Source.of("all", require_samples(folder, "train"))])], Batching(samples=1), 0)
        ]
        indices[0].unlink()
        assert said(open_lengths(place_of(folder), "train")) == wanted
        assert not caplog.records, "tables of before have none"
        indices[0].write_bytes(indices[1].read_bytes())
        assert said(open_lengths(place_of(folder), "train")) == wanted
        assert "parts/0a/samples.arrow is not used: it is of a table of bytes" in caplog.text
    orders.append(
        BatchOrder([Lane("all", [Source.of("all", require_samples(folder, "train"))])], Batching(samples=1), 0)
    )
    assert orders[0].sha256 == orders[1].sha256


def damaged(path: Path, lie: str) -> None:
    data = bytearray(path.read_bytes())
    table = pa.ipc.open_file(pa.py_buffer(bytes(data))).read_all()
    if lie == "cut short":
        path.write_bytes(data[: len(data) // 2])
    elif lie == "empty":
        path.write_bytes(b"")
    elif lie == "a changed byte":
        at = data.rindex(table.column("order_key").chunk(0).buffers()[1].to_pybytes()[:8])
        data[at] ^= 1
        path.write_bytes(data)
    else:
        names = table.column_names
        place = names.index("channels")
        if lie == "fewer rows":
            table = table.slice(1)
        elif lie == "another type":
            table = table.set_column(place, "channels", table.column(place).cast(pa.int64()))
        elif lie == "a code that is none":
            wrong = pa.DictionaryArray.from_arrays(pa.array([7] * len(table), pa.int32()), ["train"], safe=False)
            table = table.set_column(0, "split", wrong)
        elif lie == "a value that is none":
            codes = pa.array([row % 2 for row in range(len(table))], pa.int32())
            table = table.set_column(1, "shard", pa.DictionaryArray.from_arrays(codes, pa.array(["s", None])))
        elif lie == "a row without a value":
            table = table.set_column(place, "channels", pa.array([None] * len(table), pa.int32()))
        elif lie == "another version":
            table = table.replace_schema_metadata({**table.schema.metadata, b"version": b"2"})
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)


LIES = {
    "cut short": "no Arrow file", "empty": "no Arrow file", "a changed byte": "its columns are not those that were written",
    "fewer rows": "it has 5 rows, and says 6", "another type": "no index of this version",
    "a code that is none": "no Arrow file", "a value that is none": "rows without shard",
    "a row without a value": "rows without channels",
    "another version": "no index of this version: '2'",
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies_is_passed_over_by_name(folder: Path, lie: str, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "parts/0a/samples.arrow"
    wanted = said(decoded(folder, "train"))
    damaged(path, lie)
    file = TableFile("t", lambda: folder / "samples.parquet/0a.parquet", False)
    with pytest.raises(NotItsIndex, match=LIES[lie]):
        open_index(path, file)
    with caplog.at_level(logging.WARNING):
        assert said(open_lengths(place_of(folder), "train")) == wanted
    assert "parts/0a/samples.arrow is not used: " in caplog.text
    assert "0a.parquet is decoded instead" in caplog.text


def test_whichever_bit_is_wrong_nothing_but_the_table_is_told(folder: Path) -> None:
    """Words were read before they were checked: of some bits UnicodeDecodeError and SystemError ended the run."""
    path = folder / "parts/0a/samples.arrow"
    file = TableFile("t", lambda: folder / "samples.parquet/0a.parquet", False)
    data, wanted = path.read_bytes(), open_index(path, file).to_pylist()
    draw, refused = np.random.default_rng(0), 0
    for at in draw.permutation(len(data))[:400].tolist():
        path.unlink()  # others may have it mapped
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << int(draw.integers(8))]) + data[at + 1 :])
        try:
            assert open_index(path, file).to_pylist() == wanted  # a byte that says nothing
        except NotItsIndex:
            refused += 1
    assert refused > 50


def test_a_table_that_was_written_anew_has_no_index(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of as many bytes too: its crc32c is another."""
    path = folder / "samples.parquet/0a.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    with caplog.at_level(logging.WARNING), pytest.raises(DataError):
        said(open_lengths(place_of(folder), "train"))
    assert "is of a table of crc32c" in caplog.text


def test_in_a_store_the_manifest_says_which_table_an_index_is_of(artifact: Artifact, folder: Path) -> None:
    path = folder / "parts/0a/samples.arrow"
    sha256 = next(file.sha256 for file in place_of(artifact).files() if file.label.startswith("parts/0a/"))
    assert len(open_index(path, TableFile("t", lambda: pytest.fail("the table was fetched"), True, sha256))) == 6
    with pytest.raises(NotItsIndex, match="it is of a table of sha256"):
        open_index(path, TableFile("t", lambda: path, True, "0" * 64))


def test_an_index_that_is_damaged_in_a_store_is_refused(tmp_path: Path) -> None:
    found = committed(Store.open(str(tmp_path)))
    path = next(tmp_path.rglob("samples.arrow"))
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"samples\.arrow is damaged"):
        open_lengths(place_of(found), "train")


def test_what_is_looked_at_is_a_view_of_the_file(folder: Path) -> None:
    """Nothing of an index is copied to open it."""
    before = pa.total_allocated_bytes()
    found = open_index(
        folder / "parts/0a/samples.arrow", TableFile("t", lambda: folder / "samples.parquet/0a.parquet", False)
    )
    address = found.column("offset").chunk(0).buffers()[1].address
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "samples.arrow" in line]
    spans = [[int(end, 16) for end in line[0].split("-")] for line in lines]
    assert any(first <= address < after for first, after in spans)
    assert all("w" not in line[1] for line in lines), "read only"
    assert pa.total_allocated_bytes() - before < 4096
    assert np.frombuffer(found.column("offset").chunk(0).buffers()[1], np.int64).flags.writeable is False
