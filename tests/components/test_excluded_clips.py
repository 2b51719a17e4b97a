"""Excluded clips are not encoded, and only the parts that hold them are encoded again."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wfm.artifacts import Artifact, Store
from wfm.curation.dataset.exclude import exclude_in_store
from wfm.data.energon import MEMBERS, write_energon
from wfm.data.shards import ShardWriter
from wfm.generation.write_video import write_mp4

SHAPE = {"size": [16, 16], "num_frames": 13}


def test_excluded_clips_are_not_encoded(run_stage: Callable[..., Artifact], store: Store, tmp_path: Path) -> None:
    entries, tables = [], []
    for part, numbers in (("0a", range(3)), ("f3", range(3, 5))):
        with store.part_attempt(hashlib.sha256(part.encode()).hexdigest()) as attempt:
            rows = []
            for split, mine in (("train", numbers), ("val", [numbers[-1] + 10])):
                with ShardWriter(attempt.path / "shards" / split, part) as writer:
                    for number in mine:
                        frames = np.random.default_rng(number).integers(0, 255, (13, 16, 16, 3), dtype=np.uint8)
                        write_mp4(tmp_path / f"{number}.mp4", frames, 24.0)
                        facts = {"session_id": "s", "video_id": "v", "source": "a", "start_seconds": 0.0, "fps": 24.0}
                        video = (tmp_path / f"{number}.mp4").read_bytes()
                        writer.write(f"clip{number}", {"mp4": video, "json": json.dumps(facts).encode()})
                rows += [{**row, "shard": f"shards/{split}/{row['shard']}"} for row in writer.members]
            tables.append(pa.Table.from_pylist(rows, schema=MEMBERS))
            entries.append(attempt.commit(stage="write_shards", kind="part").entry(part))
    with store.attempt("1" * 64) as attempt:
        write_energon(tables, ("train", "val", "test"), attempt.path)
        dataset = attempt.commit(stage="write_shards", kind="dataset", parts=entries)
    fewer, _ = exclude_in_store(store, dataset, ["clip1"])

    network = {
        "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 3, "channels": [8, 8],
        "mid_blocks": 0, "mid_attention": False, "linear_code": True,
    }  # fmt: skip
    training = {"steps": 1, "batch_size": 2, "validate_every": 0, "warmup_steps": 1}
    tokenizer = run_stage(
        "train_tokenizer", {"model": network, "training": training, "crop_frames": 9, **SHAPE}, dataset=dataset
    )
    settings = {**SHAPE, "splits": ["train", "val"]}
    latents = run_stage("encode_latents", settings, dataset=dataset, tokenizer=tokenizer)
    shutil.rmtree(tmp_path / "scratch")  # each key has its own outside the tests
    again = run_stage("encode_latents", settings, dataset=fewer, tokenizer=tokenizer)
    clips = {
        name: [row["clip_id"] for entry in made.parts for row in pq.read_table(
            store.part(entry.key).fetch("samples.parquet")).to_pylist() if row["split"] == "train"]
        for name, made in (("all", latents), ("fewer", again))
    }  # fmt: skip
    assert set(clips["all"]) == {f"clip{number}" for number in range(5)}
    assert set(clips["fewer"]) == {f"clip{number}" for number in (0, 2, 3, 4)}
    changed = [one.name for one, two in zip(latents.parts, again.parts, strict=True) if one.key != two.key]
    assert changed == ["0a"]
