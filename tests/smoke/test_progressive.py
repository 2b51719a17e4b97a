"""The recipe that goes from small pictures to both sizes, run as a user runs it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.plan import resolve
from wfm.artifacts import Store

pytestmark = [pytest.mark.smoke, pytest.mark.long]


def test_the_progressive_recipe_trains_on_both_sizes_and_is_judged_at_the_full_one(
    tmp_path: Path, wfm: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    wfm("run", "world_model", "--profile", "progressive", store=tmp_path)
    store = Store.open(tmp_path)
    plan = resolve("world_model", profile="progressive", store=store)
    assert plan.missing == []
    trained = store.artifact(str(plan.node("train_diffusion").key))
    lanes = trained.manifest.extra["order"]["lanes"]
    assert set(lanes) == {"0/small", "1/small", "1/full"}
    assert all(counts["samples"] > 0 for lane in lanes.values() for counts in lane.values())
    shapes = {
        name: store.artifact(str(plan.node(f"encode_latents_{name}").key)).table("samples").column("latent_height")
        for name in ("small", "continuous")
    }
    assert {name: set(column.to_pylist()) for name, column in shapes.items()} == {"small": {4}, "continuous": {8}}
    points = [json.loads(line) for line in trained.fetch("metrics.jsonl").read_text().splitlines()]
    assert points[-1]["step"] == 24
    assert store.names.list("model")[0].name == "progressive-diffusion"
