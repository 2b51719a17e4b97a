"""A small store with a published model and a data set, as the stages would leave them. Names in it are hostile on purpose."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wfm.artifacts import Artifact, Store
from wfm.curation.dataset.dataset_card import Card
from wfm.evaluation.schema import SCHEMA_VERSION, Metrics
from wfm.models.diffusion.config import DenoiserConfig
from wfm.models.tokenizer.config import TokenizerConfig

HOSTILE = "<script>alert('x')</script>\"&' ](http://evil.example) `x` | \x1b[31m\nsecond: line"
TOKENIZER = TokenizerConfig(latent_channels=4, z_channels=4, channels=(8, 8, 16, 16))
MODEL = DenoiserConfig.parse(
    {
        "network": {
            "in_channels": 4, "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "adaln_lora_dim": 4,
            "max_size": (4, 16, 16), "condition_mask": True,
        },
        "action_width": 2,
    }
)  # fmt: skip
SPEC = {
    "names": ["camera_orbit_rate", "speed"], "units": ["deg/s", "m/s"], "frame": "world", "rate_hz": 24.0,
    "mean": [0.0, 0.0], "scale": [30.0, 1.0],
}  # fmt: skip


def key_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def estimate(mean: float, half: float = 0.5, sessions: int = 4) -> dict[str, Any]:
    ends = (None, None) if sessions < 2 else (mean - half, mean + half)
    return {"mean": mean, "low": ends[0], "high": ends[1], "windows": 20, "sessions": sessions}


def subset(over_last: float, over_flow: float, sessions: int) -> dict[str, Any]:
    def gain(mean: float) -> dict[str, Any]:
        return {"psnr_gain_db": estimate(mean, sessions=sessions), "share_of_windows": estimate(0.75, 0.1, sessions)}

    return {
        "description": "some windows",
        "windows": 20,
        "sessions": sessions,
        "videos": {
            "sampled": {"psnr_db": estimate(20.0 + over_last, sessions=sessions)},
            "repeat_last": {"psnr_db": estimate(20.0, sessions=sessions)},
            "flow": {"psnr_db": estimate(20.0 + over_last - over_flow, sessions=sessions)},
        },
        "gains": {"sampled": {"repeat_last": gain(over_last), "flow": gain(over_flow)}},
        "way_closed": {"sampled": estimate(0.42, 0.1, sessions)},
    }


def make_metrics(sessions: int = 4, **changes: Any) -> Metrics:
    """Better than the last frame held and worse than optical flow where the camera turns, worse than both where it rests."""
    values = {
        "schema_version": SCHEMA_VERSION, "family": "diffusion", "title": "Diffusion", "labels": {"sampled": "sampled"},
        "split": "test", "windows": 20, "sessions": sessions, "past_frames": 9, "predicted_frames": 24, "height": 64,
        "width": 64, "fps": 24.0, "variants": ["sampled"], "headline_variant": "sampled", "feature_net": "gabor",
        "feature_net_description": "fixed", "bootstrap_resamples": 100, "bootstrap_seed": 0,
        "subsets": {
            "all": subset(2.0, -1.5, sessions),
            "fixed_rate": subset(4.0, -0.75, sessions),
            "static": subset(-4.0, 0.25, sessions),
        },
        "horizon": {}, "action_sensitivity": {}, "objects": {"absent": "not simulated"},
        "camera": {"absent": "not simulated"}, "definitions": {},
    }  # fmt: skip
    return Metrics.model_validate({**values, **changes})


def model_folder(family: str, config: Any, **more: Any) -> str:
    return json.dumps({"schema_version": 1, "family": family, "config": config.resolved(), "extra": {}, **more})


def write_bundle(folder: Path, **changes: Any) -> None:
    """A bundle as `publish_model` writes it, without its weights."""
    card = {
        "schema_version": 2, "name": "tiny", "family": "diffusion", "size": [64, 64], "fps": 24.0, "num_frames": 33,
        "past_frames": 9, "sampling": {}, "evaluation": make_metrics().model_dump(mode="json"),
        "inputs": {"model": key_of("model"), "tokenizer": key_of("tokenizer")}, **changes,
    }  # fmt: skip
    for part in ("model", "tokenizer"):
        (folder / part).mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "README.md").write_text("of the bundle\n")
    (folder / "model" / "config.json").write_text(model_folder("diffusion", MODEL, action_spec=SPEC))
    (folder / "tokenizer" / "config.json").write_text(model_folder("tokenizer", TOKENIZER))


def dataset_values(**changes: Any) -> dict[str, Any]:
    split = {"clips": 10, "sessions": 2, "groups": 2, "frames": 330, "seconds": 36.0, "shards": 1, "bytes": 1000}
    return {
        **Card().values(),
        "videos": {"total": 9, "ok": 8, "simulated": 3},
        "videos_not_used": {"duplicate_bytes": 1},
        "videos_without_clips": {"static": 2},
        "clips": {"total": 25, "kept": 20, "with_actions": 15},
        "clips_refused": {"black": 5},
        "spans_not_cut": {"too_short": {"spans": 4, "seconds": 1.0}},
        "caption_sources": {"attributes": 20},
        "picture_sizes": {"128x128": 20},
        "rights": [{"licence": "CC-BY-4.0", "consent": "unknown", "videos": 8, "clips": 20}],
        "splits": {"train": split, "test": {**split, "sessions": 1}},
        "scores_kept": {"motion": {"min": 0.0, "p05": 0.1, "p50": 0.2, "p95": 0.3, "max": 0.4}},
        **changes,
    }


def commit(
    store: Store, name: str, kind: str, write: Callable[[Path], object], inputs: dict[str, str] | None = None
) -> Artifact:
    attempt = store.attempt(key_of(name))
    write(attempt.path)
    return attempt.commit(stage=f"make_{kind}", kind=kind, inputs=inputs or {}, extra={"node": name})


def fill(store: Store, *, card: dict[str, Any] | None = None, dataset: dict[str, Any] | None = None) -> None:
    """Commit a data set, a model made of it, and give both a name."""
    values = dataset_values(**(dataset or {}))
    made = commit(store, "dataset", "dataset", lambda out: (out / "card.json").write_text(json.dumps(values)))
    for name, kind in (("tokenizer", "tokenizer"), ("model", "world_model")):
        commit(store, name, kind, lambda out: (out / "nothing.txt").write_text("x"), {"dataset": made.key})
    bundle = commit(
        store,
        "bundle",
        "model",
        lambda out: write_bundle(out, **(card or {})),
        {"model": key_of("model"), "tokenizer": key_of("tokenizer")},
    )
    store.promote("model", "tiny", bundle.key)
    store.promote("dataset", "curated", made.key)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store.open(str(tmp_path / "store"), {"fsync": False})
    fill(found)
    return found


@pytest.fixture
def hostile_store(tmp_path: Path) -> Store:
    """Every text that a stage takes over from outside is hostile."""
    found = Store.open(str(tmp_path / "hostile"), {"fsync": False})
    metrics = make_metrics(title=HOSTILE, labels={"sampled": HOSTILE}, objects={"absent": HOSTILE}).model_dump(
        mode="json"
    )
    metrics["subsets"]["static"]["absent"] = HOSTILE
    fill(
        found,
        card={"name": HOSTILE, "evaluation": metrics},
        dataset={
            "rights": [{"licence": HOSTILE, "consent": HOSTILE, "videos": 8, "clips": 20}],
            "clips_refused": {HOSTILE: 5},
            "caption_sources": {HOSTILE: 20},
            "scores_kept": {HOSTILE: {"min": 0.0}},
        },
    )
    return found
