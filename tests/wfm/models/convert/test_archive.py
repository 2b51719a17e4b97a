"""torch's archives: tensors of TorchScript without running it, `.pt` files on request only, and nothing hostile."""

import collections
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from wfm.errors import DataError
from wfm.models.convert.reading import open_tensors
from wfm.models.convert.tensor_file import Entry


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(2, 3, 1)
        self.register_buffer("_levels", torch.tensor([8, 5]), persistent=False)
        self.sizes, self.factors, self.flags = [1, 2], [0.5], [True]
        self.name, self.nothing = "part", None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv3d(x) * self._levels[0]


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([Part(), nn.Identity()])
        self.half_precision = nn.Linear(3, 4).bfloat16()
        self.last = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
        self.tied = self.last
        self.register_buffer("odd", torch.arange(24.0).reshape(4, 6)[:, ::2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.encoder:
            x = layer(x)
        return x


@pytest.fixture
def whole():
    torch.manual_seed(0)
    return Whole()


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("mapped", [False, True])
def test_torchscript_as_torch_loads_it(tmp_path, whole, how, mapped):
    made = torch.jit.script(whole) if how == "script" else torch.jit.trace(whole, torch.zeros(1, 2, 1, 1, 1))
    torch.jit.save(made, str(tmp_path / "a.jit"))
    expected = torch.jit.load(str(tmp_path / "a.jit")).state_dict()
    with open_tensors(tmp_path / "a.jit", mapped=mapped) as file:
        assert file.kind == "TorchScript archive"
        read = {name: file.read(name) for name in file.entries}
    assert read["encoder.0._levels"].tolist() == [8, 5]  # TorchScript keeps buffers that a state_dict leaves out
    assert read.keys() == expected.keys()
    for name, tensor in read.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])


def rewritten(path: Path, out: Path, **changes: bytes | None) -> Path:
    """An archive with entries replaced (`data.pkl`), or left out (None)."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as new:
        for info in old.infolist():
            short = info.filename.partition("/")[2]
            content = changes.get(short, old.read(info.filename))
            if content is not None:
                new.writestr(info.filename, content)
    return out


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.fixture
def script(tmp_path, whole):
    torch.jit.save(torch.jit.script(whole), str(tmp_path / "a.jit"))
    return tmp_path / "a.jit"


def test_a_torchscript_pickle_that_would_run_code_is_refused(tmp_path, script):
    target = tmp_path / "made by the pickle"
    hostile = rewritten(script, tmp_path / "b.jit", **{"data.pkl": pickle.dumps(Touch(target), protocol=2)})
    with pytest.raises(DataError, match=r"without running code.*mkdir"):
        open_tensors(hostile)
    assert not target.exists()
    with pytest.raises(Exception, match=r".*"):  # that it is hostile: Python's own unpickler would run it
        pickle.loads(pickle.dumps(Touch(target / "deeper"), protocol=2))


@pytest.mark.parametrize(
    "names",
    [
        ("builtins", "eval"),
        ("os", "system"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_parameter"),
        ("__torch", "X"),
    ],
)
def test_nothing_else_can_be_named(tmp_path, script, names):
    code = b"\x80\x02c" + names[0].encode() + b"\n" + names[1].encode() + b"\nX\x01\x00\x00\x00a\x85R."
    with pytest.raises(DataError, match=f"{names[0]}.{names[1]}"):
        open_tensors(rewritten(script, tmp_path / "b.jit", **{"data.pkl": code}))


def described(storage: tuple[object, ...], *tensor: object) -> bytes:
    """A data.pkl with one tensor, `weight`, of any description."""

    class Module:
        pass

    class Named:
        def __init__(self, text: str) -> None:
            self.text = text

    class Pickler(pickle._Pickler):  # the one in Python can be told to write any global
        def save(self, thing: object, save_persistent_id: bool = True) -> None:
            if isinstance(thing, Named):
                self.write(b"c" + thing.text.encode())
                return
            super().save(thing, save_persistent_id)

    buffer = io.BytesIO()
    pickler = Pickler(buffer, protocol=2)
    pickler.write(b"\x80\x02c__torch__ M\n".replace(b"__torch__ M", b"__torch__\nM") + b")\x81}X\x06\x00\x00\x00weight")
    pickler.save(Named("torch._utils\n_rebuild_tensor_v2\n"))
    pickler.write(b"(")
    pickler.write(b"(")
    for part in storage:
        pickler.save(part if part != "FLOAT" else Named("torch\nFloatStorage\n"))
    pickler.write(b"tQ")
    for part in tensor:
        pickler.save(part)
    pickler.save(False)
    pickler.write(b"}tRsb.")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("storage", "tensor", "words"),
    [
        (("storage", "FLOAT", "0", "cpu", 10**9), (0, (10**9,), (1,)), "which has fewer"),
        (("storage", "FLOAT", "0", "cpu", 2), (0, (3,), (1,)), "beyond its storage"),
        (("storage", "FLOAT", "0", "cpu", 2), (1, (2,), (1,)), "beyond its storage"),
        (("storage", "FLOAT", "0", "cpu", 2), (0, (2, 2), (0, 2)), "beyond its storage"),
        (("storage", "FLOAT", "0", "cpu", 2), (0, (2,), (-1,)), "cannot be"),
        (("storage", "FLOAT", "0", "cpu", 2), (-1, (2,), (1,)), "cannot be"),
        (("storage", "FLOAT", "0", "cpu", 2), (0, (2,), (1, 1)), "cannot be"),
        (("storage", "FLOAT", "../../x", "cpu", 2), (0, (2,), (1,)), "describes a storage"),
        (("storage", "FLOAT", "77", "cpu", 2), (0, (2,), (1,)), "which has fewer"),
        (("storage", "FLOAT", "0", "cpu", -2), (0, (2,), (1,)), "describes a storage"),
        (("module", "FLOAT", "0", "cpu", 2), (0, (2,), (1,)), "describes a storage"),
    ],
)
def test_tensors_that_cannot_be_are_refused(tmp_path, script, storage, tensor, words):
    good = described(("storage", "FLOAT", "1", "cpu", 2), 0, (2,), (1,))
    with open_tensors(rewritten(script, tmp_path / "good.jit", **{"data.pkl": good})) as file:
        assert file.entries == {"weight": Entry("float32", (2,))}  # so that what fails below fails for its own reason
    with pytest.raises(DataError, match=words):
        open_tensors(rewritten(script, tmp_path / "b.jit", **{"data.pkl": described(storage, *tensor)}))


def test_damaged_archives_are_refused(tmp_path, script):
    whole = script.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 40, 4):
        (tmp_path / "b.jit").write_bytes(whole[:length])
        with pytest.raises(DataError, match="truncated or damaged"):
            open_tensors(tmp_path / "b.jit")
    for name in ("data/0", "data.pkl"):
        with pytest.raises(DataError, match=r"which has fewer|without a data.pkl"):
            open_tensors(rewritten(script, tmp_path / "b.jit", **{name: None}))
    place, first = whole.rfind(b"PK\x01\x02"), whole.find(b"PK\x01\x02")
    size = first + 24
    assert place > first
    (tmp_path / "b.jit").write_bytes(whole[: size - 4] + struct.pack("<2L", 1 << 28, 1 << 28) + whole[size + 4 :])
    with pytest.raises(DataError, match="ends after the file"):  # the list of entries claims more than there is
        open_tensors(tmp_path / "b.jit")


def test_what_loops_is_bounded(tmp_path, script):
    """A module that holds itself: nothing is followed for ever."""
    loop = b"\x80\x02c__torch__\nM\nq\x00)\x81q\x01}(X\x01\x00\x00\x00ah\x01X\x01\x00\x00\x00bh\x01ub."
    with pytest.raises(DataError, match="more than 100,000"):
        open_tensors(rewritten(script, tmp_path / "b.jit", **{"data.pkl": loop}))


def test_another_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match=r"without a data.pkl"):
        open_tensors(tmp_path / "a.pt", allow_pickle_file=True)


def state() -> dict[str, torch.Tensor]:
    return {"net.a": torch.arange(6.0).reshape(2, 3), "net.b": torch.ones(3, dtype=torch.bfloat16)}


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {"state_dict": s, "step": 3}, collections.OrderedDict]
)
def test_pt_behind_the_flag(tmp_path, wrap):
    torch.save(wrap(state()), tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"allow_pickle_file=True \(--pt"):
        open_tensors(tmp_path / "a.pt")
    with open_tensors(tmp_path / "a.pt", allow_pickle_file=True) as file:
        assert file.entries == {"net.a": Entry("float32", (2, 3)), "net.b": Entry("bfloat16", (3,))}
        assert all(torch.equal(file.read(name), tensor) for name, tensor in state().items())


def test_extra_states_are_no_tensors(tmp_path):
    torch.save(
        {**state(), "net.attn._extra_state": io.BytesIO(b"x").getvalue(), "net.norm._extra_state": None},
        tmp_path / "a.pt",
    )
    with open_tensors(tmp_path / "a.pt", allow_pickle_file=True) as file:
        assert file.entries.keys() == state().keys()


def test_a_pt_that_would_run_code_is_refused_even_with_the_flag(tmp_path):
    target = tmp_path / "made by the pickle"
    torch.save({"net.a": Touch(target)}, tmp_path / "a.pt")
    with pytest.raises(DataError, match="weights-only reader refuses"):
        open_tensors(tmp_path / "a.pt", allow_pickle_file=True)
    assert not target.exists()


@pytest.mark.parametrize("value", [[torch.ones(2)], torch.ones(2), {"a": 3}, {"a": torch.ones(2), "b": "text"}])
def test_a_pt_of_something_else(tmp_path, value):
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"not a dictionary of tensors|not a tensor"):
        open_tensors(tmp_path / "a.pt", allow_pickle_file=True)


def test_the_old_kind_of_pickle_is_never_read(tmp_path):
    torch.save(state(), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "b.pt").write_bytes(pickle.dumps({"a": 1}))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(DataError, match="pickle of the old kind"):
            open_tensors(tmp_path / name, allow_pickle_file=True)


def test_a_vast_pickle_is_refused_unread(tmp_path, script):
    with pytest.raises(DataError, match=r"data.pkl has .* bytes"):
        open_tensors(rewritten(script, tmp_path / "b.jit", **{"data.pkl": bytes(9 << 20)}))
