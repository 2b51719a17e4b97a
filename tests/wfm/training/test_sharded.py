"""Checkpoints of models that are spread over ranks: of any number of ranks, for any; killed anywhere, damaged anyhow."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.wfm.training.rank_runs import worst
from tests.wfm.training.spread_failures import BEFORE, WHERE, WORDS
from tests.wfm.training.spread_runs import PATIENCE
from tests.wfm.training.whole_fit import make_latents, make_text
from wfm.artifacts import Store
from wfm.artifacts.checkpoint_record import read_folder, verify
from wfm.errors import DataError
from wfm.models.folder import load_tensors, save_tensors
from wfm.training.sharded import (
    Stored,
    export,
    parts_to_write,
    put_together,
    read_like,
    stored,
    write_parts,
)

ROOT = Path(__file__).parents[3]
STEMS = ("model", "optimizer", "average")
CRASHES = {"half_checkpoint:5/1": 4, "half_checkpoint:4/0": 4, "checkpoint_unnamed:2/0": 4, "checkpoint_named:2/0": 8}
"""Where a life ends -> the step that the next one goes on from. Checkpoints are made after 4, 8, ... steps: 3 files a rank."""


def lived(out: Path, *lives: dict) -> dict[str, dict]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.wfm.training.spread_runs", str(out), json.dumps(lives)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    return {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}


def of_checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    """Everything in one, put together by one process without ranks."""
    return {
        f"{stem}:{name}": one
        for stem in STEMS
        for name, one in put_together(stored(folder, stem, read_folder(folder).names)).items()
    }


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


def newest(scratch: Path) -> Path:
    return max(path for path in scratch.glob("checkpoint-*"))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A run of two that nobody stops, and one that is stopped after 9 steps."""
    out = tmp_path_factory.mktemp("sharded")
    two = {"size": 2, "shard": 2}
    lived(out, {"name": "whole", "scratch": "whole", **two}, {"name": "nine", "scratch": "nine", "stop": 9, **two})
    return out


def test_what_lies_there_is_parts_without_pickle(out):
    folder = newest(out / "nine")
    names = sorted(path.name for path in folder.iterdir())
    parts = [f"{stem}.rank-0000{rank}-of-00002.safetensors" for stem in sorted(STEMS) for rank in (0, 1)]
    assert names == sorted(["metrics.jsonl", "state.json", *parts])
    record = read_folder(folder)
    verify(folder, record)
    assert record.step == 9
    assert set(record.state["stateless"]) == {"optimizer"}
    assert record.state["data"]
    assert not list((out / "nine").glob(".checkpoint*"))
    sizes = [(folder / name).stat().st_size for name in parts if name.startswith("optimizer")]
    assert max(sizes) < 0.6 * sum(sizes)


def test_checkpoints_move_between_meshes_bit_for_bit(out, tmp_path):
    """2 -> 1 -> 2: every tensor is what was written; the end is that of a run that never moved."""
    shutil.copytree(out / "nine", tmp_path / "moving")
    before = of_checkpoint(newest(tmp_path / "moving"))
    one = {"name": "one", "scratch": "moving", "size": 1, "shard": 1, "stop": 13}
    assert lived(tmp_path, one)["one"]["resumed_from"] == 9
    assert same(before, load_tensors(tmp_path / "one.loaded.safetensors"))
    between = of_checkpoint(newest(tmp_path / "moving"))
    assert lived(tmp_path, {"name": "two", "scratch": "moving", "size": 2, "shard": 2})["two"]["resumed_from"] == 13
    assert same(between, load_tensors(tmp_path / "two.loaded.safetensors"))
    ends = [load_tensors(path) for path in (tmp_path / "two.safetensors", out / "whole.safetensors")]
    assert worst(*ends) <= 1e-8  # worst measured: 2e-14


@pytest.mark.long
def test_four_two_one_and_back(out, tmp_path):
    meshes = [(4, 4), (2, 2), (1, 1), (2, 2), (4, 2), (4, 4)]
    for place, (size, shard) in enumerate(meshes):
        life = {"name": f"life{place}", "scratch": "moving", "size": size, "shard": shard}
        stop = {} if place == len(meshes) - 1 else {"stop": 3 * (place + 1)}
        before = of_checkpoint(newest(tmp_path / "moving")) if place else {}
        said = lived(tmp_path, life | stop)[f"life{place}"]
        assert said["resumed_from"] == 3 * place
        if place:
            assert same(before, load_tensors(tmp_path / f"life{place}.loaded.safetensors"))
    ends = [load_tensors(path) for path in (tmp_path / "life5.safetensors", out / "whole.safetensors")]
    assert worst(*ends) <= 1e-8


def test_killed_inside_a_write_it_ends_as_if_nothing_had_been(out, tmp_path):
    two = {"size": 2, "shard": 2}
    lives = []
    for number, crash in enumerate(CRASHES):
        lives += [
            {"name": f"dead{number}", "scratch": f"s{number}", "crash": crash, **two},
            {"name": f"next{number}", "scratch": f"s{number}", **two},
        ]
    said = lived(tmp_path, *lives)
    for number, (crash, step) in enumerate(CRASHES.items()):
        assert f"dead{number}" not in said
        assert said[f"next{number}"]["resumed_from"] == step, crash
        assert same(load_tensors(tmp_path / f"next{number}.safetensors"), load_tensors(out / "whole.safetensors")), (
            crash
        )


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [flip, pytest.param(Path.unlink, marks=pytest.mark.long)])
def test_a_damaged_part_falls_back_to_the_one_before(out, tmp_path, spoil):
    shutil.copytree(out / "nine", tmp_path / "hurt")
    spoil(newest(tmp_path / "hurt") / "optimizer.rank-00001-of-00002.safetensors")
    said = lived(tmp_path, {"name": "again", "scratch": "hurt", "size": 2, "shard": 2})
    assert said["again"]["resumed_from"] == 8
    assert same(load_tensors(tmp_path / "again.safetensors"), load_tensors(out / "whole.safetensors"))


def test_ranks_with_folders_of_their_own_write_whole_tensors_and_go_on_from_the_store(out, tmp_path):
    """On machines of their own nobody sees the others' parts: rank 0 writes what one process would."""
    own = {"scratch": "own", "own": True, "size": 2, "shard": 2}
    said = lived(tmp_path, {"name": "first", "stop": 5, **own}, {"name": "next", **own})
    assert "is kept; the newest checkpoint in the store is that of step 5" in said["first"]["cancelled"]
    assert said["next"]["resumed_from"] == 5
    assert {path.name for path in newest(tmp_path / "own-0").glob("*.safetensors")} == {
        f"{s}.safetensors" for s in STEMS
    }
    assert [path.name for path in (tmp_path / "own-1").glob("checkpoint-*")] == ["checkpoint-00000005"]  # fetched
    assert same(load_tensors(tmp_path / "next.safetensors"), load_tensors(out / "whole.safetensors"))


def test_an_export_is_one_file_of_whole_tensors(out, tmp_path):
    for stem in ("model", "average"):
        export(newest(out / "whole"), tmp_path / f"{stem}.safetensors", stem=stem)
    exported, ended = load_tensors(tmp_path / "average.safetensors"), load_tensors(out / "whole.safetensors")
    assert all(torch.equal(exported[name], ended[name]) for name in exported)  # a run ends with its averages
    assert set(load_tensors(tmp_path / "model.safetensors")) == set(ended)


def test_a_stage_fits_a_spread_model_and_saves_it_whole(tmp_path):
    """With its linear prior, text, averages that are watched, and a checkpoint on the way: rank 0 alone writes the model."""
    store = Store.open(tmp_path / "store")
    make_latents(store)
    make_text(store)
    fitted = {"scratch": "scratch", "fit": True}
    lived(
        tmp_path,
        {"name": "two", "size": 2, "shard": 0, **fitted},
        {"name": "one", "size": 1, "shard": 0, **fitted, "scratch": "s"},
    )
    one, two = (load_tensors(tmp_path / name / "model/model.safetensors") for name in ("one-0", "two-0"))
    assert worst(one, two) <= 1e-8
    assert not list((tmp_path / "two-1").iterdir())
    cards = [json.loads((tmp_path / name / "model/config.json").read_text()) for name in ("one-0", "two-0")]
    figures = [card["extra"]["validation"] for card in cards]
    assert figures[0] == pytest.approx(figures[1], abs=1e-8)


def require_lost(said: dict[str, dict], name: str, size: int) -> None:
    """Rank 1 ended with its own words, the others soon after with what they lost."""
    failed, *others = (said[f"{name}-{rank}"] for rank in (1, *(r for r in range(size) if r != 1)))
    assert (failed["kind"], failed["words"]) == ("DataError", WORDS), name
    for told in others:
        assert told["kind"] == "RankLost", (name, told)
        assert re.match(rf"rank [0-9] of {size}, at '[a-z0-9 ]+': another rank died", told["words"]), (name, told)
        assert told["at"] - failed["at"] < PATIENCE / 2, name  # as it left, and not when the time of the call was over


def test_a_rank_that_fails_while_others_wait_for_its_tensors_keeps_its_words_and_they_lose_it(tmp_path):
    """It told of it by a row before, which gloo took for the tensor: that aborted processes, or nobody had its words."""
    two = {"size": 2, "shard": 2}
    lives = [{"name": at, "scratch": at, "fails": at, "own": at == "gathering", **two} for at in WHERE]
    said = lived(tmp_path, *lives)
    for where in WHERE:
        require_lost(said, where, 2)


@pytest.mark.long
def test_of_copies_too_and_the_words_of_a_rank_that_tells_are_lost(tmp_path):
    copies = {"name": "copies", "scratch": "copies", "fails": "backward", "size": 4, "shard": 2}
    twin = {"name": "twin", "scratch": "twin", "fails": f"{BEFORE}backward", "size": 2, "shard": 2}
    said = lived(tmp_path, copies, twin)
    require_lost(said, "copies", 4)
    assert all(WORDS not in said.get(f"twin-{rank}", {}).get("words", "") for rank in range(2))


# Without ranks


def placed(rows: int, offset: Any, shape: Any, name: str = "w"):
    """Puts another part in the place of the second."""
    places = {name: {"offset": offset, "shape": shape}}
    return lambda folder: write_parts({"w": torch.zeros(rows, 3)}, places, folder, "model", 1, 3)


def parts(folder: Path, rows: list[int]) -> dict[str, torch.Tensor]:
    """A tensor in parts of so many rows each, as ranks write them."""
    whole, at = torch.arange(float(3 * sum(rows))).view(-1, 3), 0
    for rank, count in enumerate(rows):
        places = {"w": {"offset": [at, 0], "shape": list(whole.shape)}}
        write_parts({"w": whole[at : at + count]}, places, folder, "model", rank, len(rows))
        at += count
    return {"w": whole}


def named(folder: Path, stem: str = "model") -> Stored:
    """What a folder has, every file of which its record names."""
    return stored(folder, stem, [path.name for path in folder.iterdir()])


def test_parts_make_a_whole(tmp_path):
    whole = parts(tmp_path, [2, 2, 1])
    assert same(put_together(named(tmp_path)), whole)


PART = "model.rank-00001-of-00003.safetensors"
TERABYTES = [2**40, 3]


@pytest.mark.parametrize(
    ("hurt", "words"),
    [
        (lambda f: (f / PART).unlink(), "2 parts of model, of 3"),
        (lambda f: (f / PART).rename(f / PART.replace("00001", "00007")), "3 parts of model, of 3"),
        (placed(1, [2, 0], [5, 3]), "no part has the rows 3 to 3 of w"),
        (placed(2, [1, 0], [5, 3]), "two parts have the rows 1 to 1 of w"),
        (placed(2, [0, 0], [5, 3]), "of w"),
        (placed(2, [2, 0], [6, 3]), "in another part"),
        (placed(2, [4, 0], [5, 3]), r"is no part of \[5, 3\]"),
        (placed(2, [2, 1], [5, 3]), "is no part of"),
        (placed(2, [2, 0], [5, 4]), "in another part"),
        (placed(2, [-1, 0], [5, 3]), "no offset and shape"),
        (placed(2, [2], [5, 3]), "no offset and shape"),
        (placed(2, [2.0, 0], [5, 3]), "no offset and shape"),
        (placed(2, 2, [5, 3]), "no offset and shape"),
        (placed(2, [2, 0], None), "no offset and shape"),
        (placed(2, [2, 0], [2**40, 2**40]), "no offset and shape"),
        (placed(2, [2, 0], [5, 3], name="v"), "of each of its tensors"),
        (lambda f: write_parts({"w": torch.zeros(2, 3)}, {"w": 5}, f, "model", 1, 3), "no offset and shape"),
        (lambda f: write_parts({"w": torch.zeros(2, 3)}, [1], f, "model", 1, 3), "of each of its tensors"),  # type: ignore[arg-type]
        (lambda f: save_tensors({"w": torch.zeros(2, 3)}, f / PART), "does not say"),
        (lambda f: (f / PART).write_bytes(b"no"), "safetensors"),
        (lambda f: save_tensors({"w": torch.zeros(5, 3)}, f / "model.safetensors"), "both model.safetensors and parts"),
        (lambda f: [path.unlink() for path in f.iterdir()], "neither model.safetensors nor parts"),
    ],
)  # fmt: skip
def test_parts_that_are_not_those_of_one_tensor_are_refused(tmp_path, hurt, words):
    whole = parts(tmp_path, [2, 2, 1])
    hurt(tmp_path)
    with pytest.raises(DataError, match=words):
        named(tmp_path).check(whole)
    with pytest.raises(DataError, match=words):
        put_together(named(tmp_path))


def test_an_empty_part_takes_no_other_parts_place(tmp_path):
    """At the same place as one that has rows: its file was read instead, and torch found another size."""
    whole = torch.arange(15.0).view(5, 3)
    for rank, (first, end) in enumerate([(0, 3), (3, 5), (0, 0)]):
        places = {"w": {"offset": [first, 0], "shape": [5, 3]}}
        write_parts({"w": whole[first:end]}, places, tmp_path, "model", rank, 3)
    assert same(put_together(named(tmp_path)), {"w": whole})


def test_columns_that_leave_a_hole_are_refused_though_they_have_as_many_numbers(tmp_path):
    """Two of four quarters and one of them twice, moved by a column: of other places, and as many numbers as the whole."""
    for rank, at in enumerate(([0, 0], [0, 2], [2, 0], [2, 1])):
        write_parts({"w": torch.ones(2, 2)}, {"w": {"offset": at, "shape": [4, 4]}}, tmp_path, "model", rank, 4)
    with pytest.raises(DataError, match="no run of whole rows"):
        named(tmp_path).check({"w": torch.zeros(4, 4)})


def test_a_tensor_without_numbers_is_there_again(tmp_path):
    tensors = {"w": torch.ones(2, 3), "none": torch.empty(0, 3), "columns": torch.empty(3, 0, dtype=torch.int64)}
    for rank in range(2):
        write_parts(*parts_to_write(tensors, rank), tmp_path, "model", rank, 2)
    found = named(tmp_path)
    found.check(tensors)
    assert same(put_together(found), tensors)
    assert same(read_like(tensors, found), tensors)


def test_few_bytes_ask_for_no_more_memory_than_they_fill(tmp_path):
    for rank in range(3):
        places = {"w": {"offset": [2 * rank, 0], "shape": TERABYTES}}
        write_parts({"w": torch.zeros(2, 3)}, places, tmp_path, "model", rank, 3)
    with pytest.raises(DataError, match=f"w has 6 rows in its parts, of {TERABYTES[0]}"):
        put_together(named(tmp_path))


def test_files_that_the_record_does_not_name_are_not_read(tmp_path):
    """Parts of another number of ranks beside those of this checkpoint, which they would hide or stand in the way of."""
    whole = parts(tmp_path, [2, 2, 1])
    names = [path.name for path in tmp_path.iterdir()]
    parts(tmp_path, [4, 3])
    save_tensors({"w": torch.zeros(5, 3)}, tmp_path / "model.safetensors")
    assert same(put_together(stored(tmp_path, "model", names)), whole)
    assert same(put_together(stored(tmp_path, "model", ["model.safetensors"])), {"w": torch.zeros(5, 3)})
    with pytest.raises(DataError, match="5 parts of model, of 2, 3"):
        named(tmp_path)
