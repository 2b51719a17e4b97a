"""A look at a few steps: what is asked for is written, and nothing else changes."""

import contextlib
import json

import torch

from tests.wfm.training.test_loop import Regression, configuration, run, same
from wfm.errors import Cancelled
from wfm.training.config import TrainingConfig


def test_the_steps_asked_for_are_written_and_the_weights_are_the_same(tmp_path):
    looked, _ = run(tmp_path / "a", config=configuration(optimizer="muon", profile={"steps": 3, "after": 2}))
    plain, _ = run(tmp_path / "b", config=configuration(optimizer="muon"))
    assert same(looked, plain)
    assert not (tmp_path / "b/profile").exists()
    assert {path.name for path in (tmp_path / "a/profile").iterdir()} == {"trace-0.json", "memory-0.json"}
    events = json.loads((tmp_path / "a/profile/trace-0.json").read_text())["traceEvents"]
    steps = {event["name"] for event in events if str(event.get("name")).startswith("Optimizer.step#Muon")}
    assert steps == {"Optimizer.step#Muon.step"}
    assert sum(event.get("name") == "Optimizer.step#Muon.step" and event["ph"] == "X" for event in events) == 3
    memory = json.loads((tmp_path / "a/profile/memory-0.json").read_text())
    numbers = sum(parameter.numel() for parameter in plain.parameters())
    assert memory["parameters"] == memory["average"] == 4 * numbers
    assert memory["gradients"] == 0  # forgotten at the end of a step
    assert memory["optimizer"] > 4 * numbers
    assert all(kind["bytes"] > 0 for kind in memory["others"])


def test_a_run_that_ends_before_writes_what_there_is(tmp_path):
    with contextlib.suppress(Cancelled):
        run(tmp_path, config=configuration(profile={"steps": 20, "after": 1}), stop_at=6)
    assert json.loads((tmp_path / "profile/trace-0.json").read_text())["traceEvents"]


def test_a_tensor_that_is_kept_shows(tmp_path):
    """What a leak would look like: a tensor of each step that nobody lets go; larger than what other tests have left here."""
    kept = []

    class Keeping(Regression):
        def loss(self, model, batch, step):
            kept.append(torch.zeros(777, 1101))
            return super().loss(model, batch, step)

    run(tmp_path, config=configuration(profile={"steps": 1, "after": 4}), objective=Keeping())
    others = json.loads((tmp_path / "profile/memory-0.json").read_text())["others"]
    (leak,) = [kind for kind in others if kind["shape"] == "[777, 1101]"]
    assert (leak["tensors"], leak["bytes"]) == (5, 5 * 777 * 1101 * 4)


def test_it_is_no_part_of_the_key():
    assert TrainingConfig.parse({"profile": {"steps": 3}}).what() == TrainingConfig().what()
