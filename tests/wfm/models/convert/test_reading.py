"""A file of tensors is known in full before a tensor is read, and a wrong one is refused with a reason."""

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from wfm.errors import DataError
from wfm.models.convert.reading import MAX_HEADER_BYTES, open_tensors
from wfm.models.convert.tensor_file import Entry

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int64,
    torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    made = {str(dtype).removeprefix("torch."): (torch.randn(3, 5) * 4).to(dtype) for dtype in DTYPES}
    return made | {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 4)}


def write(path: Path, header: object, data: bytes = b"") -> Path:
    """A safetensors file of any header at all."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


@pytest.mark.parametrize("mapped", [False, True])
def test_every_dtype_as_the_library_reads_it(tmp_path, mapped):
    save_file(tensors(), str(tmp_path / "a.safetensors"), {"note": "x"})
    expected = load_file(str(tmp_path / "a.safetensors"))
    with open_tensors(tmp_path / "a.safetensors", mapped=mapped) as file:
        assert file.entries["bfloat16"] == Entry("bfloat16", (3, 5))
        read = {name: file.read(name) for name in file.entries}
    assert read.keys() == expected.keys()
    for name, tensor in read.items():  # after the file was closed
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor.view(torch.uint8), expected[name].view(torch.uint8)) if tensor.ndim else tensor == 2.5


def test_an_odd_offset_is_read_too(tmp_path):
    header = {
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
    }
    write(tmp_path / "a.safetensors", header, b"\x07" + struct.pack("<2f", 1.5, -2.0))
    for mapped in (False, True):
        with open_tensors(tmp_path / "a.safetensors", mapped=mapped) as file:
            assert file.read("b").tolist() == [1.5, -2.0]


def test_writing_to_a_mapped_tensor_leaves_the_file(tmp_path):
    save_file({"a": torch.zeros(4)}, str(tmp_path / "a.safetensors"))
    before = (tmp_path / "a.safetensors").read_bytes()
    with open_tensors(tmp_path / "a.safetensors", mapped=True) as file:
        file.read("a").fill_(1)
    assert (tmp_path / "a.safetensors").read_bytes() == before


def one(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"\xff\xfe not json", "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"a": 1}', "described as 1"),
        (b'{"a": {"dtype": "F32"}}', "described as"),
        ({"a": one(dtype="F99")}, "dtype F99"),
        ({"a": one(shape=[-2])}, r"shape \[-2\]"),
        ({"a": one(shape=[True, 2])}, "shape"),
        ({"a": one(shape=[3])}, "12 bytes, but 8"),
        ({"a": one(), "b": one(offsets=[4, 12])}, "gap or an overlap"),
        ({"a": one(offsets=[4, 12])}, "gap or an overlap"),
        ({"a": one(shape=[2**62, 4], offsets=[0, 8])}, "set aside"),
        (b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "a": 3}', "'a' stands twice"),
        (b"[" * 100_000, "not JSON"),
        ({"a": one(shape=[1] * 17 + [2])}, "shape"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path, header, words):
    with pytest.raises(DataError, match=words):
        open_tensors(write(tmp_path / "a.safetensors", header, bytes(8)))


def test_truncated_and_overlong_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(1000)}, str(path))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="truncated: its header describes"):
        open_tensors(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(DataError, match="header describes"):
        open_tensors(path)
    path.write_bytes(whole[:40])
    with pytest.raises(DataError, match="truncated: the header alone"):
        open_tensors(path)
    for short in (b"", b"abc", struct.pack("<Q", MAX_HEADER_BYTES + 1) + bytes(64)):
        path.write_bytes(short)
        with pytest.raises(DataError, match="not a readable safetensors file"):
            open_tensors(path)


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    save_file({"a": torch.zeros(1000)}, str(tmp_path / "a.safetensors"))
    with open_tensors(tmp_path / "a.safetensors", mapped=False) as file:
        (tmp_path / "a.safetensors").open("r+b").truncate(500)
        with pytest.raises(DataError, match="changed meanwhile"):
            file.read("a")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 500))
def test_damage_is_refused_or_harmless(tmp_path, place, value, cut):
    """Any byte changed, any tail cut off: a DataError, or a file of the same description that can be read."""
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(5)}, str(path))
    whole = bytearray(path.read_bytes())
    whole[place % len(whole)] = value
    path.write_bytes(bytes(whole[: max(len(whole) - cut, 0)] if cut < 250 else whole))
    try:
        with open_tensors(path) as file:
            for name, entry in file.entries.items():
                assert tuple(file.read(name).shape) == entry.shape
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is right; only silence would not be


@pytest.fixture
def sharded(tmp_path):
    save_file({"a": torch.ones(2)}, str(tmp_path / "m-00001-of-00002.safetensors"))
    save_file({"b": torch.ones(3)}, str(tmp_path / "m-00002-of-00002.safetensors"))
    index = tmp_path / "m.safetensors.index.json"
    homes = {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"}
    index.write_text(json.dumps({"metadata": {"total_size": 20}, "weight_map": homes}))
    return index, homes


def test_shards(sharded):
    index, _ = sharded
    with open_tensors(index) as file:
        assert {name: entry.shape for name, entry in file.entries.items()} == {"a": (2,), "b": (3,)}
        assert torch.equal(file.read("b"), torch.ones(3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda homes: homes.pop("a"), "'a'|weight_map"),
        (lambda homes: homes.update(c=homes["b"]), "do not agree about 'c'"),
        (lambda homes: homes.update(a=homes["b"], b=homes["a"]), "do not agree"),
        (lambda homes: homes.update(a="../other.safetensors"), "lies beside"),
        (lambda homes: homes.update(a="/etc/passwd"), "lies beside"),
        (lambda homes: homes.update(a=".."), "lies beside"),
        (lambda homes: homes.update(a=5), "lies beside"),
        (lambda homes: homes.update(a="gone.safetensors"), "gone.safetensors is missing"),
    ],
)
def test_a_wrong_index_is_refused(sharded, change, words):
    index, homes = sharded
    change(homes)
    index.write_text(json.dumps({"weight_map": homes}))
    if words.startswith("'a'"):  # a shard nobody lists is not opened: the tensor is simply not there
        with open_tensors(index) as file:
            assert "a" not in file.entries
        return
    with pytest.raises(DataError, match=words):
        open_tensors(index)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"weight_map": 3}', "{" * 10_000])
def test_what_is_no_index(tmp_path, text):
    (tmp_path / "m.safetensors.index.json").write_text(text)
    with pytest.raises(DataError, match=r"index|weight_map"):
        open_tensors(tmp_path / "m.safetensors.index.json")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        open_tensors(tmp_path / "gone.safetensors")


BAD_FILES = {
    "wrong header": "file.write(struct.pack('<Q', 1 << 40))",
    "longest header": "file.write(struct.pack('<Q', 4 << 20) + random.randbytes(4 << 20))",
    "truncated": "file.write(struct.pack('<Q', len(head)) + head)",
    "random bytes": "file.write(random.randbytes(1 << 20))",
    "zip, damaged": "file.write(b'PK\\x03\\x04' + random.randbytes(1 << 20))",
    "zip, vast directory": "file.seek((1 << 30) - 22); "
    "file.write(struct.pack('<4s4H2LH', b'PK\\x05\\x06', 0, 0, 9, 9, 1 << 29, 0, 0)); "
    "file.seek(0); file.write(b'PK\\x03\\x04')",
    "old pickle": "file.write(b'\\x80\\x02\\x8a\\x0al\\xfc\\x9cF\\xf9 j\\xa8P\\x19.')",
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_of_1_gb_costs_less_than_50_mb(tmp_path, growth, kind):
    path = tmp_path / "bad.safetensors"
    head = json.dumps({"a": {"dtype": "F32", "shape": [1 << 30], "data_offsets": [0, 1 << 32]}})
    before = f"""
import json, random, struct
from wfm.errors import DataError
from wfm.models.convert import from_cosmos
head = {head!r}.encode()
with open({str(path)!r}, "wb") as file:
    file.truncate(1 << 30)
    {BAD_FILES[kind]}
"""
    code = f"""
try:
    from_cosmos({str(path)!r}, "cv8x8x8", allow_pickle_file=True)
except DataError as error:
    print(error)
else:
    raise SystemExit("not refused")
"""
    assert growth(before, code) < 50


def test_a_file_of_1_gb_of_another_preset_costs_less_than_50_mb(tmp_path, growth):
    """Whole and well-formed, 1 GiB of zeros, but the names of nothing we know."""
    path = tmp_path / "other.safetensors"
    size = 1 << 30
    write(path, {"encoder.conv_in.0.conv3d.weight": one(shape=[size // 4], offsets=[0, size])})
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size)
    before = "from wfm.errors import DataError\nfrom wfm.models.convert import from_cosmos"
    for preset in ("cv8x8x8", "diffusion-14b"):
        code = f"""
try:
    from_cosmos({str(path)!r}, {preset!r})
except DataError as error:
    assert "do not fit" in str(error) and {preset!r} in str(error), error
else:
    raise SystemExit("not refused")
"""
        assert growth(before, code) < 50
