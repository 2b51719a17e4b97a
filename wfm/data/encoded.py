"""What the encoding of a data set left: samples to train a world model on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wfm.actions import ActionSpec
from wfm.data.loader import ArrayDataset, read_latents
from wfm.errors import DataError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact


@dataclass
class Encoded:
    """What the encoding left: samples of each split, statistics and the meaning of the actions."""

    train: ArrayDataset
    val: ArrayDataset | None
    statistics: dict[str, Any]
    action_spec: ActionSpec
    fps: float
    guess_from: int = 0
    "Frames that the samples' `guess` was made from; 0: they have none."
    text: dict[str, Any] | None = None
    "Which encoder made the captions' embeddings (encoder, identity, max_length, dtype); None: they were not encoded."


def read_encoded(latents: "Artifact") -> Encoded:
    """Fetch and read an artifact of encoded windows. Raises DataError when it has no training samples."""
    splits = {split: _read_split(latents, split) for split in ("train", "val")}
    train_split = splits["train"]
    if train_split is None:
        raise DataError(f"latents {latents.key[:12]} hold no training samples: encode the split 'train'")
    spec = ActionSpec.parse(json.loads(latents.fetch("action_spec.json").read_text()))
    rates = set(latents.table("train/samples", columns=["fps"]).column("fps").to_pylist())
    statistics = json.loads(latents.fetch("latent_statistics.json").read_text())
    return Encoded(
        with_actions(train_split, spec),
        None if splits["val"] is None else with_actions(splits["val"], spec),
        statistics,
        spec,
        float(np.mean(sorted(rates))),
        int(latents.manifest.config.get("guess_from", 0)),
        latents.manifest.extra.get("text"),
    )


def _read_split(latents: "Artifact", split: str) -> ArrayDataset | None:
    paths = sorted(entry.path for entry in latents.files() if f"/{split}/" in f"/{entry.path}")

    def fetched(start: str, end: str) -> list[Path]:
        names = [path for path in paths if path.rpartition("/")[2].startswith(start) and path.endswith(end)]
        return [latents.fetch(path) for path in names]

    shards = fetched("shard-", ".safetensors")
    if not shards:
        return None
    captions = list(zip(fetched("captions", ".safetensors"), fetched("captions", ".parquet"), strict=True))
    return read_latents(shards, fetched("samples", ".parquet"), captions)


def with_actions(samples: ArrayDataset, spec: ActionSpec) -> ArrayDataset:
    """The samples with actions as a model sees them; without any, no `actions` at all."""
    arrays = dict(samples.arrays)
    raw = arrays.pop("actions")
    if spec.width:
        arrays["actions"] = torch.from_numpy(spec.normalise(raw.numpy()))
    else:
        arrays.pop("has_actions", None)
    return ArrayDataset(samples.sample_ids, arrays, samples.captions)
