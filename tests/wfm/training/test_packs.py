"""A world model trained on packs by its config: images and clips of several sizes in one pack, in fp64."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.wfm.data.record_rows import record_row
from tests.wfm.training.whole_fit import LATENTS, TOKENIZER
from wfm.artifacts import Store
from wfm.data.records import RecordWriter
from wfm.errors import ConfigError
from wfm.families.diffusion.card import DiffusionTrainingConfig
from wfm.models.tokenizer import Tokenizer, TokenizerConfig
from wfm.training.config import TrainingConfig
from wfm.training.encoded import Source
from wfm.training.fit import fit
from wfm.training.fit_world_model import world_task
from wfm.training.metrics import read_curve
from wfm.training.order import require_buckets

SHAPES = [(3, 2, 2), (1, 2, 4), (1, 2, 2), (2, 4, 2), (1, 2, 2)]
PACKS = {"mode": "packs", "tokens": 32, "packing": {"packs": 2, "streams": 2, "window": 2, "bins": 2}}


def make_latents(store: Store) -> None:
    """Fourteen samples of five shapes, images among them, and three clips of another split."""
    part = "b" * 64
    with store.part_attempt(part) as attempt:
        with RecordWriter(attempt.path, "00") as records:
            for split, count in (("train", 14), ("val", 3)):
                for place in range(count):
                    shape = SHAPES[place % 5] if split == "train" else SHAPES[0]
                    noise = torch.Generator().manual_seed(place)
                    latents = torch.randn(3, *shape, generator=noise).cumsum(dim=1)
                    kind = "image" if shape[0] == 1 else "video"
                    row = record_row(f"{split}{place:02d}", kind=kind, fps=24.0 if kind == "video" else 0.0)
                    records.write(split, row, {"latents": latents.numpy()})
        attempt.commit(stage="encode_latents", kind="part")
    with store.attempt(LATENTS) as whole:
        statistics = {"mean": [[0.0] * 3] * 3, "std": [[1.0, 1.4, 1.7]] * 3}
        (whole.path / "latent_statistics.json").write_text(json.dumps(statistics))
        whole.commit(stage="encode_latents", kind="latents", parts=[store.part(part).entry("00")])


def fitted(
    store: Store, out: Path, family: dict[str, Any] | None = None, **training: Any
) -> tuple[dict[str, Any], list]:
    """What the fit says, and its curve."""
    network = {
        "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "adaln_lora_dim": 4, "condition_mask": True,
        "max_size": [4, 8, 8],
    }  # fmt: skip
    values = {
        "diffusion": {"network": network, "linear_prior": True}, "validation_windows": 3,
        "training": {"steps": 6, "warmup_steps": 2, "log_every": 1, "validate_every": 6, "data": PACKS, **training},
        **(family or {}),
    }  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    out.mkdir()
    try:
        torch.manual_seed(0)
        tokenizer = Tokenizer(TokenizerConfig.parse(TOKENIZER)).eval()
        config = DiffusionTrainingConfig.parse(values)
        sources = {"latents": Source(store.artifact(LATENTS))}
        told = fit(world_task(sources, tokenizer, config), config, out=out, scratch=out / "scratch")
    finally:
        torch.set_default_dtype(before)
    return told, read_curve(out / "metrics.jsonl")


def test_a_world_model_trains_on_packs_by_its_config(tmp_path):
    """The same curve with threads that read ahead, and in one pack after the other; another budget is another run."""
    store = Store.open(str(tmp_path / "store"))
    make_latents(store)
    told, curve = fitted(store, tmp_path / "whole", loader={"workers": 0})
    assert told["steps"] == 6
    assert all("loss" in point for point in curve if "validation_loss" not in point)
    _, ahead = fitted(store, tmp_path / "ahead", loader={"workers": 2})
    assert ahead == curve
    _, parts = fitted(store, tmp_path / "parts", loader={"workers": 0}, accumulation=2)
    losses = [[point["loss"] for point in one if "loss" in point] for one in (curve, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # a curve is written with seven digits
    _, other = fitted(store, tmp_path / "other", loader={"workers": 0}, data={**PACKS, "tokens": 48})
    assert [point["loss"] for point in other if "loss" in point] != losses[0]


def test_a_sample_above_the_budget_is_refused_before_the_first_step(tmp_path):
    store = Store.open(str(tmp_path / "store"))
    make_latents(store)
    with pytest.raises(Exception, match=r"above the budget|tokens"):
        fitted(store, tmp_path / "small", data={**PACKS, "tokens": 8})


def test_a_family_that_takes_no_packs_says_so():
    packs = TrainingConfig.parse({"data": PACKS})
    require_buckets(packs, "diffusion", True)
    with pytest.raises(ConfigError, match=r"training\.data\.mode is 'packs', and family tokenizer"):
        require_buckets(packs, "tokenizer")
