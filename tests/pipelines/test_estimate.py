"""What a run would cost follows the options that it is asked with."""

import time
from pathlib import Path
from typing import Any

import pytest

from components.derivation import code_id
from pipelines.estimate import Estimate, estimate, share_made
from pipelines.nodes import Plan
from pipelines.plan import resolve
from pipelines.runs.state import NodeState, RunState, StateWriter
from pipelines.stages import stage
from pipelines.start_run import usual_seconds
from wfm.artifacts import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


def planned(store: Store, *overrides: str) -> Plan:
    return resolve("world_model", profile="smoke", store=store, overrides=overrides)


def run_all(store: Store, plan: Plan, seconds: float = 60.0, **extra: Any) -> None:
    """Every stage took 60 s, for 10 files."""
    now = time.time()
    for node in plan.nodes:
        with store.attempt(node.key or "") as attempt:
            attempt.commit(
                stage=node.stage, kind=stage(node.stage).output, counts={"inputs": 10}, inputs=plan.input_keys(node),
                config=node.config, code_id=code_id(node.component), timings={"started": now - seconds, "finished": now},
                resources={"cpu_seconds": 2 * seconds}, extra={"node": node.name, **extra},
            )  # fmt: skip


def cost(store: Store, node: str, *overrides: str) -> Estimate:
    return estimate(planned(store, *overrides), store)[node]


@pytest.mark.parametrize(
    ("node", "overrides", "factor"),
    [  # the old code gave a file's rate times the files, whatever was asked: 1.0 in each line
        ("train_diffusion", ["train_diffusion.training.steps=48"], 2.0),
        ("train_diffusion", ["train_diffusion.training.batch_size=2"], 0.25),
        ("train_diffusion", ["train_diffusion.diffusion.network.num_layers=6"], 3.0),
        ("train_autoregressive", ["train_autoregressive.autoregressive.dim=96"], 4.0),
        ("train_tokenizer_discrete", ["train_tokenizer.training.steps=72"], 3.0),
        ("encode_latents_discrete", ["encode_latents.stride_frames=16"], 0.5),
        ("generate_diffusion", ["generate_videos.max_windows=80"], 10.0),
        ("generate_diffusion", ["generate_videos.sampling.steps=2"], 0.5),
        ("generate_diffusion", ["generate_videos.sampling.sampler=euler"], 0.5),
        ("simulate_videos", ["simulate_videos.sessions=18"], 3.0),
    ],
)
def test_options_that_say_how_much_there_is_to_do(store: Store, node: str, overrides: list[str], factor: float) -> None:
    run_all(store, planned(store))
    found = cost(store, node, *overrides)
    assert found.seconds == pytest.approx(60 * factor)
    assert found.cpu_seconds == pytest.approx(120 * factor)
    assert found.other == ()


def test_training_does_not_cost_more_for_more_files(store: Store) -> None:
    """Its budget is in steps; the old code multiplied it by the files, or gave none where these are simulated first."""
    run_all(store, planned(store))
    moved = cost(store, "train_diffusion", "simulate_videos.sessions=60")
    assert moved.files is None
    assert moved.seconds == pytest.approx(60)


def test_other_options_are_told_and_the_nearest_artifact_is_taken(store: Store) -> None:
    run_all(store, planned(store))
    found = cost(store, "split_clips", "split_clips.cut.crf=20")
    assert found.seconds == pytest.approx(60)
    assert found.other == ("cut.crf: 18 -> 20",)
    nearer = ["split_clips.cut.crf=20", "split_clips.shots.maximum_seconds=30"]
    run_all(store, planned(store, *nearer), seconds=300)
    run_all(store, planned(store, "split_clips.cut.preset=slow", "split_clips.shots.stride_seconds=9"), seconds=999)
    found = cost(store, "split_clips", "split_clips.cut.crf=20", "split_clips.shots.maximum_seconds=31")
    assert found.seconds == pytest.approx(300)
    assert found.other == ("shots.maximum_seconds: 30.0 -> 31.0",)


def test_finished_work_is_no_speed(store: Store) -> None:
    """20 of 24 steps were there: 10 s for the last 4 are 60 s for all. The old code took the 10 s."""
    assert share_made({"steps": 24, "resumed_from": 20}) == pytest.approx(1 / 6)
    assert share_made({"parts_made": {"made": 1, "of": 4}}) == pytest.approx(1 / 4)
    assert share_made({"steps": 24, "resumed_from": 0}) == 1.0
    plan = planned(store)
    run_all(store, plan, seconds=10, steps=24, resumed_from=20)
    assert cost(store, "train_diffusion", "train_diffusion.training.steps=48").seconds == pytest.approx(120)
    run = store.runs.create({"pipeline": "world_model", "profile": "smoke", "nodes": []})
    state = RunState(run_id=run.id, pipeline="world_model", profile="smoke")
    now, key = time.time(), plan.node("train_diffusion").key or ""
    state.nodes["train_diffusion"] = NodeState(
        stage="train_world_model", state="done", key=key, started=now - 10, ended=now
    )
    with StateWriter(run, state, lambda: None):
        state.state = "done"
    assert usual_seconds(store, "world_model", "smoke") == {"train_diffusion": pytest.approx(60, rel=0.01)}
