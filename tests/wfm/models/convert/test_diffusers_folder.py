"""What people hand over for a folder of diffusers: default tables, variants, a whole pipeline, numbers that are none."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.wfm.models.convert.conftest import CONFIGS, VIDEO, make, same
from wfm.errors import DataError, InputError
from wfm.models.convert import from_cosmos, read_diffusers, to_cosmos, to_diffusers
from wfm.models.convert.command import import_weights, inspect_weights
from wfm.models.convert.diffusers_folder import STEM
from wfm.models.folder import load_model, read_card, save_model

BEGIN = [0.11362758, -0.0171717, 0.03071163, 0.02046862]  # of diffusers' LATENTS_MEAN
DEFAULT = {"latents_mean": BEGIN + [0.1] * 252, "latents_std": [0.5] * 256}


def folder_with(tmp_path, channels: int = 4, **values):
    """A folder of an autoencoder whose config.json has some values of its own."""
    model = make("video")
    if channels != 4:
        model = type(model)(VIDEO.model_copy(update={"latent_channels": channels, "z_channels": channels}))
    to_diffusers(model, tmp_path / "vae")
    path = tmp_path / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return tmp_path / "vae"


@pytest.mark.parametrize("channels", [4, 5, 8])
def test_the_default_table_of_statistics_is_left_out_where_it_does_not_fit(tmp_path, channels):
    """Before: 4 channels had a table of 64 latent frames, 8 one of 32, and 5 were refused."""
    read = read_diffusers(folder_with(tmp_path, channels, **DEFAULT))
    assert read.statistics is None
    assert read.left_out.keys() == DEFAULT.keys()
    assert read.left_out["latents_mean"] == f"diffusers' default, for 16 channels; this model has {channels}"
    import_weights(tmp_path / "vae", tmp_path / "ours")
    assert read_card(tmp_path / "ours").extra["left_out"] == read.left_out
    assert not [name for name in read_card(tmp_path / "ours").extra if name.startswith("latents_")]


def test_a_table_that_fits_is_kept(tmp_path):
    statistics = read_diffusers(folder_with(tmp_path, 16, **DEFAULT)).statistics
    assert statistics.mean.shape == statistics.std.shape == (16, 16)
    assert statistics.mean[0, :4].tolist() == pytest.approx(BEGIN)
    own = {"latents_mean": [0.25] * 256, "latents_std": [1.5] * 256}  # 64 latent frames of somebody's own
    assert read_diffusers(folder_with(tmp_path / "own", 4, **own)).statistics.mean.shape == (4, 64)


def test_a_deviation_that_is_not_used_is_said(tmp_path):
    """diffusers normalises by nothing where latents_mean is null. Before: left out without a word."""
    read = read_diffusers(folder_with(tmp_path, latents_mean=None, latents_std=[0.5] * 256))
    assert read.statistics is None
    assert "latents_mean is null" in read.left_out["latents_std"]


@pytest.mark.parametrize(
    ("mean", "std", "says"),
    [
        ([0.0] * 8, None, "latents_mean without latents_std"),  # before: left out without a word
        ([0.0] * 8, [1.0] * 7 + [0.0], "std holds 0; a deviation is above 0"),  # before: taken, and divided by
        ([0.0] * 8, [1.0] * 7 + [-1.0], "std holds -1"),
        ([math.nan] * 8, [1.0] * 8, "mean holds a number that is NaN or infinite"),  # before: "8 numbers, not so many"
        ([0.0] * 8, [1.0] * 7 + [1e39], "std holds a number that is NaN or infinite"),
        ([0.0] * 9, [1.0] * 9, "9 numbers, not so many for each of 4 channels"),
        ([0.0] * 8, [1.0] * 4, r"mean is \[4, 2\], their std \[4, 1\]"),
        ([], [], "0 numbers"),
        (["a"] * 8, [1.0] * 8, "not a table of numbers"),
        ([10**400] * 8, [1.0] * 8, "not a table of numbers"),  # before: OverflowError
        ({"a": 1}, [1.0] * 8, "not a table of numbers"),
    ],
)
def test_tables_that_cannot_be_are_refused(tmp_path, mean, std, says):
    with pytest.raises(DataError, match=says):
        read_diffusers(folder_with(tmp_path, latents_mean=mean, latents_std=std))


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
@pytest.mark.parametrize("sharded", ["", "index.{}", "{} first"])
def test_a_variant_is_read_where_it_is_the_only_one(tmp_path, kind, sharded):
    """Before: "diffusion_pytorch_model.safetensors: no such file of tensors"."""
    model = make("dit", torch.float16 if kind == "fp16" else torch.bfloat16)
    to_diffusers(model, tmp_path, max_shard_bytes=20_000 if sharded else None)
    if not sharded:
        (tmp_path / f"{STEM}.safetensors").rename(tmp_path / f"{STEM}.{kind}.safetensors")
    else:
        index = tmp_path / f"{STEM}.safetensors.index.json"
        homes = json.loads(index.read_text())
        renamed = {
            name: name.replace(".safetensors", f".{kind}.safetensors") for name in set(homes["weight_map"].values())
        }
        for old, new in renamed.items():
            (tmp_path / old).rename(tmp_path / new)
        homes["weight_map"] = {name: renamed[home] for name, home in homes["weight_map"].items()}
        index.unlink()
        ends = f"safetensors.index.{kind}.json" if sharded.startswith("index") else f"{kind}.safetensors.index.json"
        (tmp_path / f"{STEM}.{ends}").write_text(json.dumps(homes))
    assert same(read_diffusers(tmp_path).module, model)
    assert len(inspect_weights(tmp_path)[0].entries) == len(model.state_dict())


def test_of_several_variants_the_plain_one_is_read_or_none(tmp_path):
    to_diffusers(make("video"), tmp_path)
    plain = tmp_path / f"{STEM}.safetensors"
    for kind in ("fp16", "bf16"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{STEM}.{kind}.safetensors")
    assert same(read_diffusers(tmp_path).module, make("video"))
    plain.unlink()
    with pytest.raises(
        DataError, match=rf"several variants.*{STEM}\.bf16\.safetensors, {STEM}\.fp16\.safetensors; keep one"
    ):
        read_diffusers(tmp_path)
    for kind in ("fp16", "bf16"):
        (tmp_path / f"{STEM}.{kind}.safetensors").rename(tmp_path / f"{STEM}.{kind}.bin")
    with pytest.raises(DataError, match=rf"only {STEM}\.bf16\.bin, {STEM}\.fp16\.bin; pickles"):
        read_diffusers(tmp_path)


def test_the_folder_of_a_pipeline_names_the_models_within(tmp_path):
    """Before: "no config.json here, so this is not a model folder of diffusers", and for `wfm weights import` that the
    preset was missing."""
    to_diffusers(make("video"), tmp_path / "vae")
    to_diffusers(make("dit"), tmp_path / "transformer")
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "config.json").write_text('{"_class_name": "T5EncoderModel"}')
    (tmp_path / "model_index.json").write_text('{"_class_name": "CosmosTextToWorldPipeline"}')
    for refused in (
        lambda: read_diffusers(tmp_path),
        lambda: import_weights(tmp_path, tmp_path / "out"),
        lambda: import_weights(tmp_path, tmp_path / "out", preset="diffusion-7b"),
        lambda: inspect_weights(tmp_path),
    ):
        with pytest.raises(DataError, match=r"pipeline of diffusers .* give one: [^ ]*/transformer, [^ ]*/vae$"):
            refused()
    with pytest.raises(DataError, match="wfm weights import"):
        load_model(tmp_path)
    with pytest.raises(DataError, match=r"wfm weights import .*vae OUT"):  # before: "use a newer wfm"
        load_model(tmp_path / "vae")
    import_weights(tmp_path / "transformer", tmp_path / "out")
    load_model(tmp_path / "out")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, number, dtype):
    """Before: read, and every result was NaN."""
    name = "decoder.up_blocks.0.resnets.0.conv1.conv_s.weight"
    model = make("video", dtype)
    to_diffusers(model, tmp_path / "theirs")
    to_cosmos(model, tmp_path / "original")
    save_model(model, CONFIGS["video"], tmp_path / "ours")
    for folder, stem in (("theirs", STEM), ("original", "model"), ("ours", "model")):
        path = tmp_path / folder / f"{stem}.safetensors"
        tensors = load_file(path)
        own = name if folder != "original" else "decoder.up.2.block.0.conv1.0.conv3d.weight"
        tensors[own][0, 0, 0, 1, 1] = number
        save_file(tensors, path)
        opened = {
            "theirs": lambda: read_diffusers(tmp_path / "theirs"),
            "original": lambda: from_cosmos(tmp_path / "original", VIDEO),
            "ours": lambda: load_model(tmp_path / "ours", dtype="saved"),
        }
        with pytest.raises(
            DataError, match=rf"{folder}/{stem}\.safetensors: {own} holds numbers that are NaN or infinite"
        ):
            opened[folder]()
    with pytest.raises(InputError, match="NaN or infinite"):
        import_weights(tmp_path / "theirs", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_numbers_beyond_the_type_asked_for_are_refused(tmp_path):
    """Before: infinite weights. Sums that are beyond fp16 are no such numbers."""
    model = make("video")
    model.quant_conv.weight.data[0] = 60_000.0
    to_diffusers(model, tmp_path / "theirs")
    assert read_diffusers(tmp_path / "theirs", dtype=torch.float16).module.quant_conv.weight.dtype == torch.float16
    model.quant_conv.weight.data[0, 0] = 1e5
    to_diffusers(model, tmp_path / "theirs")
    with pytest.raises(DataError, match=r"quant_conv\.weight holds numbers beyond float16; keep its float32"):
        read_diffusers(tmp_path / "theirs", dtype=torch.float16)
    read_diffusers(tmp_path / "theirs", dtype=torch.bfloat16)
