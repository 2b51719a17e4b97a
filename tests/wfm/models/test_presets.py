"""The published models: exact parameter counts, counted on the meta device where nothing is allocated."""

import pytest
import torch

from wfm.errors import ConfigError
from wfm.models.autoregressive import AutoregressiveTransformer
from wfm.models.cost import cost_of
from wfm.models.diffusion.network import DiffusionTransformer
from wfm.models.presets import PRESETS, preset
from wfm.models.tokenizer import Tokenizer

PUBLISHED = {
    "diffusion-7b": 7_236_192_256,
    "diffusion-14b": 14_267_149_312,
    "diffusion-7b-v2w": 7_236_208_640,
    "diffusion-14b-v2w": 14_267_169_792,
    "ar-4b": 4_014_088_192,
    "ar-5b": 4_584_845_312,  # before: 4_584_583_168, a table of 64,000 rows
    "ar-12b": 11_560_975_360,
    "ar-13b": 13_323_125_760,  # before: 13_322_798_080
    "cv8x8x8": 105_653_696,
    "cv8x16x16": 110_898_624,
    "cv4x8x8": 104_669_888,
    "cv4x8x8-360p": 110_208_816,
    "dv8x16x16": 110_898_294,
    "dv4x8x8-360p": 112_619_766,
}
NETWORKS = {"autoregressive": AutoregressiveTransformer, "diffusion": DiffusionTransformer, "tokenizer": Tokenizer}


def on_meta(name: str) -> torch.nn.Module:
    family, config = preset(name)
    with torch.device("meta"):
        return NETWORKS[family](config)


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_counts_are_the_published_ones(name, count):
    assert sum(parameter.numel() for parameter in on_meta(name).parameters()) == count


@pytest.mark.parametrize("name", PRESETS)
def test_the_formula_counts_what_the_network_has(name):
    module = on_meta(name)
    cost = cost_of(PRESETS[name].config)
    assert cost.parameters == sum(parameter.numel() for parameter in module.parameters())
    assert {parameter.device.type for parameter in module.parameters()} == {"meta"}


@pytest.mark.parametrize(
    "name", ["CV8x8x8", " cv8x8x8 ", "Cosmos-Tokenize1-CV8x8x8-720p", "Cosmos-0.1-Tokenizer-CV8x8x8"]
)
def test_names_are_read_as_people_write_them(name):
    assert preset(name) == PRESETS["cv8x8x8"]


def test_an_unknown_name_lists_the_others():
    with pytest.raises(ConfigError, match=r"Did you mean 'diffusion-7b'\? Choices: diffusion-7b, .*di16x16-360p"):
        preset("diffusion7b")


def test_what_tells_presets_apart():
    small, video = (PRESETS[name].config for name in ("diffusion-7b", "diffusion-7b-v2w"))
    assert (small.condition_mask, video.condition_mask) == (False, True)
    assert PRESETS["diffusion-14b"].config.rope_scale == (2.0, 2.0, 2.0)
    for name, (family, config) in PRESETS.items():
        if family == "tokenizer":
            assert config.discrete == (name[0] == "d")
            assert config.vocabulary_size == (64_000 if config.discrete else 0)
            assert config.patch_size == (2 if name.endswith("360p") else 4)
