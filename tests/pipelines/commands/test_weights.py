"""``wfm weights`` as people use it: a folder in, a model folder out, and what they are told when it is not what they think."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from pipelines.commands.weights import Inspected, app
from wfm.errors import ConfigError, DataError
from wfm.models.convert import to_cosmos, to_diffusers
from wfm.models.diffusion.config import DenoiserConfig, DiffusionConfig
from wfm.models.diffusion.denoiser import Denoiser
from wfm.models.diffusion.network import DiffusionTransformer
from wfm.models.folder import load_model, save_model
from wfm.models.tokenizer import Tokenizer, TokenizerConfig

DIT = DiffusionConfig(
    in_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2, text_embed_dim=16, adaln_lora_dim=4,
    max_size=(4, 16, 16), condition_mask=True, qk_norm_eps=1e-5,
)  # fmt: skip
VIDEO = TokenizerConfig(latent_channels=4, z_channels=4, channels=(8, 8, 16, 16))


def ask(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None:
        raise done.exception
    return " ".join(done.output.split())  # as one line: a terminal wraps where it likes


@pytest.fixture
def network() -> DiffusionTransformer:
    torch.manual_seed(0)
    module = DiffusionTransformer(DIT)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module.eval()


@pytest.fixture
def theirs(tmp_path: Path, network: DiffusionTransformer) -> Path:
    """A diffusers folder."""
    to_diffusers(network, tmp_path / "theirs")
    return tmp_path / "theirs"


def header(path: Path, tensors: dict[str, list[int]], *, cut: int = 0) -> Path:
    """A safetensors file of zeros, `cut` bytes short."""
    entries, end = {}, 0
    for name, shape in tensors.items():
        size = 4 * torch.Size(shape).numel()
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + end - cut)
    return path


def test_in_and_out_again(tmp_path, theirs, network):
    shown = ask("import", theirs, tmp_path / "model", "--max-shard-size", "50KB")
    assert "Denoiser of" in shown
    assert "without latent statistics" in shown
    denoiser, card = load_model(tmp_path / "model")
    assert isinstance(denoiser, Denoiser)
    assert card.family == "diffusion"
    assert card.config.network.qk_norm_eps == 1e-5
    shown = ask("export", tmp_path / "model", tmp_path / "again")
    assert "left out the denoiser's latent statistics" in shown
    for file in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (theirs / file).read_bytes()
    ask("export", tmp_path / "model", tmp_path / "original.safetensors", "--to", "cosmos")
    shown = ask("inspect", tmp_path / "original.safetensors")
    told = Inspected.model_validate_json(ask("inspect", tmp_path / "original.safetensors", "--json"))
    assert f"{told.files[0].numbers:,} numbers" in shown
    assert told.fits == []
    assert "net.affline_norm.weight" in shown
    assert "fits no preset" in shown
    assert network.config == denoiser.network.config


def test_a_dry_run_writes_nothing(tmp_path, theirs):
    assert "nothing written" in ask("import", theirs, tmp_path / "model", "--dry-run")
    assert not (tmp_path / "model").exists()
    ask("import", theirs, tmp_path / "model")
    assert "can be written" in ask("export", tmp_path / "model", tmp_path / "out", "--dry-run")
    assert not (tmp_path / "out").exists()


def test_inspect_counts(tmp_path):
    file = header(tmp_path / "a.safetensors", {f"layer{n}.weight": [2, 3] for n in range(25)})
    shown = ask("inspect", file)
    for words in ("layer0.weight float32 2x3", "and 5 more", "25 tensors, 150 numbers (float32 150)"):
        assert words in shown
    assert "layer9.weight" in ask("inspect", file, "--all")


def test_the_source_is_not_written_over(theirs):
    before = (theirs / "config.json").read_bytes()
    with pytest.raises(ConfigError, match="source itself"):
        ask("import", theirs, theirs)
    assert (theirs / "config.json").read_bytes() == before


class Touch:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def test_files_that_are_not_what_they_should_be(tmp_path, theirs, network):
    out = tmp_path / "model"
    to_cosmos(network, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match="Is it a checkpoint of diffusion-7b"):
        ask("import", tmp_path / "a.safetensors", out, "--preset", "diffusion-7b")
    with pytest.raises(ConfigError, match="Did you mean 'diffusion-7b'"):
        ask("import", tmp_path / "a.safetensors", out, "--preset", "difusion-7b")
    with pytest.raises(ConfigError, match="say which of diffusion-7b"):
        ask("import", tmp_path / "a.safetensors", out)
    with pytest.raises(DataError, match="no such file"):
        ask("import", tmp_path / "nowhere", out)
    with pytest.raises(DataError, match="truncated"):
        ask("inspect", header(tmp_path / "cut.safetensors", {"a": [100]}, cut=8))
    torch.save({"net.x": Touch(tmp_path / "touched")}, tmp_path / "evil.pt")
    for flags in ([], ["--pt"]):
        with pytest.raises(DataError, match=r"pickle|run code"):
            ask("import", tmp_path / "evil.pt", out, "--preset", "cv8x8x8", *flags)
    assert not (tmp_path / "touched").exists()
    for options in (["--dtype", "int8"], ["--max-shard-size", "5 apples"]):
        with pytest.raises(ConfigError, match=r"int8|5 apples"):
            ask("import", theirs, out, *options)
    assert not out.exists()


def test_torchscript_of_another_preset_is_read_and_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), tmp_path / "autoencoder.jit")
    assert "TorchScript archive, 2 tensors, 9 numbers" in ask("inspect", tmp_path / "autoencoder.jit")
    with pytest.raises(DataError, match="do not fit the model"):
        ask("import", tmp_path / "autoencoder.jit", tmp_path / "model", "--preset", "cv8x8x8")


def test_statistics_come_with_the_tokenizer(tmp_path, theirs):
    to_diffusers(Tokenizer(VIDEO), tmp_path / "plain")
    ask("import", tmp_path / "plain", tmp_path / "tokenizer")
    with pytest.raises(DataError, match="no latent statistics"):
        ask("import", theirs, tmp_path / "model", "--statistics", tmp_path / "tokenizer")
    with pytest.raises(ConfigError, match="only a transformer"):
        ask("import", tmp_path / "plain", tmp_path / "model", "--statistics", tmp_path / "tokenizer")


def test_people_are_told_in_a_line(tmp_path):
    """The command itself: a message and an exit code for bad input, not a traceback."""
    file = header(tmp_path / "cut.safetensors", {"a": [100]}, cut=8)
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.commands.cli", "weights", "inspect", str(file)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 78, done.stderr
    assert "truncated" in done.stderr
    assert "Traceback" not in done.stderr


def test_help():
    for words in ("import", "export", "inspect"):
        assert words in ask("--help")
    assert "--statistics" in ask("import", "--help")


def bundle(folder: Path, model: Path, tokenizer: Path) -> Path:
    """A published world model, as it is pulled."""
    folder.mkdir()
    model.rename(folder / "model"), tokenizer.rename(folder / "tokenizer")
    (folder / "card.json").write_text("{}")
    return folder


def plain_tokenizer(folder: Path, **changes: object) -> Path:
    config = VIDEO.override([f"{name}={json.dumps(value)}" for name, value in changes.items()])
    save_model(Tokenizer(config), config, folder)
    return folder


@pytest.mark.parametrize(("to", "names"), [("diffusers", ("transformer", "vae")), ("cosmos", ("model", "tokenizer"))])
def test_a_pulled_model_is_written_for_others(tmp_path, theirs, to, names):
    ask("import", theirs, tmp_path / "imported")
    tokenizer = plain_tokenizer(tmp_path / "tokenizer", decoder_blocks=3)
    pulled = bundle(tmp_path / "pulled", tmp_path / "imported", tokenizer)
    assert "can be written for" in ask("export", pulled, tmp_path / "out", "--to", to, "--dry-run")
    assert not (tmp_path / "out").exists()
    shown = ask("export", pulled, tmp_path / "out", "--to", to)
    for words in ("left out card.json", "left out action_spec of the model", "left out model: the denoiser's latent"):
        assert words in shown
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    for name, part in zip(names, ("model", "tokenizer"), strict=True):
        (file,) = (tmp_path / "out" / name).glob("*.safetensors")
        written = load_file(file)
        own = load_model(pulled / part)[0].state_dict()
        weights = {name: tensor for name, tensor in own.items() if not name.startswith("statistics.")}
        assert len(written) == len(weights)
        assert sum(tensor.numel() for tensor in written.values()) == sum(t.numel() for t in weights.values())


def test_a_pulled_model_that_fits_nowhere_lists_all_that_does_not(tmp_path):
    config = DenoiserConfig.parse({"network": DIT.resolved() | {"text_embed_dim": 0}, "repeat_last": True})
    save_model(Denoiser(config), config, tmp_path / "m")
    pulled = bundle(tmp_path / "pulled", tmp_path / "m", plain_tokenizer(tmp_path / "t", linear_code=True))
    for to in ("diffusers", "cosmos"):
        with pytest.raises(ConfigError) as refused:
            ask("export", pulled, tmp_path / "out", "--to", to)
        told = str(refused.value)
        assert refused.value.exit_code == 78
        for words in (
            "model: field repeat_last is True",
            "model: field network.text_embed_dim is 0",
            "model: tensor network.patch_embed.proj_past.weight",
            "model: and lacks",
            "tokenizer: field linear_code is True",
            "tokenizer: tensor first_code.encoder.weight",
            "nothing was written",
        ):
            assert words in told, words
        assert not (tmp_path / "out").exists()


def test_one_half_that_fits_is_named(tmp_path, theirs):
    ask("import", theirs, tmp_path / "m")
    pulled = bundle(tmp_path / "pulled", tmp_path / "m", plain_tokenizer(tmp_path / "t", linear_code=True))
    with pytest.raises(ConfigError, match="pulled/model fits and can be written alone"):
        ask("export", pulled, tmp_path / "out", "--to", "cosmos")
    ask("export", pulled / "model", tmp_path / "out", "--to", "cosmos")


def test_further_conditions_have_no_place_elsewhere(tmp_path):
    """They add tensors that neither format names: written for the original, such a model ended in a KeyError."""
    speed = {"slot": "vector", "width": 3, "tensors": ["speed"]}
    network = {**DIT.resolved(), "text_embed_dim": 16}
    config = DenoiserConfig.parse(
        {"network": network, "published_mask": True, "action_width": 2, "conditions": {"speed": speed}}
    )
    save_model(Denoiser(config), config, tmp_path / "m")
    for to in ("diffusers", "cosmos"):
        with pytest.raises(ConfigError) as refused:
            ask("export", tmp_path / "m", tmp_path / "out", "--to", to)
        told = str(refused.value)
        assert "field conditions is {'speed'" in told
        assert "speed" in told.partition("tensor network.")[2]
        assert ("field action_width is 2" in told) == (to == "diffusers"), "the original has actions of its own"
