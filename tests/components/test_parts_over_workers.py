"""Encoding and generation over workers: the same bytes for any number of them, and a kill loses no finished part."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.components.conftest import runner_of
from tests.components.one_clip_parts import dataset
from wfm.artifacts import Artifact, Store
from wfm.parts.workers import local_cluster

SHAPE = {"size": [16, 16], "num_frames": 9}
FAST = {"steps": 1, "batch_size": 2, "validate_every": 0, "warmup_steps": 1}
SPLITS = ("train", "val", "test")
PREDICT = {
    "family": "diffusion",
    "past_frames": 5, "examples": 2, "max_windows": 0, "windows_per_part": 2, "sampling": {"steps": 2, "batch_size": 4},
}  # fmt: skip


@pytest.fixture
def inputs(store: Store, tmp_path: Path) -> dict[str, Artifact]:
    """A data set of 24 parts, a tokenizer, signals, latents and a model, all tiny."""
    run = runner_of(store, tmp_path / "scratch")
    found = {"dataset": dataset(store, range(24), rates={n: 3.0 * n for n in range(24)}, splits=SPLITS)}
    network = {
        "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 3, "channels": [8, 8],
        "mid_blocks": 0, "mid_attention": False, "linear_code": True,
    }  # fmt: skip
    found["tokenizer"] = run(
        "train_tokenizer", {"model": network, "training": FAST, "crop_frames": 9, **SHAPE}, dataset=found["dataset"]
    )
    found["latents"] = run("encode_latents", SHAPE, dataset=found["dataset"], tokenizer=found["tokenizer"])
    found["signals"] = run("encode_signals", {}, dataset=found["dataset"])
    small = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "adaln_lora_dim": 4}
    world = {
        "family": "diffusion", "training": FAST, "diffusion": {"network": small}, "edm": {"condition_latents": [2]},
    }  # fmt: skip
    beside = {name: found[name] for name in ("latents", "tokenizer", "signals")}
    return {**found, "model": run("train_world_model", world, **beside)}


def contents(artifact: Artifact) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in artifact.files() if not entry.path.endswith("config.json")}


def test_any_number_of_workers_gives_the_same_bytes(store: Store, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    stages: list[tuple[str, dict[str, Any], dict[str, Artifact]]] = [
        ("encode_latents", SHAPE, {role: inputs[role] for role in ("dataset", "tokenizer")}),
        ("generate_videos", PREDICT, inputs),
    ]
    found: dict[int, list[dict[str, str]]] = {}
    for workers in (0, 1, 2):
        with local_cluster(workers=workers, memory="2GiB") if workers else contextlib.nullcontext("") as address:
            run = runner_of(store, tmp_path / "scratch", scheduler=address, redo=f"{workers} workers")
            made = [run(name, config, **given) for name, config, given in stages]
        assert made[0].manifest.extra["parts_made"] == {"made": 24, "of": 24}
        assert len(made[1].parts) > 3
        found[workers] = [contents(artifact) for artifact in made]
    assert found[0] == found[1]
    assert found[0] == found[2]


def test_a_killed_stage_finds_its_finished_parts(store: Store, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    spec = {
        "schema_version": 1, "store": store.url, "options": {}, "run_id": store.runs.create({}).id,
        "node": "encode_latents",
        "stage": "encode_latents", "component": "encode_latents", "kind": "latents", "redo": "again", "promote": "",
        "config": {**SHAPE, "stride_frames": 1}, "reads_truth": False,
    }  # fmt: skip
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    given = [f"--input={role}={inputs[role].key}" for role in ("dataset", "tokenizer")]
    command = [sys.executable, "-m", "components.encode_latents", "--spec", str(tmp_path / "spec.json"), *given]
    out = [f"--key-out={tmp_path / 'key'}"]
    before = set((tmp_path / "store/parts").iterdir())

    def finished() -> int:
        return sum((part / "manifest.json").exists() for part in set((tmp_path / "store/parts").iterdir()) - before)

    with subprocess.Popen([*command, *out], env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        until = time.monotonic() + 120
        while finished() < 3 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    kept = finished()
    assert 3 <= kept < 24
    assert not (tmp_path / "key").exists()
    subprocess.run([*command, *out], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=240)
    made = store.artifact((tmp_path / "key").read_text())
    assert made.manifest.extra["parts_made"] == {"made": 24 - kept, "of": 24}
    unbroken = runner_of(store, tmp_path / "scratch", redo="unbroken")
    whole = unbroken("encode_latents", spec["config"], **{role: inputs[role] for role in ("dataset", "tokenizer")})
    assert contents(whole) == contents(made)
