"""``wfm models``: what people and scripts are shown."""

import json

import pytest
import torch
from typer.testing import CliRunner

from pipelines.commands.models import app
from wfm.errors import ConfigError
from wfm.models.folder import save_model
from wfm.models.tokenizer import Tokenizer, TokenizerConfig


def ask(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None:
        raise done.exception
    return done.output


def test_the_list_has_every_preset_with_its_count():
    shown = ask("list")
    for word in ("diffusion-14b-v2w", "14,267,169,792", "dv8x16x16", "110,898,294", "64,000 symbols"):
        assert word in shown
    rows = json.loads(ask("list", "--json"))
    assert len(rows) == 24
    assert rows["cv8x8x8"]["parameters"] == 105_653_696


def test_show_for_people():
    shown = ask("show", "Diffusion-7B", "--video", "121x704x1280")
    for words in (
        "28 layers, width 4096",
        "7,236,192,256",
        "self-attention",
        "16 frames of 88x160",
        "56,320 each",
        "GiB",
    ):
        assert words in shown


def test_show_for_scripts():
    found = json.loads(ask("show", "cv4x8x8", "--video", "17x256x256", "--batch", "2", "--json"))
    assert found["latents"] == [16, 5, 32, 32]
    assert found["parameters"] == sum(part["parameters"] for part in found["parts"]) == 104_669_888
    assert found["flops_forward"] == sum(part["flops"] for part in found["parts"])
    assert found["memory_bytes"]["training states, all"] == 20 * 104_669_888


def test_fields_can_be_changed_and_another_tokenizer_taken():
    values = ("diffusion-7b", "--json", "--video", "49x512x512", "--text-tokens", "64")
    plain = json.loads(ask("show", *values))
    small = json.loads(ask("show", *values, "--set", "num_layers=14", "--tokenizer", "cv8x16x16"))
    assert small["tokens"] * 4 == plain["tokens"]
    assert small["parameters"] < 0.52 * plain["parameters"]
    with pytest.raises(ConfigError, match="num_layers"):
        ask("show", "diffusion-7b", "--set", "layers=3")


def test_a_folder_is_read_without_its_weights(tmp_path):
    config = TokenizerConfig(channels=(32, 32), patch_size=8, end_kernel=1, linear_code=True)
    torch.manual_seed(0)
    network = Tokenizer(config)
    save_model(network, config, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    found = json.loads(ask("show", str(tmp_path), "--video", "33x64x64", "--json"))
    assert found["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert found["latents"] == [16, 5, 8, 8]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "cv8x8"), "Did you mean 'cv8x8x8'"),
        (("show", "diffusion-7b", "--video", "120x704x1280"), "113 or 121"),
        (("show", "diffusion-7b", "--video", "120"), "FRAMESxHEIGHTxWIDTH"),
        (("show", "diffusion-7b", "--tokenizer", "diffusion-14b"), "no tokenizer"),
        (("show", "cv8x8x8", "--batch", "0"), "batch is 0"),
    ],
)
def test_what_is_wrong_is_said(arguments, words):
    with pytest.raises(ConfigError, match=words):
        ask(*arguments)


def test_it_is_a_command_of_wfm(wfm, tmp_path):
    assert "cv8x16x16" in wfm("models", "list", store=tmp_path).stdout
    refused = wfm("models", "show", "nothing", store=tmp_path, check=False)
    assert refused.returncode == 78
    assert "unknown preset 'nothing'" in refused.stderr
