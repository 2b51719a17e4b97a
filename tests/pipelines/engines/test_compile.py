"""A plan is written down whole before anything starts, and says what each node needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import plan as planning
from pipelines.engines.compile import Step, compile_plan
from pipelines.nodes import Plan, config_class
from pipelines.plan import resolve
from pipelines.stages import STAGES, TABLE
from wfm.artifacts import Store
from wfm.errors import ConfigError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


def compiled(plan: Plan, store: Store) -> dict[str, Step]:
    run = store.runs.create({"pipeline": plan.pipeline})
    return {step.node: step for step in compile_plan(plan, run, store, STAGES)}


def test_every_node_of_the_main_job_is_a_command_line_over_a_spec_that_is_there(store: Store) -> None:
    plan = resolve("world_model", profile="smoke", store=store)
    steps = compiled(plan, store)
    assert list(steps) == [node.name for node in plan.nodes]
    before: set[str] = set()
    for step in steps.values():
        assert set(step.inputs.values()) <= before, "each follows those it needs"
        before.add(step.node)
        node = plan.node(step.node)
        spec = json.loads(Path(step.spec.removeprefix("file://")).read_text())
        assert (spec["node"], spec["stage"], spec["config"]) == (
            node.name,
            node.stage,
            json.loads(json.dumps(node.config)),
        )
        assert step.keys == plan.input_keys(node), "nothing looks at files outside: all keys are known"
    step = steps["split_clips"]
    words = step.arguments(step.keys, "key")
    assert words[:2] == ["-m", "components.split_clips"]
    assert words[4:] == ["--input", f"videos={plan.node('ingest_videos').key}", "--key-out", "key"]
    done = subprocess.run([sys.executable, *words, "--dry-run"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == config_class("split_clips").parse(plan.node("split_clips").config).resolved()


def test_keys_behind_an_ingest_that_has_yet_to_look_are_left_to_the_run(store: Store, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"not yet read")
    plan = resolve("world_model", profile="smoke", store=store, videos=str(tmp_path / "videos"))
    steps = compiled(plan, store)
    assert all(step.inputs and not step.keys for step in steps.values() if step.node != "ingest_videos")
    plan.node("ingest_videos").done = True  # what it saw then counts
    steps = compiled(plan, store)
    assert "ingest_videos" not in steps
    assert all(step.keys == plan.input_keys(plan.node(name)) for name, step in steps.items())


def test_resources_belong_to_node_and_profile_and_enter_no_key(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = resolve("world_model", profile="smoke", store=store)
    assert {(node.resources.gpu, node.resources.replicas) for node in plain.nodes} == {(0, 1)}, "a laptop's"
    recipe = planning.recipe("smoke")
    recipe["train_diffusion"] = {**recipe["train_diffusion"], "resources": {"gpu": 8, "replicas": 4, "memory_gib": 900}}
    monkeypatch.setattr(planning, "recipe", lambda profile: recipe)
    sets = ["train_world_model.resources.memory_gib=1800", "split_clips.resources.replicas=16"]
    large = resolve("world_model", profile="smoke", store=store, overrides=sets)
    assert [node.key for node in large.nodes] == [node.key for node in plain.nodes]
    steps = compiled(large, store)
    fields = ("cpu", "gpu", "memory_gib", "replicas", "ranks")
    needs = {name: tuple(getattr(step.resources, field) for field in fields) for name, step in steps.items()}
    assert needs["train_diffusion"] == (1.0, 8, 1800.0, 4, 1)
    assert needs["train_autoregressive"] == (1.0, 0, 1800.0, 1, 1)
    assert needs["split_clips"] == (2.0, 0, 2.0, 16, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("split_clips.resources.gpus=1", r"unknown field 'resources.gpus'. Did you mean 'gpu'"),
        ("split_clips.resources.cpu=0", r"field 'resources.cpu' = 0"),
        ("split_clips.resources=8", r"field 'resources'"),
        (
            "split_clips.resources.cpu=16383",
            r"node 'split_clips' asks for 16386 cpu \(16383 a worker, its runner 2, its scheduler 1\), the quota is 16384",
        ),
    ],
)
def test_wrong_resources_are_refused(store: Store, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve("world_model", profile="smoke", store=store, overrides=[text])


def test_no_config_has_a_field_by_the_name_of_what_a_node_needs() -> None:
    assert not [row.name for row in TABLE if "resources" in config_class(row.component).model_fields]
