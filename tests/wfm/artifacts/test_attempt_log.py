"""A log of any length in the store: head and tail are kept, in bounded memory, and what is left out is said."""

import re
import threading
import tracemalloc
from pathlib import Path

import pytest

from wfm.artifacts import Store
from wfm.artifacts.attempt_log import KEPT_BYTES, PIECE_BYTES, LogPieces, pieces_of
from wfm.artifacts.objects import Objects
from wfm.artifacts.runs import Run
from wfm.errors import TryAgain

FOLDER = "runs/r/nodes/n/attempts/0001/log"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Store.open(tmp_path / "store", {"fsync": False}).runs.create({})


def lines(count: int, width: int = 80) -> list[bytes]:
    return [f"{number:0{width - 1}d}\n".encode() for number in range(count)]


def test_a_short_log_is_whole_however_it_comes(run: Run) -> None:
    pieces, number = LogPieces(piece=1000), run.append_attempt("n")
    for line in lines(40):
        pieces.add(line)
        if line[-2:-1] in b"37":
            run.ship_log("n", number, pieces)
    run.ship_log("n", number, pieces)
    assert run.read_log("n").encode() == b"".join(lines(40))
    starts = [int(name[:15]) for name in run.names("nodes/n/attempts/0001/log")]
    assert starts == [0, 960, 1920, 2880], "a piece ends with a line"


def test_what_follows_is_read_from_where_the_last_call_ended(run: Run) -> None:
    pieces, number = LogPieces(piece=100), run.append_attempt("n")
    told, at = b"", 0
    for line in lines(9, 40):
        pieces.add(line)
        run.ship_log("n", number, pieces)
        new, at = run.follow_log("n", number, at)
        assert new == line
        told += new
    assert told == b"".join(lines(9, 40))
    assert run.follow_log("n", number, at) == (b"", at)


@pytest.mark.alone
def test_a_hundred_megabytes_keep_their_head_and_tail_in_bounded_memory(run: Run) -> None:
    pieces, number = LogPieces(), run.append_attempt("n")
    block = b"".join(lines(12_500))  # 1 MB
    tracemalloc.start()
    for turn in range(100):
        pieces.add(b"%d is the turn\n" % turn + block)
        if turn % 7 == 0:
            run.ship_log("n", number, pieces)
    run.ship_log("n", number, pieces)
    peak = tracemalloc.get_traced_memory()[1]
    assert peak < KEPT_BYTES + 8 * PIECE_BYTES, "what was written is let go, and never more is held than is kept"
    text = run.read_log("n")
    assert text.startswith("0 is the turn\n")
    assert text.endswith(block[-80:].decode())
    left_out = int(
        re.findall(r"\[\.\.\. ([0-9,]+) bytes of this log are left out here \.\.\.\]", text)[0].replace(",", "")
    )
    note = len(f"\n[... {left_out:,} bytes of this log are left out here ...]\n")
    assert len(text) - note + left_out == 100 * len(block) + sum(len(f"{n} is the turn\n") for n in range(100))
    held = sum(stat.size for stat in run._objects.walk(f"runs/{run.id}/nodes/n/attempts/0001/log"))
    assert held <= KEPT_BYTES


class Refusing:
    """Objects that do not answer while they are told so."""

    def __init__(self, objects: Objects) -> None:
        self.objects, self.down = objects, True

    def replace(self, path: str, data: bytes) -> None:
        if self.down:
            raise TryAgain("the store does not answer")
        self.objects.replace(path, data)

    def delete(self, path: str) -> None:
        self.objects.delete(path)


def test_a_store_that_is_away_costs_no_line_of_what_is_kept(tmp_path: Path) -> None:
    objects = Store.open(tmp_path / "store", {"fsync": False}).objects
    away = Refusing(objects)
    pieces, written = LogPieces(piece=1000, head=2, tail=3), lines(30)
    for line in written:
        pieces.add(line)
        with pytest.raises(TryAgain):
            pieces.ship(away, FOLDER)  # type: ignore[arg-type]
    assert pieces_of(objects, FOLDER) == []
    away.down = False
    pieces.ship(away, FOLDER)  # type: ignore[arg-type]
    assert b"".join(objects.read(f"{FOLDER}/{piece.name}") for piece in pieces_of(objects, FOLDER)) == b"".join(written)


def test_one_adds_while_another_ships(run: Run) -> None:
    pieces, number = LogPieces(piece=5000, head=10_000), run.append_attempt("n")
    adding = threading.Thread(target=lambda: [pieces.add(line) for line in lines(3000)])
    adding.start()
    while adding.is_alive():
        run.ship_log("n", number, pieces)
    run.ship_log("n", number, pieces)
    assert run.read_log("n").encode() == b"".join(lines(3000))


def test_a_log_of_before_is_one_file(run: Run) -> None:
    number = run.append_attempt("n")
    run.write(f"nodes/n/attempts/{number:04d}/log.txt", "as the engine wrote it\n")
    assert run.read_log("n") == "as the engine wrote it\n"
    assert run.follow_log("n", number, 3) == (b"the engine wrote it\n", 23)
