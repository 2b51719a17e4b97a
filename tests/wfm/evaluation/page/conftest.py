"""A small run in a store, as the stages would leave it, for the page to read. Names in it are hostile on purpose."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from wfm.artifacts import Artifact, Store
from wfm.curation.dataset.clip_table import ClipRow
from wfm.evaluation.config import EvaluationConfig
from wfm.evaluation.example_videos import encode_mp4
from wfm.evaluation.generated import GeneratedVideos
from wfm.evaluation.report import evaluate
from wfm.evaluation.results import write_results
from wfm.evaluation.worlds import Worlds
from wfm.records import Video

HOSTILE = "<script>alert('x')</script>\"&'</title><img src=x onerror=alert(1)>"
REASONS = ("duplicate", "static", "black", "text_overlay")


def key_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


class RunInAStore:
    """Commits artifacts one by one; `made` holds them by node name."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.made: dict[str, Artifact] = {}
        self.clock = 1_700_000_000.0

    def commit(
        self, node: str, stage: str, kind: str, write: Any = None, *, inputs: tuple[str, ...] = (), **more: Any
    ) -> Artifact:
        attempt = self.store.attempt(key_of(node))
        if write is not None:
            write(attempt.path)
        else:
            (attempt.path / "nothing.txt").write_text(node)
        seconds = 1.0 + sum(map(ord, node)) % 90
        values: dict[str, Any] = {
            "counts": {"inputs": 10, "outputs": 9},
            "config": {"seed": 0, "note": HOSTILE, "width": 192},
            "inputs": {name: self.made[name].key for name in inputs},
            "timings": {"started": self.clock, "finished": self.clock + seconds},
            "resources": {"cpu_seconds": seconds * 1.7, "gpu_seconds": 0.0, "peak_bytes": 4e8 + seconds * 1e7},
            "extra": {"node": node},
            **more,
        }
        self.clock += seconds
        self.made[node] = attempt.commit(stage=stage, kind=kind, **values)
        return self.made[node]


def curve(path: Path) -> None:
    lines = [{"step": s, "loss": 2.0 * math.exp(-s / 150) + 0.05, "gradient_norm": 1.0} for s in range(10, 1001, 10)]
    lines += [
        {"step": s, "validation_loss": 2.1 * math.exp(-s / 150) + 0.08, "validation_psnr_db": 12 + s / 120}
        for s in (250, 500, 1000)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_generated(made: GeneratedVideos, folder: Path) -> None:
    split = folder / made.split
    split.mkdir(parents=True)
    for name, video in made.videos.items():
        save_file({"video": np.ascontiguousarray(video)}, split / f"{name}.safetensors")
    save_file({"right": made.actions, "shuffled": made.shuffled_actions}, split / "actions.safetensors")
    pq.write_table(pa.Table.from_pylist(made.samples), split / "samples.parquet")
    card = {
        "family": made.family,
        "past_frames": made.past_frames,
        "fps": made.fps,
        "action_spec": made.spec.resolved(),
        "headline": made.headline,
        "title": made.title,
        "labels": dict(made.labels),
    }
    (folder / "card.json").write_text(json.dumps(card))


def clip_rows(video_id: str, number: int) -> list[ClipRow]:
    rows = []
    for index in range(number):
        kept = index >= 2 * len(REASONS)
        rows.append(
            ClipRow(
                clip_id=key_of(f"clip {index}"),
                clip_sha256=key_of(f"bytes {index}"),
                video_id=video_id,
                source=f"/videos/{HOSTILE}.mp4",
                session_id=f"session_{index}",
                view="",
                start_seconds=1.5 * index,
                end_seconds=1.5 * index + 1.4,
                num_frames=33,
                fps=24.0,
                width=64,
                height=64,
                transcode="copy",
                has_actions=True,
                kept=kept,
                reason="" if kept else REASONS[index % len(REASONS)],
                duplicate_of=key_of("clip 20") if index % len(REASONS) == 0 and not kept else "",
                duplicate_tier="embedding" if index % len(REASONS) == 0 and not kept else "",
                duplicate_cosine=0.991,
                split=("train", "train", "train", "val", "test")[index % 5] if kept else "",
                group=key_of("clip 0"),
                caption=HOSTILE,
                caption_source="attributes",
                motion=0.1,
                motion_patch_minimum=0.0,
                pan_x=0.0,
                pan_y=0.0,
                motion_source="codec",
                static_share=0.98,
                frozen_share=0.0,
                black_share=1.0,
                sharpness=4.0,
                brightness=0.4,
                contrast=0.2,
                text_score=0.034,
                moving_share=0.5,
                shard="" if not kept else "shards/train/00-00000.tar",
            )
        )
    return rows


def commit_curation(run: RunInAStore, frames: np.ndarray) -> None:
    """`frames` [M, T, H, W, 3]: pictures for the clips that are left out."""
    store, video_id = run.store, "00" + key_of("video")[2:]
    rows = clip_rows(video_id, 60)
    part = store.part_attempt(key_of("clips part"))
    (part.path / "clips").mkdir()
    for index, row in enumerate(row for row in rows if not row.kept):
        video = frames[index % len(frames)]
        video = np.zeros_like(video) if row.reason == "black" else video
        video = np.repeat(video[:1], len(video), axis=0) if row.reason == "static" else video
        (part.path / "clips" / f"{row.clip_id}.mp4").write_bytes(encode_mp4(video, 24.0))
    clips_part = part.commit(stage="split_clips", kind="part")
    table = store.part_attempt(key_of("dataset part"))
    pq.write_table(ClipRow.to_table(rows), table.path / "clips.parquet")
    videos = [
        *(Video(source=f"/videos/{HOSTILE}-{i}.mp4", name=f"{i}.mp4", video_id=video_id) for i in range(12)),
        Video(source="/videos/broken.mp4", name="broken.mp4", status="failed", reason="truncated: 3 of 90 frames"),
        Video(source="/videos/copy.mp4", name="copy.mp4", status="duplicate", reason="duplicate_bytes: same bytes"),
    ]
    pq.write_table(Video.to_table(videos), table.path / "videos.parquet")
    table_part = table.commit(stage="write_shards", kind="part")
    run.commit("simulate_videos", "simulate_videos", "raw_videos")
    run.commit("ingest_videos", "ingest_videos", "videos", inputs=("simulate_videos",), skipped={"duplicate_bytes": 1})
    run.commit("split_clips", "split_clips", "clips", inputs=("ingest_videos",), parts=[clips_part.entry("00")])
    for stage, kind in (("score_clips", "scores"), ("caption_clips", "captions"), ("embed_clips", "embeddings")):
        run.commit(stage, stage, kind, inputs=("split_clips",))
    run.commit("dedup_clips", "dedup_clips", "duplicates", inputs=("split_clips", "embed_clips", "score_clips"))
    run.commit("select_clips", "select_clips", "selection", inputs=("split_clips", "score_clips", "dedup_clips"))
    every = ("ingest_videos", "split_clips", "score_clips", "caption_clips", "dedup_clips", "select_clips")
    run.commit("write_shards", "write_shards", "dataset", inputs=every, parts=[table_part.entry("00")])


def build_run(
    store: Store,
    made: dict[str, GeneratedVideos],
    *,
    worlds: Worlds | None = None,
    config: EvaluationConfig | None = None,
) -> dict[str, Artifact]:
    """Commit a run whose models predicted `made`; returns the inputs of write_report by name."""
    run = RunInAStore(store)
    first = next(iter(made.values()))
    commit_curation(run, first.truth[:8])
    inputs = {
        "dataset": run.made["write_shards"],
        "clips": run.made["split_clips"],
        "videos": run.made["ingest_videos"],
    }
    for family, videos in made.items():
        settings = config or EvaluationConfig(split=first.split, resamples=200)  # type: ignore[arg-type]
        tokens = {"diffusion": "continuous", "autoregressive": "discrete"}[family]
        names = [f"train_tokenizer_{tokens}", f"encode_latents_{tokens}", f"train_{family}", f"generate_{family}"]
        run.commit(names[0], "train_tokenizer", "tokenizer", curve, inputs=("write_shards",))
        run.commit(names[1], "encode_latents", "latents", inputs=("write_shards", names[0]))
        run.commit(names[2], "train_world_model", "world_model", curve, inputs=(names[0], names[1]))
        run.commit(
            names[3],
            "generate_videos",
            "generated",
            lambda folder, videos=videos: write_generated(videos, folder),
            inputs=("write_shards", *names[:3]),
        )
        metrics, rows = evaluate(videos, worlds, settings)
        run.commit(
            f"evaluate_{family}",
            "evaluate_model",
            "report",
            lambda folder, m=metrics, r=rows, v=videos, s=settings: write_results(m, r, v, s, folder),
            inputs=(names[3], "simulate_videos"),
        )
        run.commit(f"publish_{family}", "publish_model", "model", inputs=(names[0], names[2], f"evaluate_{family}"))
        inputs |= {
            f"evaluated_{family}": run.made[f"evaluate_{family}"],
            f"generated_{family}": run.made[names[3]],
            f"tokenizer_{tokens}": run.made[names[0]],
            f"model_{family}": run.made[names[2]],
            f"published_{family}": run.made[f"publish_{family}"],
        }
    return inputs


@pytest.fixture(scope="session")
def run(make, tmp_path_factory):
    """(inputs of write_report, store) of a run whose two models predicted twelve sliding windows."""
    store = Store.open(str(tmp_path_factory.mktemp("store")))
    return build_run(store, {family: make(12, family=family) for family in ("diffusion", "autoregressive")}), store


@pytest.fixture(scope="session")
def page_data(run):
    from wfm.evaluation.page.config import PageConfig
    from wfm.evaluation.page.gather import gather

    inputs, store = run
    return gather(
        inputs, store, PageConfig(title=f"Page {HOSTILE}", examples=3, action_examples=1, rejected=5), run_id=HOSTILE
    )


@pytest.fixture(scope="session")
def hostile():
    return HOSTILE
