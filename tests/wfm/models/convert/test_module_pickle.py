"""What a TorchScript pickle may cost: its bytes, whatever numbers it names."""

import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from wfm.errors import DataError
from wfm.models.convert import module_pickle
from wfm.models.convert.archive import load_pickle_file
from wfm.models.convert.module_pickle import Machine, Module, WrongPickle
from wfm.models.convert.reading import open_tensors

MODULE = b"c__torch__\nM\n)\x81"
NESTED = b")" + b"\x85" * 200_000  # a tuple in a tuple, and so on


def archive(path: Path, described: bytes, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, content in {"data.pkl": described, "constants.pkl": b"", **more}.items():
            made.writestr(f"a/{name}", content)
    return path


_WITHIN = """
import resource, sys
from pathlib import Path
from wfm.models.convert.reading import open_tensors
from wfm.errors import DataError
for path in sys.argv[1:]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        open_tensors(Path(path), allow_pickle_file=True)
    except DataError:
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_an_index_of_four_bytes_sets_no_gigabytes_aside(tmp_path: Path) -> None:
    """LONG_BINPUT 1e8 in a file of 233 bytes: the old code took 1,527 MiB; tuples as keys ended it with SIGSEGV."""
    path = archive(tmp_path / "a.jit", b"\x80\x02Nr" + struct.pack("<I", 10**8) + b".")
    nested = archive(tmp_path / "b.jit", b"\x80\x02}" + NESTED + b"Ns.")
    files = [str(nested), str(path)]
    ran = subprocess.run([sys.executable, "-c", _WITHIN, *files], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-300:]
    assert [int(growth) < 150 for growth in ran.stdout.split()] == [True, True], ran.stdout


@pytest.mark.parametrize(
    ("described", "words"),
    [
        (b"\x80\x02}" + NESTED + b"Ns.", "a key that is no text"),
        (b"\x80\x02" + NESTED + b"Q.", "as something else than five things"),
        (b"\x80\x02(X\x07\x00\x00\x00storage" + NESTED + b"NNNtQ.", "describes a storage as"),
        (b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.", "protocol 4"),
        *((code, "which TorchScript does not write") for code in (b"\x8b", b"\x8d", b"\x8e", b"\x95", b"\x94", b"2", b"i")),
        (b"X" + struct.pack("<I", 2**32 - 1) + b".", "ends too early"),
        (b"\x8a\xff" + bytes(255) + b".", "a number of 255 bytes"),
        (b"h\x07.", "has not kept"),
        (b"q\x07.", "keeps what is not there"),
        (b"(.", "takes what is not there"),
        (b"(N0", "does not write"),
        (b"Na.", "fills a list that is not there"),
        (b"NNs.", "fills a dict that is not there"),
        (b"\x80", "ends too early"),
        (b"", "ends too early"),
        (b"cos\n" + b"x" * 2000, "more than 1,000 characters"),
        (b"NNR.", "calls what is no name"),
        (MODULE + b"Nb.", "a module with the state NoneType"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)  # fmt: skip
def test_what_is_not_written_is_not_carried_out(described: bytes, words: str) -> None:
    with pytest.raises(WrongPickle, match=words):
        Machine(described).run()


def test_instructions_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_pickle, "MAX_INSTRUCTIONS", 1000)
    assert isinstance(Machine(b"N" * 900 + MODULE + b".").run(), Module)
    with pytest.raises(WrongPickle, match="more than 1,000 instructions"):
        Machine(b"N" * 2000 + b".").run()


def test_lists_and_tensors_that_are_named_again_cost_nothing_again(tmp_path: Path) -> None:
    """One long list, taken a thousand times over by a function that would copy it, and as a shape."""
    many = b"]q\x00(" + b"K\x01" * 20_000 + b"e"
    again = b"ctorch.jit._pickle\nbuild_intlist\nh\x00\x85R" * 1000
    assert isinstance(Machine(many + again + b"ctorch.jit._pickle\nbuild_intlist\nh\x00\x85R.").run(), list)
    shape = b"(" + b"K\x01" * 20_000 + b"tq\x01"
    with pytest.raises(WrongPickle, match="a tensor that cannot be"):
        Machine(shape + b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00h\x01h\x01tR.").run()


def test_a_module_under_growing_names_is_not_followed(tmp_path: Path) -> None:
    """The old code held 2,689 MiB of names by its 100,000th, where it gave up."""
    loop = b"\x80\x02" + MODULE + b"q\x01}(X\x01\x00\x00\x00ah\x01X\x01\x00\x00\x00bh\x01ub."
    ran = subprocess.run(
        [sys.executable, "-c", _WITHIN, str(archive(tmp_path / "a.jit", loop))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert int(ran.stdout) < 150, ran.stderr[-300:]


def test_a_pt_asks_for_no_more_than_it_is(tmp_path: Path) -> None:
    """torch's weights-only reader makes a bytearray of any length: asked for 4 GiB, the old code took 4,097 MiB."""
    path = tmp_path / "mean_std.pt"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(
            "a/data.pkl", b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + (2**33).to_bytes(5, "little") + b"\x85R."
        )
        made.writestr("a/version", b"3\n")
    with pytest.raises(DataError, match="names builtins bytearray, which no tensor needs"):
        load_pickle_file(path)
    torch.save({"a": torch.ones(2)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info.filename))
    with pytest.raises(DataError, match="is compressed; torch stores plain ones"):
        open_tensors(tmp_path / "b.pt", allow_pickle_file=True)
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a/data.pkl", b"\x80\x02" + b"]" * 2_000_000 + b".")
    with pytest.raises(DataError, match="more than 1,000,000 instructions"):  # the old code: 138 MiB of lists
        load_pickle_file(path)
