"""Weights in and out, against diffusers' own classes and the published key lists.

diffusers is a pinned development dependency; without it these tests fail, they do not skip. The lists in `keys/` were typed
from the published sources. Published files themselves are stood for by sparse ones: every name, shape and dtype, no numbers.
"""

import json
import re
import struct
from math import prod
from pathlib import Path

import diffusers.models.transformers.transformer_cosmos as peer_module
import pytest
import torch
from diffusers import AutoencoderKLCosmos
from torch import nn

from tests.parity.frozen_keys import FOLDER, FrozenKeys, read_keys
from tests.parity.test_diffusion import _Nearest
from wfm.errors import ConfigError, DataError
from wfm.models.convert import from_cosmos, from_diffusers, read_cosmos, read_diffusers, to_cosmos, to_diffusers
from wfm.models.convert.command import export_weights, import_weights
from wfm.models.convert.cosmos import cosmos_names, network_of
from wfm.models.convert.diffusers_folder import diffusers_config
from wfm.models.convert.filling import without_weights
from wfm.models.diffusion.denoiser import Denoiser
from wfm.models.folder import load_model
from wfm.models.presets import PRESETS, preset

SAME = 1e-5  # of the largest output, fp32; worst measured 4e-7
TRANSFORMER = {
    "num_attention_heads": 2, "attention_head_dim": 18, "num_layers": 2, "mlp_ratio": 2.0, "text_embed_dim": 16,
    "adaln_lora_dim": 4, "max_size": (6, 32, 32),
}  # fmt: skip
AUTOENCODER = {
    "latent_channels": 4, "encoder_block_out_channels": (8, 16, 24, 24), "decode_block_out_channels": (16, 24, 24, 24),
}  # fmt: skip
PEERS = {
    "text2world": (peer_module.CosmosTransformer3DModel, {**TRANSFORMER, "in_channels": 4, "out_channels": 4}),
    "video2world": (peer_module.CosmosTransformer3DModel, {**TRANSFORMER, "in_channels": 5, "out_channels": 4}),
    "no padding mask": (
        peer_module.CosmosTransformer3DModel,
        {
            **TRANSFORMER,
            "in_channels": 4,
            "out_channels": 4,
            "concat_padding_mask": False,
            "extra_pos_embed_type": None,
        },
    ),
    "8x8x8": (AutoencoderKLCosmos, AUTOENCODER),
    "4x16x16, deeper": (
        AutoencoderKLCosmos,
        {**AUTOENCODER, "spatial_compression_ratio": 16, "temporal_compression_ratio": 4, "num_layers": 3},
    ),
    "with statistics": (AutoencoderKLCosmos, {**AUTOENCODER, "latents_mean": [0.25] * 12, "latents_std": [1.5] * 12}),
}


@pytest.fixture(autouse=True)
def _resize(monkeypatch):
    monkeypatch.setattr(peer_module, "transforms", _Nearest, raising=False)
    # To keep its learned positions in fp32 while it loads, the peer needs accelerate; all other modules it loads without
    monkeypatch.setattr(peer_module.CosmosTransformer3DModel, "_keep_in_fp32_modules", None)


def make_peer(kind: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """diffusers' model, every weight random."""
    made, values = PEERS[kind]
    torch.manual_seed(0)
    peer = made(**values)
    for name, parameter in peer.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and parameter.ndim == 1), std=0.2)
    return peer.to(dtype).eval()


@torch.no_grad()
def answers(module: nn.Module) -> list[torch.Tensor]:
    """What a model of either side says to the same input."""
    torch.manual_seed(1)
    if hasattr(module, "encode"):
        video, latents = torch.rand(1, 3, 17, 32, 32) * 2 - 1, torch.randn(1, 4, 2, 4, 4)
        if isinstance(module, AutoencoderKLCosmos):
            return [module.encode(video).latent_dist.mode(), module.decode(latents).sample]
        return [module.encode(video), module.decode(latents)]
    latents, mask, noise, text = (
        torch.randn(2, 4, 3, 6, 10), torch.rand(2, 1, 3, 6, 10).round(), torch.randn(2), torch.randn(2, 7, 16)
    )  # fmt: skip
    padding = torch.rand(1, 1, 48, 80).round()
    if isinstance(module, peer_module.CosmosTransformer3DModel):
        asked = {"condition_mask": mask} if module.config.in_channels == 5 else {}
        if module.config.concat_padding_mask:
            asked["padding_mask"] = padding
        return [module(latents, noise, text, fps=24, return_dict=False, **asked)[0]]
    asked = {"condition_mask": mask} if module.config.condition_mask else {}
    if module.config.concat_padding_mask:
        asked["padding_mask"] = padding
    return [module(latents, noise, text, fps=24, **asked)]


def states_equal(one: nn.Module, other: nn.Module) -> bool:
    """Bitwise, by name, dtype too."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        first[key].dtype == second[key].dtype and torch.equal(first[key], second[key]) for key in first
    )


def agree(one: nn.Module, other: nn.Module) -> None:
    for found, wanted in zip(answers(one), answers(other), strict=True):
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() <= SAME * wanted.abs().max()


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("kind", PEERS)
def test_from_diffusers(tmp_path, kind, sharded):
    peer = make_peer(kind)
    peer.save_pretrained(tmp_path, max_shard_size="20KB" if sharded else "10GB")
    assert (tmp_path / "diffusion_pytorch_model.safetensors.index.json").is_file() == sharded
    ours = from_diffusers(tmp_path)
    assert states_equal(ours, peer)
    assert not ours.training
    agree(ours, peer)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("kind", PEERS)
def test_to_diffusers(tmp_path, kind, sharded):
    peer = make_peer(kind)
    peer.save_pretrained(tmp_path / "theirs")
    read = read_diffusers(tmp_path / "theirs")
    to_diffusers(
        read.module, tmp_path / "ours", statistics=read.statistics, max_shard_bytes=20_000 if sharded else None
    )
    again = type(peer).from_pretrained(tmp_path / "ours").eval()
    assert states_equal(again, peer)
    for name, value in PEERS[kind][1].items():  # what it was made with, whatever else is a default
        assert again.config[name] == value or tuple(again.config[name]) == value
    agree(read.module, again)


@pytest.mark.parametrize("kind", ["video2world", "8x8x8"])
def test_bf16_is_kept_bit_by_bit(tmp_path, kind):
    peer = make_peer(kind, torch.bfloat16)
    peer.save_pretrained(tmp_path / "theirs")
    ours = from_diffusers(tmp_path / "theirs")
    assert states_equal(ours, peer)
    to_diffusers(ours, tmp_path / "ours")
    again = type(peer).from_pretrained(tmp_path / "ours", torch_dtype=torch.bfloat16)
    assert states_equal(again, peer)
    converted = from_diffusers(tmp_path / "theirs", dtype=torch.float32)
    assert all(torch.equal(tensor, peer.state_dict()[name].float()) for name, tensor in converted.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["text2world", "video2world", "8x8x8", "4x16x16, deeper"])
def test_around_through_the_original(tmp_path, kind, dtype):
    """diffusers -> ours -> the original's names -> ours -> diffusers, bit by bit."""
    peer = make_peer(kind, dtype)
    peer.save_pretrained(tmp_path / "theirs")
    read = read_diffusers(tmp_path / "theirs")
    to_cosmos(read.module, tmp_path / "original", max_shard_bytes=30_000)
    back = from_cosmos(tmp_path / "original", read.config)
    to_diffusers(back, tmp_path / "again")
    assert states_equal(type(peer).from_pretrained(tmp_path / "again", torch_dtype=dtype), peer)


def test_epsilon_is_that_of_the_source(tmp_path):
    make_peer("text2world").save_pretrained(tmp_path / "theirs")
    read = read_diffusers(tmp_path / "theirs")
    assert read.config.qk_norm_eps == 1e-5
    assert preset("diffusion-7b").config.qk_norm_eps == 1e-6


def test_statistics_go_along(tmp_path):
    make_peer("with statistics").save_pretrained(tmp_path / "theirs")
    import_weights(tmp_path / "theirs", tmp_path / "tokenizer")
    make_peer("video2world").save_pretrained(tmp_path / "transformer")
    import_weights(tmp_path / "transformer", tmp_path / "denoiser", statistics=tmp_path / "tokenizer")
    denoiser, _ = load_model(tmp_path / "denoiser")
    assert isinstance(denoiser, Denoiser)
    assert torch.equal(denoiser.statistics.mean, torch.full((4, 3), 0.25))
    assert torch.equal(denoiser.statistics.std, torch.full((4, 3), 1.5))
    export_weights(tmp_path / "tokenizer", tmp_path / "again", to="diffusers")
    assert AutoencoderKLCosmos.from_pretrained(tmp_path / "again").config.latents_std == [1.5] * 12
    export_weights(tmp_path / "denoiser", tmp_path / "network", to="diffusers")
    again = peer_module.CosmosTransformer3DModel.from_pretrained(tmp_path / "network")
    assert states_equal(again, make_peer("video2world"))


@pytest.mark.parametrize(("kind", "values", "word"), [
    ("8x8x8", {"attention_resolutions": [64]}, "attention_resolutions"),
    ("8x8x8", {"resolution": 512, "attention_resolutions": [32]}, "attention_resolutions"),  # 128, 64, 32
    ("8x8x8", {"scaling_factor": 0.5}, "scaling_factor"),
    ("8x8x8", {"patch_type": "rearrange"}, "patch_type"),
    ("8x8x8", {"decode_block_out_channels": [16, 16, 24, 24]}, "decode_block_out_channels"),
    ("8x8x8", {"invented": 1}, "invented"),
    ("text2world", {"use_crossattn_projection": True}, "use_crossattn_projection"),
    ("text2world", {"in_channels": 3}, "in_channels"),
    ("text2world", {"_class_name": "WanTransformer3DModel"}, "WanTransformer3DModel"),
    ("text2world", {"num_layers": 3}, "missing transformer_blocks.2"),
    ("text2world", {"num_attention_heads": 1}, "wanted"),
])  # fmt: skip
def test_what_would_give_other_numbers_is_refused(tmp_path, kind, values, word):
    make_peer(kind).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | values))
    with pytest.raises((ConfigError, DataError), match=word):
        from_diffusers(tmp_path)


def test_attention_that_the_peer_would_add_is_never_written():
    """A width of patches whose sides meet diffusers' default [32] gets a list that no side meets."""
    values = diffusers_config(without_weights(lambda: network_of(preset("cv4x8x8-360p").config)))
    with torch.device("meta"):
        peer = AutoencoderKLCosmos(**{key: value for key, value in values.items() if key[0] != "_"})
    assert sum(map(torch.Tensor.numel, peer.parameters())) == read_keys("cv4x8x8-360p").total


# The published lists

LISTS = sorted(path.stem for path in FOLDER.glob("*.txt") if not path.stem.endswith(".diffusers"))
COUNTS = {
    "diffusion-7b": 7_236_192_256, "diffusion-14b": 14_267_149_312, "diffusion-7b-v2w": 7_236_208_640,
    "diffusion-14b-v2w": 14_267_169_792, "cv8x8x8": 105_653_696, "cv8x16x16": 110_898_624, "cv4x8x8": 104_669_888,
    "cv4x8x8-360p": 110_208_816, "dv8x16x16": 110_898_294, "dv4x8x8-360p": 112_619_766,
}  # fmt: skip
DIFFUSERS_TOO = [name for name in LISTS if PRESETS[name].family == "diffusion" or name.startswith("cv")]


def expected(name: str) -> dict[str, tuple[int, ...]]:
    """Our network's tensors under the original's names, as `to_cosmos` would write them."""
    network = without_weights(lambda: network_of(preset(name).config))
    prefix = "net." if PRESETS[name].family == "diffusion" else ""
    state = network.state_dict()
    return {prefix + theirs: tuple(state[ours].shape) for ours, theirs in cosmos_names(network).items()}


def test_every_count_of_the_issue_has_a_list():
    assert set(COUNTS) <= set(LISTS)
    assert {name: read_keys(name).total for name in COUNTS} == COUNTS


@pytest.mark.parametrize("name", LISTS)
def test_the_network_meets_the_published_list(name):
    assert expected(name) == read_keys(name).weights


@pytest.mark.parametrize("name", DIFFUSERS_TOO)
def test_the_network_is_what_diffusers_builds(name):
    network = without_weights(lambda: network_of(preset(name).config))
    values = {key: value for key, value in diffusers_config(network).items() if key[0] != "_"}
    made = peer_module.CosmosTransformer3DModel if name.startswith("diffusion") else AutoencoderKLCosmos
    with torch.device("meta"):
        peer = made(**values)
    theirs = {key: tuple(tensor.shape) for key, tensor in peer.state_dict().items()}
    assert {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()} == theirs
    if (FOLDER / f"{name}.diffusers.txt").is_file():
        assert theirs == read_keys(f"{name}.diffusers").weights


def published(path: Path, keys: FrozenKeys) -> Path:
    """A safetensors file with every tensor of a list in bf16, code books and all; the numbers are a hole in the file."""
    header, end = {}, 0
    for key, shape in (keys.weights | keys.beside).items():
        size = 2 * prod(shape)
        header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


SMALLER_TWIN = {
    "ar-12b": "ar-4b", "ar-13b": "ar-5b", "diffusion-14b": "diffusion-7b", "diffusion-14b-v2w": "diffusion-7b-v2w",
}  # fmt: skip
"""Of those whose files, 24 to 28 GB of zeros, are read by the long tests alone: more blocks, of the same tensors."""


@pytest.mark.parametrize("name", SMALLER_TWIN)
def test_a_larger_model_has_the_tensors_of_its_smaller_twin(name):
    def tensors(keys: FrozenKeys) -> tuple[set[tuple[str, int]], ...]:
        return tuple(
            {(re.sub(r"\d+", "N", key), len(shape)) for key, shape in found.items()}
            for found in (keys.weights, keys.beside)
        )

    assert tensors(read_keys(name)) == tensors(read_keys(SMALLER_TWIN[name]))
    assert tensors(read_keys(name)) != tensors(read_keys("cv8x8x8"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in SMALLER_TWIN else name for name in LISTS]
)
def test_a_published_file_is_read(tmp_path, name):
    keys = read_keys(name)
    read = read_cosmos(published(tmp_path / "model.safetensors", keys), name)
    assert sum(parameter.numel() for parameter in read.module.parameters()) == keys.total
    assert read.left_out.keys() == keys.beside.keys()  # what has no place is told, not lost
    assert all(read.left_out.values())


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("change", ["swapped", "renamed", "shape", "missing", "extra"])
def test_one_wrong_key_fails(tmp_path, name, change):
    """The same check by list and by file: whoever changes one name or shape of a network hears of it."""
    keys = read_keys(name)
    weights = keys.weights
    one = next(key for key, shape in weights.items() if len(shape) > 1)
    other = next(key for key, shape in weights.items() if len(shape) > 1 and shape != weights[one])
    if change == "swapped":
        weights[one], weights[other] = weights[other], weights[one]
    elif change == "renamed":
        weights[one.replace("weight", "wieght")] = weights.pop(one)
    elif change == "shape":
        weights[one] = (*weights[one][:-1], weights[one][-1] + 1)
    elif change == "missing":
        del weights[one]
    else:
        weights[one.replace(".weight", ".gain")] = (4,)
    with pytest.raises(DataError, match="do not fit the model") as caught:
        from_cosmos(published(tmp_path / "model.safetensors", keys), name)
    assert one.removeprefix("net.").removesuffix("weight") in str(caught.value)


def test_logvar_becomes_the_uncertainty(tmp_path):
    keys = read_keys("diffusion-7b")
    read = read_cosmos(published(tmp_path / "model.safetensors", keys), "diffusion-7b", denoiser=True)
    assert isinstance(read.module, Denoiser)
    assert read.module.logvar is not None
    assert read.config.uncertainty == 128
    assert read.left_out.keys() == {key for key in keys.beside if not key.startswith("logvar.")}
