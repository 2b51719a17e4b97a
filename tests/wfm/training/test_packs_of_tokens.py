"""An autoregressive model trained on packs by its config: images and clips of several sizes in one pack, in fp64."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.wfm.data.record_rows import record_row
from tests.wfm.training.whole_fit import LATENTS
from wfm.artifacts import Store
from wfm.data.records import RecordWriter
from wfm.errors import ConfigError
from wfm.families.autoregressive.build import transformer
from wfm.families.autoregressive.card import AutoregressiveTrainingConfig
from wfm.families.autoregressive.fit import FITTING
from wfm.models.autoregressive import AutoregressiveConfig
from wfm.models.autoregressive.pack import PackLimits
from wfm.models.tokenizer import Tokenizer, TokenizerConfig
from wfm.training.data_config import DataConfig, pack_bounds
from wfm.training.encoded import Source, read_encoded
from wfm.training.fit import fit
from wfm.training.fit_world_model import world_task
from wfm.training.metrics import read_curve

SHAPES = [(3, 2, 2), (1, 2, 4), (1, 2, 2), (2, 4, 2), (4, 2, 2)]
CLIPS = [shape for shape in SHAPES if shape[0] > 1]
PACKS = {"mode": "packs", "tokens": 32, "packing": {"packs": 2, "streams": 2, "window": 2, "bins": 2}}
TOKENIZER = {
    "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 2, "channels": [8, 8], "mid_blocks": 0,
    "encoder_blocks": 1, "decoder_blocks": 1, "mid_attention": False, "levels": [4, 3],
}  # fmt: skip
NETWORK = {"dim": 24, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 12, "ffn_dim": 32}


def make_tokens(store: Store, shapes: list[tuple[int, int, int]]) -> None:
    """Fourteen samples of these shapes, and three clips of another split."""
    part = "b" * 64
    with store.part_attempt(part) as attempt:
        with RecordWriter(attempt.path, "00") as records:
            for split, count in (("train", 14), ("val", 3)):
                for place in range(count):
                    shape = shapes[place % len(shapes)] if split == "train" else shapes[0]
                    drawn = torch.randint(0, 12, shape, generator=torch.Generator().manual_seed(place))
                    kind = "image" if shape[0] == 1 else "video"
                    row = record_row(f"{split}{place:02d}", kind=kind, fps=24.0 if kind == "video" else 0.0)
                    records.write(split, row, {"tokens": drawn.int().numpy()})
        attempt.commit(stage="encode_latents", kind="part")
    with store.attempt(LATENTS) as whole:
        (whole.path / "latent_statistics.json").write_text("{}")
        whole.commit(stage="encode_latents", kind="latents", parts=[store.part(part).entry("00")])


def fitted(store: Store, out: Path, order: str, **training: Any) -> list[dict[str, Any]]:
    """The curve."""
    values = {
        "autoregressive": {**NETWORK, "order": order}, "validation_windows": 3,
        "training": {"steps": 6, "warmup_steps": 2, "log_every": 1, "validate_every": 6, "data": PACKS, **training},
    }  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    out.mkdir()
    try:
        torch.manual_seed(0)
        tokenizer = Tokenizer(TokenizerConfig.parse(TOKENIZER)).eval()
        config = AutoregressiveTrainingConfig.parse(values)
        task = world_task({"latents": Source(store.artifact(LATENTS))}, tokenizer, config)
        fit(task, config, out=out, scratch=out / "scratch")
    finally:
        torch.set_default_dtype(before)
    return read_curve(out / "metrics.jsonl")


def losses(curve: list[dict[str, Any]]) -> list[float]:
    return [point["loss"] for point in curve if "loss" in point]


@pytest.mark.parametrize(("order", "shapes"), [("raster", SHAPES), ("frame", CLIPS)])
def test_it_trains_on_packs_by_its_config(tmp_path, order, shapes):
    """The same curve with threads that read ahead, and in one pack after the other; another budget is another run."""
    store = Store.open(tmp_path / "store")
    make_tokens(store, shapes)
    curve = fitted(store, tmp_path / "whole", order, loader={"workers": 0})
    assert len(losses(curve)) == 6
    assert all("loss_video" in point for point in curve if "loss" in point)
    assert any("loss_image" in point for point in curve) == (order == "raster")
    assert fitted(store, tmp_path / "ahead", order, loader={"workers": 2}) == curve
    parts = losses(fitted(store, tmp_path / "parts", order, loader={"workers": 0}, accumulation=2))
    assert parts == pytest.approx(losses(curve), rel=1e-6)  # a curve is written with seven digits
    other = fitted(store, tmp_path / "other", order, loader={"workers": 0}, data={**PACKS, "tokens": 48})
    assert losses(other) != losses(curve)


def test_images_in_frame_order_are_refused_before_the_first_step(tmp_path):
    store = Store.open(tmp_path / "store")
    make_tokens(store, SHAPES)
    with pytest.raises(ConfigError, match="are images, whose only frame is predicted from nothing"):
        fitted(store, tmp_path / "images", "frame")
    fitted(store, tmp_path / "left", "frame", steps=1, data={**PACKS, "phases": [{"min_frames": 2}]})


def test_a_compiled_network_knows_how_much_a_pack_holds(tmp_path):
    store = Store.open(tmp_path / "store")
    make_tokens(store, SHAPES)
    data = read_encoded({"latents": Source(store.artifact(LATENTS))})
    model = transformer(AutoregressiveConfig.parse({**NETWORK, "levels": (4, 3)}))
    for compiled, wanted in ((True, PackLimits(32, 8, 1)), (False, None)):
        values = {"training": {"data": PACKS}, "parallel": {"compile": compiled}}
        config = AutoregressiveTrainingConfig.parse(values)
        objective = FITTING.objective(config)
        FITTING.limit_packs(objective, model, config, data)
        assert objective.limits == wanted


def test_samples_that_are_cut_may_be_single_frames():
    assert pack_bounds(DataConfig.parse(PACKS), SHAPES) == (32, 8, 8)
    assert pack_bounds(DataConfig.parse({**PACKS, "oversize": "split"}), CLIPS) == (32, 8, 8)
    assert pack_bounds(DataConfig.parse(PACKS), CLIPS) == (32, 2, 8)
