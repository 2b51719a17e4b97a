"""The script for the day a GPU is there: without one it skips everything and says so; its checks run as far as they go."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.device import __main__ as script
from tests.device.check import Skipped, require

ROOT = Path(__file__).parents[2]


def line_of(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would run")
def test_without_a_gpu_everything_is_skipped_and_counted(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.device"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["skipped"] == len(line["checks"]) >= 22
    assert (line["passed"], line["failed"], line["rehearsed"]) == (0, 0, 0)
    assert {one["reason"] for one in line["checks"]} == {"no CUDA device"}
    assert {one["check"].split("/")[0] for one in line["checks"]} == {
        "varlen",
        "pack_step",
        "fsdp",
        "validated",
        "cupy",
    }


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["device", *arguments])
    return script.main()


def test_kernels_and_measurements_are_rehearsed_on_a_cpu(monkeypatch, capsys):
    assert run(monkeypatch, "--rehearse", "--only", "varlen", "--only", "cupy") == 0
    line = line_of(capsys)
    assert (line["rehearsed"], line["skipped"], line["failed"]) == (13, 6, 0)
    fused = next(one for one in line["checks"] if one["check"] == "varlen/fused_cpu")
    assert set(fused["figures"]) == {"out", "lse", "dq", "dk", "dv"}


def test_a_training_with_validation_is_rehearsed_on_a_cpu(monkeypatch, capsys):
    assert run(monkeypatch, "--rehearse", "--only", "validated") == 0
    (check,) = line_of(capsys)["checks"]
    assert (check["state"], check["figures"]) == ("rehearsed", {"figures": 3.0, "difference": 0.0})


@pytest.mark.long
def test_the_steps_on_packs_are_rehearsed_on_a_cpu(monkeypatch, capsys):
    assert run(monkeypatch, "--rehearse", "--only", "pack_step", "--only", "fsdp") == 0
    assert line_of(capsys)["rehearsed"] == 2


def test_what_fails_what_is_skipped_and_what_comes_too_late_is_told_apart(monkeypatch, capsys):
    def skipping():
        raise Skipped("no such package")

    runs = {
        "good": lambda: {"x": 1.0},
        "wrong": lambda: {"x": require(2.0, 1.0, "x")},
        "no_number": lambda: {"x": require(float("nan"), 1.0, "x")},
        "away": skipping,
    }
    monkeypatch.setattr(script, "CHECKS", {"all": lambda device: iter(runs.items())})
    assert run(monkeypatch, "--rehearse") == 1
    line = line_of(capsys)
    assert [one["state"] for one in line["checks"]] == ["rehearsed", "failed", "failed", "skipped"]
    assert line["checks"][1]["reason"] == "AssertionError: x is 2, at most 1 is right"
    monkeypatch.setattr(script, "SECONDS", 0.0)
    assert run(monkeypatch, "--rehearse") == 0
    assert line_of(capsys)["skipped"] == 4
