"""A world model fitted from its artifacts on, by one process or by ranks, in fp64 (see test_ranks.py)."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tests.wfm.data.record_rows import record_row
from wfm.artifacts import Store
from wfm.data.records import RecordWriter
from wfm.families.diffusion.card import DiffusionTrainingConfig
from wfm.models.folder import save_tensors
from wfm.models.tokenizer import Tokenizer, TokenizerConfig
from wfm.parallel.ranks import ALONE, Ranks
from wfm.training.encode_text import SCHEMA
from wfm.training.encoded import Source
from wfm.training.fit import fit as fit_task
from wfm.training.fit_world_model import world_task

LATENTS = "e" * 64
TEXT = "f" * 64
TOKENIZER = {
    "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 3, "channels": [8, 8], "mid_blocks": 0,
    "encoder_blocks": 1, "decoder_blocks": 1, "mid_attention": False, "linear_code": True,
}  # fmt: skip
_NETWORK = {
    "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "adaln_lora_dim": 4, "condition_mask": True,
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "diffusion": {"network": _NETWORK, "linear_prior": True},
    "training": {"steps": 12, "batch_size": 5, "warmup_steps": 2, "log_every": 1, "validate_every": 6},
    "validation_windows": 3,
}


def make_latents(store: Store) -> None:
    """Windows of both splits, as encode_latents leaves them."""
    part = "b" * 64
    with store.part_attempt(part) as attempt:
        with RecordWriter(attempt.path, "00") as records:
            for number, (split, count) in enumerate((("train", 11), ("val", 3))):
                noise = torch.Generator().manual_seed(number)
                drawn = torch.randn(count, 3, 3, 2, 2, generator=noise).cumsum(dim=2)
                for place, latents in enumerate(drawn.numpy()):
                    records.write(split, record_row(f"{split}{place:02d}"), {"latents": latents})
        attempt.commit(stage="encode_latents", kind="part")
    with store.attempt(LATENTS) as whole:
        statistics = {"mean": [[0.0] * 3] * 3, "std": [[1.0, 1.4, 1.7]] * 3}
        (whole.path / "latent_statistics.json").write_text(json.dumps(statistics))
        whole.commit(stage="encode_latents", kind="latents", parts=[store.part(part).entry("00")])


def make_text(store: Store) -> None:
    """Captions of two kinds for all of them, as encode_text leaves them."""
    part, said = "d" * 64, ("it goes up", "down")
    with store.part_attempt(part) as attempt:
        for number, (split, count) in enumerate((("train", 11), ("val", 3))):
            folder = attempt.path / split
            folder.mkdir()
            rows = [
                {"clip_id": f"{split}{place:02d}", "mirrored": False, "caption": said[place % 2]}
                for place in range(count)
            ]
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "samples.parquet")
            pq.write_table(pa.table({"caption": said}), folder / "captions.parquet")
            embeddings = torch.randn(5, 6, generator=torch.Generator().manual_seed(number), dtype=torch.float32)
            lengths = torch.tensor([3, 2], dtype=torch.int32)
            save_tensors({"embeddings": embeddings, "lengths": lengths}, folder / "captions.safetensors")
        attempt.commit(stage="encode_text", kind="part")
    with store.attempt(TEXT) as whole:
        told = {"text": {"encoder": "made up", "max_length": 3}}
        whole.commit(stage="encode_text", kind="text", parts=[store.part(part).entry("00")], extra=told)


def fit(
    store: Store,
    out: Path,
    scratch: Path,
    ranks: Ranks = ALONE,
    *,
    text: bool = False,
    training: Mapping[str, Any] = MappingProxyType({}),
    **parallel: Any,
) -> dict[str, Any]:
    """What `fit` says that it did. `text`: with the captions of `make_text`; `training`: what differs in how; `parallel`: how
    the model lies on ranks."""
    out.mkdir(parents=True, exist_ok=True)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        tokenizer = Tokenizer(TokenizerConfig.parse(TOKENIZER)).eval()
        values = {**CONFIG, "training": {**CONFIG["training"], **training}, "parallel": parallel}
        config = DiffusionTrainingConfig.parse(values)
        sources = {"latents": Source(store.artifact(LATENTS), text=store.artifact(TEXT) if text else None)}
        return fit_task(world_task(sources, tokenizer, config), config, out=out, scratch=scratch, ranks=ranks)
    finally:
        torch.set_default_dtype(before)
