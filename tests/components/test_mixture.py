"""A mixture reaches training: its table is in the key by its content, its shares in the manifest, its order in the weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from wfm.artifacts import Artifact, Store
from wfm.data.shards import ShardWriter
from wfm.errors import ConfigError, DataError
from wfm.generation.write_video import write_mp4
from wfm.models.folder import open_model

Stage = Callable[..., Artifact]
NETWORK: dict[str, Any] = {
    "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 3, "channels": [8, 8], "mid_blocks": 0,
    "mid_attention": False, "linear_code": True,
}  # fmt: skip
TRAINING = {"steps": 3, "batch_size": 2, "validate_every": 0, "warmup_steps": 1}
CLIPS = [f"{k:064x}" for k in range(6)]


@pytest.fixture
def dataset(store: Store, tmp_path: Path) -> Artifact:
    """Four clips to train on, of which the first is of snow, one to watch, and one that is too short."""
    with store.part_attempt("0" * 64) as part:
        for split, numbers in (("train", (0, 1, 2, 3, 5)), ("val", (4,))):
            with ShardWriter(part.path / "shards" / split, "ab") as writer:
                for number in numbers:
                    length = 13 if number != 5 else 5
                    frames = np.random.default_rng(number).integers(0, 255, (length, 16, 16, 3), dtype=np.uint8)
                    write_mp4(tmp_path / f"{number}.mp4", frames, 24.0)
                    facts = b'{"session_id": "s", "video_id": "v", "source": "a", "start_seconds": 0.0, "fps": 24.0}'
                    writer.write(CLIPS[number], {"mp4": (tmp_path / f"{number}.mp4").read_bytes(), "json": facts})
        entry = part.commit(stage="write_shards", kind="part").entry("ab")
    with store.attempt("1" * 64) as attempt:
        return attempt.commit(stage="write_shards", kind="dataset", parts=[entry])


def test_a_mixture_reaches_training(run_stage: Stage, dataset: Artifact, tmp_path: Path) -> None:
    def train(weights: list[float] | None, name: str = "mixture", categories: str = "naaanx") -> Artifact:
        training = dict(TRAINING)
        if weights is not None:
            path = tmp_path / f"{name}.parquet"
            pq.write_table(pa.table({"clip_id": CLIPS, "weight": weights, "category": list(categories)}), path)
            training["mixture"] = str(path)
        settings = {"model": NETWORK, "training": training, "size": [16, 16], "num_frames": 13, "crop_frames": 9}
        return run_stage("train_tokenizer", settings, dataset=dataset)

    weights = [3.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    mixed, plain = train(weights), train(None)
    assert mixed.manifest.extra["mixture"]["shares"] == {"a": 0.5, "n": 0.5}
    assert "mixture" not in plain.manifest.extra
    assert train(weights, "moved").key == mixed.key, "its content is in the key, not its place"
    other = train([1.0, 1.0, 1.0, 3.0, 1.0, 0.0])
    assert len({other.key, mixed.key, plain.key}) == 3
    states = [open_model(made)[0].state_dict() for made in (mixed, plain, other)]
    assert not all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])
    with pytest.raises(DataError, match=r"nothing to train on of 'x' \(1 clips\)"):
        train([1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    with pytest.raises(ConfigError, match=r"training\.mixture = .*nowhere"):
        run_stage("train_tokenizer", {"training": {"mixture": str(tmp_path / "nowhere")}}, dataset=dataset)
