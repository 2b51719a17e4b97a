"""Published models with evaluations of the real schema, made in no time: their PSNR is given window by window."""

import hashlib
import itertools
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wfm.artifacts import Store
from wfm.evaluation.bootstrap import Bootstrap
from wfm.evaluation.schema import CameraReport, Gain, Metrics, ObjectsReport, Quality, SubsetReport

STILL = 20.0
"""PSNR of the last frame held still [dB]."""
_numbers = itertools.count()


def judged(psnr: np.ndarray, *, clip: str = "clip", **changes: Any) -> tuple[Metrics, list[dict[str, Any]]]:
    """The evaluation of a model whose videos have these PSNRs [sessions, windows of each]; `changes` of fields of it."""
    sessions, each = psnr.shape
    names = [f"session_{number}" for number in range(sessions) for _ in range(each)]
    bootstrap = Bootstrap(names)
    videos = {"sampled": psnr.reshape(-1), "repeat_last": np.full(psnr.size, STILL)}
    gains = videos["sampled"] - STILL
    gain = Gain(psnr_gain_db=bootstrap.mean(gains), share_of_windows=bootstrap.mean(np.float64(gains > 0), share=True))
    whole = SubsetReport(
        description="every window",
        windows=psnr.size,
        sessions=sessions,
        videos={name: Quality(psnr_db=bootstrap.mean(values)) for name, values in videos.items()},
        gains={"sampled": {"repeat_last": gain}},
    )
    fields: dict[str, Any] = {
        "family": "diffusion", "title": "Diffusion", "labels": {}, "split": "test", "windows": psnr.size,
        "sessions": sessions, "past_frames": 9, "predicted_frames": 24, "height": 64, "width": 64, "fps": 24.0,
        "variants": ["sampled"], "headline_variant": "sampled", "feature_net": "", "feature_net_description": "",
        "bootstrap_resamples": 2000, "bootstrap_seed": 0, "subsets": {"all": whole}, "horizon": {},
        "action_sensitivity": {}, "objects": ObjectsReport(), "camera": CameraReport(), "definitions": {},
    }  # fmt: skip
    rows = [
        {
            "sample_id": f"{clip}:{at}",
            "clip_id": clip,
            "session_id": names[at],
            "source": "",
            "start_seconds": 0.0,
            "subsets": ["all"],
            "video": video,
            "psnr_db": float(values[at]),
        }
        for video, values in videos.items()
        for at in range(psnr.size)
    ]
    return Metrics(**{**fields, **changes}), rows


def publish(store: Store, psnr: np.ndarray, *, clip: str = "clip", **changes: Any) -> str:
    """Commit such a model beside its evaluation; returns its key."""
    metrics, rows = judged(psnr, clip=clip, **changes)
    return commit(store, json.dumps(metrics.model_dump(mode="json")), rows)


def commit(store: Store, metrics: str, rows: list[dict[str, Any]]) -> str:
    """The same of any `metrics.json`."""
    evaluation, model = (hashlib.sha256(f"{next(_numbers)}".encode()).hexdigest() for _ in range(2))
    with store.attempt(evaluation) as attempt:
        (attempt.path / "metrics.json").write_text(metrics)
        pq.write_table(pa.Table.from_pylist(rows), attempt.path / "windows.parquet")
        attempt.commit(stage="evaluate_model", kind="evaluation")
    with store.attempt(model) as attempt:
        (attempt.path / "card.json").write_text("{}")
        attempt.commit(stage="publish_model", kind="model", inputs={"evaluation": evaluation})
    return model


def around(mean: float, spread: float = 0.5, *, sessions: int = 6, each: int = 4, seed: int = 0) -> np.ndarray:
    """PSNRs about a mean [dB]: windows differ by `spread`, which is the same for every model of one seed."""
    return mean + np.random.default_rng(seed).normal(0.0, spread, (sessions, each))
