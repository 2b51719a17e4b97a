"""Encode a data set's captions once, beside its latents and apart from them: another encoder leaves the latents alone.

Works in parts, those of the data set; layout of a part: `wfm.data.captions`.
"""

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from wfm.data.captions import mirrored_caption
from wfm.data.shards import iter_samples
from wfm.models.folder import save_tensors
from wfm.models.text.cache import CaptionCache
from wfm.models.text.config import TextConfig
from wfm.models.text.encoders import normalised, open_encoder

SCHEMA = pa.schema(
    [("clip_id", pa.string()), ("mirrored", pa.bool_()), ("caption", pa.string())], metadata={"schema_version": "1"}
)


def encode_captions(
    shards: Mapping[str, Sequence[Path]],
    config: TextConfig,
    out: Path,
    *,
    mirror: bool = False,
    exclude: Collection[str] = (),
) -> dict[str, int]:
    """Encode the captions of each split's clips into `out`, and with `mirror` those of the training clips' mirror images,
    without the clips of `exclude`. Returns counts: clips, distinct captions."""
    counts = {"clips": 0, "captions": 0}
    for split, paths in sorted(shards.items()):
        turns = (False, True) if mirror and split == "train" else (False,)
        rows: list[dict[str, Any]] = []
        for path in paths:
            for sample in iter_samples(path):
                if sample.key not in exclude:
                    counts["clips"] += 1
                    caption = str(json.loads(sample.members["json"]).get("caption", ""))
                    rows += [_row(sample.key, caption, mirrored) for mirrored in turns]
        if not rows:
            continue
        folder = out / split
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "samples.parquet")
        counts["captions"] += write_captions(caption_cache(config), [row["caption"] for row in rows], folder)
    return counts


def _row(clip: str, caption: str, mirrored: bool) -> dict[str, Any]:
    said = mirrored_caption(caption) if mirrored else caption
    return {"clip_id": clip, "mirrored": mirrored, "caption": normalised(said)}


@functools.lru_cache(maxsize=1)
def caption_cache(config: TextConfig) -> CaptionCache:
    """The encoder of a configuration, opened once a process: a stage makes many parts, and T5-11B takes minutes to load."""
    return CaptionCache(open_encoder(config), config)


def write_captions(cache: CaptionCache, captions: Sequence[str], folder: Path) -> int:
    """Embeddings of the distinct `captions`, as wfm.data.captions reads them; returns how many there are."""
    made = cache.encode(captions)
    save_tensors(
        {"embeddings": made.embeddings, "lengths": made.lengths.to(torch.int32)}, folder / "captions.safetensors"
    )
    pq.write_table(pa.table({"caption": pa.array(made.captions, pa.string())}), folder / "captions.parquet")
    return len(made.captions)
