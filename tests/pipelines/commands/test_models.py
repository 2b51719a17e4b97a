"""``wfm models``: what people and scripts are shown."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pipelines.commands.artifacts import app as artifacts
from pipelines.commands.catalogue import Catalogue
from pipelines.commands.models import ModelCost, ModelList, app
from tests.wfm.catalogue.conftest import fill, key_of
from wfm.artifacts import Store
from wfm.catalogue import DatasetSheet, ModelSheet
from wfm.errors import ConfigError, InputError
from wfm.models.folder import save_model
from wfm.models.tokenizer import Tokenizer, TokenizerConfig

ROOT = Path(__file__).parents[3]


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


@pytest.fixture
def store(tmp_path):
    found = Store.open(str(tmp_path / "store"), {"fsync": False})
    fill(found)
    return str(tmp_path / "store")


def order(*arguments: object):
    done = CliRunner().invoke(artifacts, [str(argument) for argument in arguments])
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.mark.parametrize("name", ["model/tiny@latest", "model/tiny", "tiny", key_of("bundle"), key_of("bundle")[:12]])
def test_a_published_model_by_any_of_its_names(store, name):
    shown = ask("show", name, "--store", store)
    assert shown.startswith("# tiny: Diffusion world model\n\nGiven 9 frames")
    assert "**Loses:** where the camera turns at a fixed rate, 0.8 dB worse than optical flow" in shown
    sheet = ModelSheet.model_validate_json(ask("show", name, "--store", store, "--json"))
    assert (sheet.key, sheet.names) == (key_of("bundle"), ["model/tiny@latest"])
    assert sheet.result.subsets[0].rows[0].gain_db.mean == 4.0


def test_a_pulled_model_without_its_store(store, tmp_path, monkeypatch):
    told = order("pull", "model/tiny", tmp_path / "out", "--store", store)
    assert "MODEL_CARD.md" in told
    inside = ask("show", "tiny", "--store", store)
    monkeypatch.chdir(tmp_path / "out")
    monkeypatch.setenv("WFM_STORE", str(tmp_path / "nowhere"))
    assert ask("show", ".") == inside
    assert ask("show", str(tmp_path / "out"), "--json") == ask("show", ".", "--json")
    assert not (tmp_path / "nowhere").exists()
    assert "Tokenizer" not in ask("show", "model"), "one of its two models is an architecture still"
    with pytest.raises(InputError, match="is a published model: --video and --set are for architectures"):
        ask("show", ".", "--video", "9x64x64")


def test_a_pulled_dataset_has_its_card(store, tmp_path):
    order("pull", "dataset/curated", tmp_path / "out", "--what", "tables", "--store", store)
    assert "20 clips" in (tmp_path / "out" / "DATASET_CARD.md").read_text()
    assert json.loads((tmp_path / "out" / "dataset_card.json").read_text())["clips"] == 20
    (tmp_path / "out" / "DATASET_CARD.md").write_text("my own words\n")
    with pytest.raises(InputError, match="is not the card of"):
        order("pull", "dataset/curated", tmp_path / "out", "--store", store)


def test_what_is_no_model_says_what_it_is(store):
    with pytest.raises(ConfigError, match=r"unknown preset 'tinny'.*nor published: there is no model/tinny@latest"):
        ask("show", "tinny", "--store", store)
    with pytest.raises(InputError, match="is no published model"):
        ask("show", "dataset/curated", "--store", store)
    with pytest.raises(InputError, match="is no published model"):
        ask("show", key_of("model"), "--store", store)


def test_answers_for_scripts_are_of_their_schemas():
    assert len(ModelList.model_validate_json(ask("list", "--json")).root) == 24
    assert ModelCost.model_validate_json(ask("show", "diffusion-7b", "--json")).family == "diffusion"


def test_a_card_by_its_command(store):
    assert order("card", "model/tiny", "--store", store).startswith('---\nlicense: "unknown"\n')
    shown = order("card", "dataset/curated", "--store", store)
    assert "# dataset/curated@latest\n\n20 clips" in shown
    assert DatasetSheet.model_validate_json(order("card", "dataset/curated", "--store", store, "--json")).clips == 20
    with pytest.raises(InputError, match="has no card: models and data sets have one"):
        order("card", key_of("model"), "--store", store)


def test_a_card_fits_a_terminal(store):
    """80 columns wide: tables are set in them, and nothing of a cell is lost."""
    command = [sys.executable, "-m", "pipelines.commands.cli", "models", "show", "tiny", "--store", store]
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "NO_COLOR": "1"}
    environment.pop("COLUMNS", None)
    with subprocess.Popen(command, stdout=child, stderr=child, env=environment) as asked:
        os.close(child)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(parent, 65536):
                shown += data
    os.close(parent)
    assert asked.returncode == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r", "")
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "Loses: where the camera turns at a fixed rate, 0.8 dB worse than optical flow" in " ".join(text.split())
    row = next(line for line in text.splitlines() if line.startswith(" Diffusion,"))
    assert row.split()[1:] == ["24.00", "[23.50,", "+4.00", "[+3.50,", "−0.75", "[−1.25,", "75", "%"]


def test_the_catalogue_by_its_command(store, tmp_path):
    shown = order("catalogue", tmp_path / "site", "--store", store)
    assert "index.html: 2 names; 8 files written, 0 the same" in " ".join(shown.split())
    again = Catalogue.model_validate_json(order("catalogue", tmp_path / "site", "--store", store, "--json"))
    assert (again.changed, again.unchanged, again.problems) == ([], 8, [])
