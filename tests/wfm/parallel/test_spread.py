"""Models spread over ranks: 20 steps in fp64 are those of one process, whatever the mesh, and a rank holds its part."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.wfm.training.rank_runs import worst
from wfm.errors import ConfigError
from wfm.models.folder import load_tensors
from wfm.parallel.ranks import ALONE, Ranks
from wfm.parallel.spread import Spread, Whole, mesh_over, shape_of_mesh

ROOT = Path(__file__).parents[3]
CASES = {
    1: ("diffusion:muon:1:1", "autoregressive:adamw:1:1", "sparse:adamw:1:1"),
    2: ("diffusion:muon:2:1", "autoregressive:adamw:2:1", "sparse:adamw:2:1", "diffusion:muon:2:1:parts"),
}
MORE = {
    1: tuple(f"{one}:{way}:1:1" for one in ("decoder", "tokenizer", "autoregressive") for way in ("adamw", "muon")),
    2: ("diffusion:adamw:2:1", "decoder:adamw:2:1", "tokenizer:adamw:2:1", "tokenizer:muon:2:1", "autoregressive:muon:2:1"),
    4: ("diffusion:adamw:4:1", "diffusion:muon:2:2", "autoregressive:muon:2:2", "decoder:muon:4:1", "tokenizer:adamw:2:2"),
}  # fmt: skip


def computed(out: Path, cases: dict[int, tuple[str, ...]]) -> dict[tuple[int, str], dict]:
    for size, names in cases.items():
        done = subprocess.run(
            [sys.executable, "-m", "tests.wfm.parallel.spread_ranks", str(out), str(size), *names],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
    rows = [json.loads(line) for line in (out / "found.jsonl").read_text().splitlines()]
    return {(row["size"], row["case"]): row for row in rows}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("spread")
    return out, computed(out, CASES)


def off(out: Path, rows: dict, size: int, case: str) -> tuple[float, float]:
    """Worst differences to one process: of a loss in 20 steps; of a weight, or its average, after them."""
    alone = ":".join([*case.split(":")[:2], "1", "1"])
    mine, theirs = rows[size, case], rows[1, alone]
    assert len(mine["losses"]) == 20
    assert mine["none"] == theirs["none"]  # parameters without a gradient
    losses = max(abs(one - two) for one, two in zip(mine["losses"], theirs["losses"], strict=True))
    weights = [load_tensors(out / f"{name}-of-{n}.safetensors") for name, n in ((case, size), (alone, 1))]
    return losses, worst(*weights)


@pytest.mark.parametrize("case", [case for case in CASES[2] if "parts" not in case])
def test_spread_runs_are_those_of_one_process(found, case):
    out, rows = found
    losses, weights = off(out, rows, 2, case)
    assert losses <= 1e-8  # worst measured: 9e-16
    assert weights <= 1e-8  # worst measured: 2e-14
    assert rows[2, case]["warnings"] == []  # of blocks that give views, which FSDP might not hear of


@pytest.mark.long
def test_every_family_every_mesh(tmp_path):
    rows = computed(tmp_path, MORE | {1: (*MORE[1], "diffusion:adamw:1:1", "diffusion:muon:1:1")})
    for size in (2, 4):
        for case in MORE[size]:
            losses, weights = off(tmp_path, rows, size, case)
            assert max(losses, weights) <= 1e-8, (size, case)  # worst measured: 9e-13, the tokenizer's
    require_parts(rows, 4, "diffusion:adamw:4:1")


def test_muon_of_parts_ends_elsewhere(found):
    out, rows = found
    losses, weights = off(out, rows, 2, "diffusion:muon:2:1:parts")
    assert losses > 1e-3
    assert weights > 1e-3


def test_a_parameter_that_no_rank_used_has_no_gradient(found):
    assert found[1][2, "sparse:adamw:2:1"]["none"] == ["never.bias", "never.weight"]


def require_parts(rows: dict, size: int, case: str) -> None:
    """Of parameters, what the optimiser keeps, and averages."""
    alone, mine = rows[1, ":".join([*case.split(":")[:2], "1", "1"])]["bytes"], rows[size, case]["bytes"]
    for kind in ("parameters", "optimizer", "average"):
        assert all(held <= (1 / size + 0.03) * alone[kind][0] for held in mine[kind]), (kind, mine, alone)
        assert sum(mine[kind]) >= alone[kind][0]
    assert mine["buffers"] == alone["buffers"] * size


def test_a_rank_of_two_holds_half(found):
    require_parts(found[1], 2, "diffusion:muon:2:1")


@pytest.mark.parametrize(
    ("size", "shard", "replicate", "wanted"),
    [(8, 1, 0, (8, 1)), (8, 0, 0, (1, 8)), (8, 4, 0, (2, 4)), (8, 0, 2, (2, 4)), (8, 2, 4, (4, 2)), (1, 0, 0, (1, 1))],
)
def test_the_mesh_of_a_number_of_ranks(size, shard, replicate, wanted):
    assert shape_of_mesh(size, shard, replicate) == wanted


@pytest.mark.parametrize(
    ("size", "shard", "replicate"), [(8, 3, 0), (8, 16, 0), (8, 4, 4), (6, 0, 4), (1, 2, 0), (2, 0, 4)]
)
def test_a_mesh_that_does_not_fit_is_refused(size, shard, replicate):
    with pytest.raises(
        ConfigError, match=rf"parallel.shard = {shard} and parallel.replicate = {replicate} .* {size} ranks"
    ):
        shape_of_mesh(size, shard, replicate)


def test_a_parameter_without_numbers_that_is_to_learn_is_refused():
    model = nn.ParameterDict({"w": nn.Parameter(torch.ones(2, 2)), "none": nn.Parameter(torch.ones(0, 2))})
    with pytest.raises(ConfigError, match=r"parallel\.shard: none: a parameter without numbers"):
        Spread(None, model, [])


@pytest.mark.parametrize(("device", "wanted"), [("cpu", "cpu"), ("cuda:1", "cuda")])
def test_the_mesh_is_where_the_training_is(monkeypatch, device, wanted):
    """And not on a GPU that happens to be there."""
    made = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("torch.distributed.device_mesh.init_device_mesh", lambda *given, **named: made.append(given))
    mesh_over(Ranks(0, 4), shard=0, device=device)
    mesh_over(Ranks(0, 4), shard=2, device=device)
    assert made == [(wanted, (4,)), (wanted, (2, 2))]


def test_one_process_spreads_nothing():
    assert mesh_over(ALONE, shard=0) is None
    assert Whole().run(lambda a, b: a + b, 1, b=2) == 3
