"""A family and a condition of another package go through the main job, with no line of ours that knows of them.

`package/` is what such a package is once installed: modules, and entry points that name them. `recipes/toy.py` trains its
family, and the diffusion family with its condition. Here the package lies on the path of a run, and of each of its stages.
"""

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import wfm.recipes
from components import derivation
from pipelines.explain import reasons
from pipelines.nodes import Plan
from pipelines.request import Request
from pipelines.start_run import start
from wfm import registry
from wfm.actions import ActionSpec
from wfm.artifacts import Artifact, Store
from wfm.data.shards import ShardWriter
from wfm.errors import ConfigError
from wfm.evaluation.schema import Metrics, read_metrics
from wfm.generation.from_artifacts import open_world
from wfm.generation.rollout import Given
from wfm.generation.sampler_config import SamplerConfig
from wfm.generation.world_model import WorldModel
from wfm.generation.write_video import write_mp4
from wfm.models.family import Ask

HERE = Path(__file__).parent
MODULES = ("wfm_toy_linear", "wfm_toy_signal")
SPLITS = {"train": range(12), "val": range(12, 14), "test": range(14, 18)}
FRAMES = 26
ROLES = ("train_tokenizer_continuous", "train_toy_linear", "encode_latents_continuous")
REQUEST = Request("world_model", profile="toy", dataset="toys")


@dataclass(frozen=True)
class Ran:
    """A run of the toy recipe, to its end."""

    store: Store
    package: Path
    "The package, a copy that may be edited."
    plan: Plan

    def artifact(self, node: str) -> Artifact:
        return self.store.artifact(self.plan.node(node).key or "")

    def metrics(self, family: str) -> Metrics:
        return read_metrics(self.artifact(f"evaluate_{family}").fetch("metrics.json"))


def forget() -> None:
    """What a new process has not seen."""
    registry._plug_ins.cache_clear()
    derivation._reach.cache_clear()
    derivation._meaning.cache_clear()


def fading(folder: Path, number: int) -> dict[str, bytes]:
    """A still picture of 16x16 that grows brighter or darker by as much every frame, as its action says."""
    rng = np.random.default_rng(number)
    rate = float(rng.uniform(3, 6) * (1 if number % 2 else -1))
    picture = np.kron(rng.uniform(-40, 40, (4, 4, 3)), np.ones((4, 4, 1)))
    level = 128 + rate * (np.arange(FRAMES) - FRAMES / 2)
    write_mp4(folder / f"{number}.mp4", np.uint8((picture + level[:, None, None, None]).clip(0, 255)), 24.0)
    spec = ActionSpec(names=("fade",), units=("1/s",), frame="picture", rate_hz=24.0, mean=(0.0,), scale=(5.0,))
    note = {b"wfm": json.dumps({"schema_version": 1, "action_spec": spec.resolved()}).encode()}
    table, actions = pa.table({"pts_seconds": np.arange(FRAMES) / 24, "action": [[rate]] * FRAMES}), io.BytesIO()
    pq.write_table(table.replace_schema_metadata(note), actions)
    said = {"session_id": f"session{number}", "video_id": f"video{number}", "source": f"/v/{number}.mp4"}
    return {
        "mp4": (folder / f"{number}.mp4").read_bytes(),
        "json": json.dumps({**said, "start_seconds": 1.0, "fps": 24.0}).encode(),
        "actions.parquet": actions.getvalue(),
    }


def commit_dataset(store: Store, scratch: Path) -> None:
    """Clips that fade, called `dataset/toys`; of its tables the columns that are read here."""
    part = store.part_attempt("0" * 64)
    rows = []
    for split, numbers in SPLITS.items():
        folder = part.path / "shards" / split
        folder.mkdir(parents=True)
        with ShardWriter(folder, "ab") as writer:
            for number in numbers:
                sample = fading(scratch, number)
                shard = writer.write(f"clip{number}", sample)
                said = {"clip_id": f"clip{number}", "clip_sha256": sha256(sample["mp4"]).hexdigest(), "split": split}
                rows.append({**said, **json.loads(sample["json"]), "shard": shard, "kept": True, "reason": ""})
    pq.write_table(pa.Table.from_pylist(rows), part.path / "clips.parquet")
    videos = [{"source": row["source"], "status": "ok", "reason": ""} for row in rows]
    pq.write_table(pa.Table.from_pylist(videos), part.path / "videos.parquet")
    entry = part.commit(stage="write_shards", kind="part").entry("ab")
    store.attempt("1" * 64).commit(stage="write_shards", kind="dataset", parts=[entry])
    store.promote("dataset", "toys", "1" * 64)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("outside")
    package = shutil.copytree(HERE / "package", folder / "package", ignore=shutil.ignore_patterns("__pycache__"))
    store = Store.open(folder / "store")
    commit_dataset(store, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(package))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep))
        patch.setattr(wfm.recipes, "__path__", [*wfm.recipes.__path__, str(HERE / "recipes")])
        forget()
        summary, _ = start(REQUEST, store, engine="local", quiet=True)
        assert summary.exit_code == 0, {name: node for name, node in summary.state.nodes.items() if node.reason}
        yield Ran(store, package, REQUEST.plan(store))
    for name in [name for name in sys.modules if name.split(".")[0] in (*MODULES, "wfm.recipes.toy")]:
        del sys.modules[name]
    forget()


def test_a_family_of_another_package_is_trained_judged_and_shown(ran: Ran) -> None:
    assert ran.plan.missing == []
    for node in ran.plan.nodes:
        assert ran.artifact(node.name).manifest.extra["outside_closure"] == [], "an edit of these would move no key"
    metrics, ours = ran.metrics("toy_linear"), ran.metrics("diffusion")
    assert (metrics.family, metrics.title, metrics.headline_variant) == ("toy_linear", "Linear toy", "mean")
    assert metrics.variants == ["mean", "sampled", "shuffled_action"]
    page = ran.artifact("write_report").fetch("report/index.html").read_text()
    assert "Linear toy" in page
    assert "straight mean" in page
    for variant in ("mean", "sampled"):
        assert f"{psnr(metrics, variant):.2f}" in page
    mean = psnr(metrics, "mean")
    assert mean > psnr(metrics, "repeat_last") + 3, "what fades evenly goes on to fade"
    assert mean > psnr(metrics, "shuffled_action") + 3, "by the action"
    assert mean > psnr(metrics, "sampled") > psnr(ours, "sampled"), "four steps are no training"


def psnr(metrics: Metrics, variant: str) -> float:
    found = metrics.subsets["all"].videos[variant].psnr_db
    assert found is not None
    return found.mean


def test_a_condition_of_another_package_enters_both_families_and_is_followed(ran: Ran, tmp_path: Path) -> None:
    for family in ("toy_linear", "diffusion"):
        ran.artifact(f"publish_{family}").fetch_tree("", tmp_path / family)
        world = WorldModel.load(tmp_path / family)
        assert world.model.config.slots["brightness"].spec == {"frames": 5, "dropout": 0.1}
        past = torch.zeros(1, 3, 5, 16, 16)
        assert world.generate(past, num_frames=13, seeds=[0]).shape == (1, 3, 13, 16, 16)
        assert abs(float(world.reading.tensors(past + 0.5, Given(), 0, 13)["brightness"]) - 0.5) < 0.01
        ask = Ask(4, [0], "mean", world.card.sampling, {"past": torch.zeros(1, 8, 2, 4, 4)})
        dark, bright = (
            world.drawing.draw(world.model, replace(ask, tensors={**ask.tensors, "brightness": torch.tensor([[x]])}))
            for x in (-1.0, 1.0)
        )
        assert (dark - bright).abs().max() > 1e-3, family


def test_a_model_is_not_asked_without_its_condition(ran: Ran) -> None:
    """Only the code of the conditions that a stage names is in its key."""
    opened = {
        role: ran.artifact(node) for role, node in ran.plan.node("generate_toy_linear").inputs.items() if node in ROLES
    }
    with pytest.raises(ConfigError, match="the model was trained with action, brightness, the config names none"):
        open_world(opened, past_frames=5, sampling=SamplerConfig())


def test_the_plan_names_the_edited_file_and_its_stages_alone_run_again(ran: Ran) -> None:
    own = {f"{verb}_toy_linear" for verb in ("train", "generate", "evaluate", "publish")} | {"write_report"}
    signal = {node.name for node in ran.plan.followers("encode_signals")} | {"encode_signals"}
    with edited(ran.package / "wfm_toy_signal.py"):
        plan = REQUEST.plan(ran.store)
        assert {node.name for node in plan.missing} == signal
        assert "wfm_toy_signal.py" in reasons(plan, ran.store)["train_diffusion"]
    with edited(ran.package / "wfm_toy_linear" / "fit.py"):
        plan = REQUEST.plan(ran.store)
        assert {node.name for node in plan.missing} == own
        assert "wfm_toy_linear/fit.py" in reasons(plan, ran.store)["train_toy_linear"]
        summary, _ = start(REQUEST, ran.store, plan=plan, engine="local", quiet=True)
        states = {name: node.state for name, node in summary.state.nodes.items()}
        assert states == {node.name: "done" if node.name in own else "cached" for node in ran.plan.nodes}
    assert REQUEST.plan(ran.store).missing == []


@contextmanager
def edited(path: Path) -> Iterator[None]:
    """A file that says the same in other bytes, as a new process finds it; then as it was."""
    before = path.read_text()
    path.write_text(before + "\n# one line more\n")
    forget()
    yield
    path.write_text(before)
    forget()
