"""What is written is what safetensors itself would write, in one file or in shards, and nothing old stays beside it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from wfm.errors import ConfigError
from wfm.models.convert.reading import open_tensors
from wfm.models.convert.writing import find_tensors, save_sharded, save_tensors


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    made = {f"layer{n}.weight": torch.randn(10, 10) for n in range(7)}  # 400 bytes each
    return made | {"count": torch.arange(3), "half": torch.randn(4).bfloat16()}


def read_back(path) -> dict[str, torch.Tensor]:
    with open_tensors(path) as file:
        return {name: file.read(name) for name in file.entries}


def test_one_file_has_the_librarys_own_bytes(tmp_path):
    save_tensors(tensors(), tmp_path / "ours.safetensors")
    save_file(tensors(), str(tmp_path / "theirs.safetensors"))
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()
    backwards = dict(reversed(tensors().items()))
    save_tensors(backwards, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "ours.safetensors").read_bytes()


def test_tensors_that_share_memory_or_are_not_contiguous(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    given = {"whole": whole, "tied": whole, "row": whole[1], "turned": whole.T, "expanded": whole[:1].expand(3, 6)}
    save_tensors(given, tmp_path / "a.safetensors")
    found = load_file(str(tmp_path / "a.safetensors"))
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in given.items())


@pytest.mark.parametrize("limit", [1, 400, 1000, 1600])
def test_shards_hold_everything_and_keep_their_size(tmp_path, limit):
    written = save_sharded(tensors(), tmp_path, "model", max_shard_bytes=limit)
    index = find_tensors(tmp_path, "model")
    assert index.name == "model.safetensors.index.json"
    assert written[-1] == index
    shards = written[:-1]
    for number, shard in enumerate(shards, 1):
        assert shard.name == f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        held = load_file(str(shard))
        assert sum(tensor.nbytes for tensor in held.values()) <= max(limit, 400) or len(held) == 1
    found, expected = read_back(index), tensors()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert json.loads(index.read_text())["metadata"]["total_size"] == sum(t.nbytes for t in expected.values())


def test_conversion_spares_whole_numbers(tmp_path):
    save_sharded(tensors(), tmp_path, "model", dtype=torch.float16)
    found = read_back(tmp_path / "model.safetensors")
    assert found["count"].dtype == torch.int64
    assert {tensor.dtype for name, tensor in found.items() if name != "count"} == {torch.float16}


def test_an_earlier_write_leaves_nothing(tmp_path):
    (tmp_path / "other.safetensors").write_bytes(b"not ours")
    for limit in (400, 1000, None, 1600, None):
        written = save_sharded(tensors(), tmp_path, "model", max_shard_bytes=limit)
        assert set(tmp_path.iterdir()) == {*written, tmp_path / "other.safetensors"}
        assert read_back(find_tensors(tmp_path, "model")).keys() == tensors().keys()


@pytest.mark.parametrize("limit", [0, -5])
def test_a_size_that_cannot_be(tmp_path, limit):
    with pytest.raises(ConfigError, match=f"max_shard_bytes: {limit}"):
        save_sharded(tensors(), tmp_path, "model", max_shard_bytes=limit)
    assert not list(tmp_path.iterdir())
