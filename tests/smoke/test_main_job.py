"""The smoke run itself: what a user finds after it, and that a second one does nothing."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.plan import resolve
from pipelines.stages import STAGES
from tests.pipelines.commands.test_light import FOR_WORK, loaded
from wfm.artifacts import Store

pytestmark = pytest.mark.smoke

Wfm = Callable[..., subprocess.CompletedProcess[str]]

CLIP_COLUMNS = {
    "clip_id", "clip_sha256", "video_id", "source", "start_seconds", "end_seconds", "kept", "reason", "duplicate_of",
    "caption", "caption_source", "shard",
}  # fmt: skip


def _attempts(store: Path) -> int:
    return len(list((store / "runs").glob("*/nodes/*/attempts/*")))


def test_every_stage_is_committed_and_verifies(smoke_store: Path) -> None:
    store = Store.open(smoke_store)
    plan = resolve("world_model", profile="smoke", store=store)
    assert plan.missing == []
    for node in plan.nodes:
        artifact = store.artifact(str(node.key))
        assert artifact.manifest.kind == STAGES[node.stage].output
        assert artifact.manifest.resources["cpu_seconds"] > 0
        assert artifact.manifest.extra["outside_closure"] == [], "an edit of these would not move the key"
        assert store.verify(str(node.key)).ok


def test_again_nothing_runs(smoke_store: Path, wfm: Wfm) -> None:
    before = _attempts(smoke_store)
    done = wfm("run", "world_model", "--profile", "smoke", store=smoke_store)
    assert _attempts(smoke_store) == before
    assert "index.html" in done.stdout + done.stderr
    assert loaded("run", "world_model", "--profile", "smoke", "--store", str(smoke_store), names=FOR_WORK) == []


def test_dry_run_names_what_a_changed_option_would_run(smoke_store: Path, wfm: Wfm) -> None:
    option = "train_diffusion.training.learning_rate=0.000321"
    done = wfm("run", "world_model", "--profile", "smoke", "--set", option, "--dry-run", store=smoke_store)
    plan = resolve("world_model", profile="smoke", store=Store.open(smoke_store), overrides=[option])
    names = {node.name for node in plan.missing}
    assert names == {"train_diffusion", "generate_diffusion", "evaluate_diffusion", "publish_diffusion", "write_report"}
    assert all(name in done.stdout for name in names)


def test_the_clip_table_is_public(smoke_store: Path, wfm: Wfm, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    wfm("artifacts", "pull", "dataset/curated-smoke@latest", str(out), store=smoke_store)
    clips, videos = pq.read_table(out / "clips.parquet"), pq.read_table(out / "videos.parquet")
    assert set(clips.column_names) >= CLIP_COLUMNS
    assert {"source", "status", "reason"} <= set(videos.column_names)
    rows = clips.to_pylist()
    assert len({row["clip_id"] for row in rows}) == len(rows)
    assert all(row["reason"] for row in rows if not row["kept"])
    assert all((out / row["shard"]).is_file() for row in rows if row["kept"])
    kept = {row["clip_id"] for row in rows if row["kept"]}
    assert kept
    assert all(row["duplicate_of"] in kept for row in rows if row["duplicate_of"])


def test_lineage_of_a_generated_video_reaches_the_sources(smoke_store: Path) -> None:
    store = Store.open(smoke_store)
    plan = resolve("world_model", profile="smoke", store=store)
    stages = {step.stage for step in store.lineage(str(plan.node("generate_diffusion").key))}
    assert {"simulate_videos", "ingest_videos", "write_shards", "train_world_model"} <= stages


def test_metrics_are_whole(smoke_store: Path) -> None:
    store = Store.open(smoke_store)
    plan = resolve("world_model", profile="smoke", store=store)
    for family in ("diffusion", "autoregressive"):
        path = store.artifact(str(plan.node(f"evaluate_{family}").key)).fetch("metrics.json")
        metrics = json.loads(path.read_text())
        assert metrics["family"] == family
        assert metrics["windows"] > 0


def test_a_published_model_generates_bitwise_the_same_again(smoke_store: Path, wfm: Wfm, tmp_path: Path) -> None:
    store = Store.open(smoke_store)
    clip = next(
        store.artifact(str(node.key)).fetch(file.path)
        for node in resolve("curate", profile="smoke", store=store).nodes
        if node.name == "split_clips"
        for file in store.artifact(str(node.key)).files()
        if file.path.endswith(".mp4")
    )
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        out = str(tmp_path / f"{name}.mp4")
        wfm("generate", "model/smoke-diffusion", "--past", str(clip), "--out", out, "--seed", seed, store=smoke_store)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert (tmp_path / "a.mp4").read_bytes() != (tmp_path / "c.mp4").read_bytes()


def test_what_fails_its_gate_is_a_candidate_and_the_run_says_by_how_much(smoke_store: Path, wfm: Wfm) -> None:
    """Of models that are made: only their names are given. Smoke's have learned nothing, and lose to a still picture."""
    strict = 'promotion.gate={"floors": [{"figure": "gain", "at_least": 1.0}]}'
    done = wfm("run", "world_model", "--profile", "smoke", "--name", "judged", "--set", strict, store=smoke_store)
    store = Store.open(smoke_store)
    key = store.resolve("model/smoke-diffusion")
    assert store.resolve("model/judged-diffusion@candidate") == key
    assert store.names.latest("model", "judged-diffusion") is None
    assert store.resolve("dataset/judged") == store.resolve("dataset/curated-smoke")
    assert f"{key[:12]} did not become model/judged-diffusion@latest" in done.stdout
    assert "gain over repeat-last at least 1 dB (mean, all windows): −" in done.stdout
    before = [promotion.reference for promotion in store.names.list()]
    unnamed = wfm("run", "world_model", "--profile", "smoke", "--no-promote", store=smoke_store)
    assert "@latest" not in unnamed.stdout
    assert [promotion.reference for promotion in store.names.list()] == before


def test_commands_answer(smoke_store: Path, wfm: Wfm) -> None:
    assert "world_model" in wfm("runs", store=smoke_store).stdout
    assert "train_diffusion" in wfm("status", store=smoke_store).stdout
    assert "dataset" in wfm("artifacts", "list", store=smoke_store).stdout
    assert "torch" in wfm("doctor", store=smoke_store, check=False).stdout


def test_an_unknown_name_is_one_clear_line(smoke_store: Path, wfm: Wfm) -> None:
    done: subprocess.CompletedProcess[str] = wfm("artifacts", "show", "model/nothing", store=smoke_store, check=False)
    assert done.returncode == 78
    assert "Traceback" not in done.stdout + done.stderr
    assert "nothing" in done.stdout + done.stderr
