"""The original's checkpoints: every kind of model there and back, bit by bit; statistics; what cannot be said."""

import pytest
import torch

from tests.wfm.models.convert.conftest import CONFIGS, DENOISER, DIT, VIDEO, make, same
from wfm.errors import ConfigError, DataError
from wfm.families.diffusion.build import denoiser as build_denoiser
from wfm.models.convert import Statistics, from_cosmos, read_cosmos, to_cosmos
from wfm.models.convert.command import export_weights, import_weights
from wfm.models.diffusion.denoiser import Denoiser
from wfm.models.folder import load_model, save_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("target", ["folder", "a.safetensors", "a.pt"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_there_and_back(tmp_path, kind, target, dtype):
    module = make(kind, dtype)
    to_cosmos(module, tmp_path / target)
    read = read_cosmos(tmp_path / target, CONFIGS[kind], allow_pickle_file=True)
    assert not read.left_out
    back = read.module
    if isinstance(module, Denoiser):
        assert same(back.network, module.network)
        assert same(back.logvar, module.logvar)
    else:
        assert same(back, module)


def test_a_denoiser_imported_keeps_its_uncertainty(tmp_path, monkeypatch):
    """`wfm weights import` of a checkpoint with logvar.*, and back."""
    from wfm.models import presets

    outer = DENOISER.model_copy(update={"uncertainty": 128})
    monkeypatch.setitem(presets.PRESETS, "tiny", presets.Preset("diffusion", DIT))
    torch.manual_seed(0)
    module = build_denoiser(outer)
    to_cosmos(module, tmp_path / "model.pt")
    read = import_weights(tmp_path / "model.pt", tmp_path / "ours", preset="tiny", allow_pickle_file=True)
    assert not read.left_out
    ours, _ = load_model(tmp_path / "ours", dtype="saved")
    assert same(ours.logvar, module.logvar)
    assert same(ours.network, module.network)
    export_weights(tmp_path / "ours", tmp_path / "again", to="cosmos")
    again = from_cosmos(tmp_path / "again", outer)
    assert same(again.logvar, module.logvar)


def test_statistics_lie_beside(tmp_path):
    table = Statistics(torch.randn(4, 3), torch.rand(4, 3) + 0.1, torch.randn(4), torch.rand(4) + 0.1)
    to_cosmos(make("video"), tmp_path, statistics=table)
    unread = read_cosmos(tmp_path, VIDEO)
    assert unread.statistics is None
    assert unread.left_out.keys() == {"mean_std.pt", "image_mean_std.pt"}
    found = read_cosmos(tmp_path, VIDEO, allow_pickle_file=True).statistics
    assert found is not None
    for name in ("mean", "std", "image_mean", "image_std"):
        assert torch.equal(getattr(found, name), getattr(table, name))
    torch.save((torch.zeros(5), torch.ones(5)), tmp_path / "mean_std.pt")
    with pytest.raises(DataError, match="5 numbers"):
        read_cosmos(tmp_path, VIDEO, allow_pickle_file=True)


@pytest.mark.parametrize(("field", "value"), [("linear_code", True), ("mid_attention", False)])
def test_what_the_original_cannot_say_is_refused(tmp_path, field, value):
    from wfm.models.tokenizer.network import Tokenizer

    with pytest.raises(ConfigError, match=field):
        to_cosmos(Tokenizer(VIDEO.model_copy(update={field: value})), tmp_path)


def test_a_denoiser_whose_mask_has_a_product_of_its_own_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="published_mask is False, but the original has one product"):
        to_cosmos(build_denoiser(DENOISER.model_copy(update={"published_mask": False})), tmp_path)


def test_a_denoiser_that_is_more_is_refused(tmp_path):
    outer = DENOISER.model_copy(update={"repeat_last": True})
    with pytest.raises(ConfigError, match="repeat_last"):
        to_cosmos(build_denoiser(outer), tmp_path)
    save_model(build_denoiser(outer), outer, tmp_path / "model")
    with pytest.raises(ConfigError, match="repeat_last"):
        export_weights(tmp_path / "model", tmp_path / "out", to="diffusers", dry_run=True)
