"""Trained embedders open from local files alone, are those the config names, and give the network's own numbers."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from wfm.curation.embed.embed import EmbedClip, EmbedConfig, Embedder
from wfm.curation.embed.embedders import digest, open_embedder
from wfm.curation.rows import vectors
from wfm.errors import ConfigError, DataError
from wfm.records import Clip


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    """A CLIP of random weights, saved as such folders are."""
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=24,
    )  # fmt: skip
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "clip")
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPImageProcessor(**sizes).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def frames(seed: int = 0, count: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_clip_gives_the_mean_of_its_image_embeddings(clip_folder: Path) -> None:
    found = open_embedder("clip", str(clip_folder), digest(clip_folder), run_code=False, device="cpu")(frames())
    network = transformers.CLIPVisionModelWithProjection.from_pretrained(clip_folder).eval()
    mean, std = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])  # CLIP's published colours
    each = []
    for frame in frames():
        pixels = (torch.from_numpy(frame).float() / 255 - torch.tensor(mean)) / torch.tensor(std)
        with torch.no_grad():
            out = network(pixel_values=pixels.permute(2, 0, 1)[None]).image_embeds[0].numpy()
        each.append(out / np.linalg.norm(out))
    assert found.shape == (24,)
    assert found == pytest.approx(np.mean(each, axis=0), abs=1e-5)


def test_rows_have_the_models_width_and_length_one(
    clip_folder: Path, make_clip: Callable[..., Path], make_row: Callable[..., Clip]
) -> None:
    path, weights = make_clip(1), {"weights": str(clip_folder), "weights_sha256": digest(clip_folder)}
    embedder = Embedder(EmbedConfig(model="clip", frames=4, side=32, **weights))
    rows = list(EmbedClip(embedder, lambda _: path)(make_row("a")))
    record = embedder.record
    table = record.to_table(rows)
    assert str(table.schema.field("embedding").type) == "fixed_size_list<item: halffloat>[24]"
    assert np.linalg.norm(vectors(table).astype(np.float64)) == pytest.approx(1, abs=2e-3)
    assert record.to_table([]).schema == table.schema
    assert rows[0].model == "clip"


def test_other_weights_and_missing_ones_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="weights_sha256"):
        open_embedder("clip", str(clip_folder), "0" * 64, run_code=False, device="cpu")
    with pytest.raises(ConfigError, match="no such file"):
        open_embedder("clip", str(tmp_path / "nowhere"), "", run_code=False, device="cpu")
    (clip_folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot open this CLIP"):
        open_embedder("clip", str(clip_folder), digest(clip_folder), run_code=False, device="cpu")


def test_a_whole_clip_states_its_width_once(whole_clip: Path) -> None:
    """OpenAI's folders hold both towers; each side's own config need not know the common width."""
    found = open_embedder("clip", str(whole_clip), digest(whole_clip), run_code=False, device="cpu")(frames())
    network = transformers.CLIPModel.from_pretrained(whole_clip).eval()
    pixels = transformers.CLIPImageProcessor.from_pretrained(whole_clip)(images=list(frames()), return_tensors="pt")
    with torch.no_grad():
        each = network.visual_projection(network.vision_model(**pixels).pooler_output)
    each = torch.nn.functional.normalize(each, dim=-1)
    assert found == pytest.approx(each.mean(dim=0).numpy(), abs=1e-6)


class Mean(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Colours of the halves of the picture, over time."""

    def forward(self, x: "torch.Tensor") -> "torch.Tensor":
        return torch.cat([x[..., :16].mean(dim=[1, 3, 4]), x[..., 16:].mean(dim=[1, 3, 4])], dim=1)


@pytest.mark.parametrize("model", ["torchscript", "cosmos-embed1"])
def test_what_runs_code_asks_first(model: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run_code"):
        open_embedder(model, str(tmp_path), digest(tmp_path), run_code=False, device="cpu")


COSMOS_CODE = """
import torch, transformers

class TinyConfig(transformers.PretrainedConfig):
    model_type = "tiny-embed1"

class TinyModel(transformers.PreTrainedModel):
    config_class = TinyConfig
    def __init__(self, config):
        super().__init__(config)
        self.project = torch.nn.Linear(6, 5)
        self.post_init()
    def get_video_embeddings(self, videos):
        mean, std = videos.mean(dim=[2, 3, 4]), videos.std(dim=[2, 3, 4])
        made = self.project(torch.cat([mean, std], dim=1))
        return transformers.utils.ModelOutput(visual_proj=torch.nn.functional.normalize(made, dim=-1))

class TinyProcessor(transformers.ProcessorMixin):
    attributes = []
    def __call__(self, videos, return_tensors):
        pixels = torch.from_numpy(videos).float().permute(0, 2, 1, 3, 4) / 255
        return transformers.BatchFeature({"videos": pixels})
"""


def test_cosmos_embed_runs_the_code_of_its_folder(tmp_path: Path) -> None:
    """A folder as Cosmos-Embed1's: its own modelling file, videos uint8 [1, T, 3, H, W] in, `visual_proj` out."""
    folder = tmp_path / "embed1"
    folder.mkdir()
    (folder / "tiny.py").write_text(COSMOS_CODE)
    kinds = {"AutoConfig": "tiny.TinyConfig", "AutoModel": "tiny.TinyModel", "AutoProcessor": "tiny.TinyProcessor"}
    (folder / "config.json").write_text(json.dumps({"model_type": "tiny-embed1", "auto_map": kinds}))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "TinyProcessor", "auto_map": kinds}))
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 5)
    save_file({"project.weight": layer.weight.data, "project.bias": layer.bias.data}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    wanted = digest(folder)
    found = open_embedder("cosmos-embed1", str(folder), wanted, run_code=True, device="cpu")(frames())
    x = torch.from_numpy(frames()).float().permute(3, 0, 1, 2) / 255
    with torch.no_grad():
        true = layer(torch.cat([x.mean(dim=[1, 2, 3]), x.std(dim=[1, 2, 3])]))
    assert found == pytest.approx((true / true.norm()).numpy(), abs=1e-5)
    assert digest(folder) == wanted, "opening it leaves nothing behind"
    (folder / "tiny.py").write_text(COSMOS_CODE + "# another line\n")
    with pytest.raises(ConfigError, match="weights_sha256"):
        open_embedder("cosmos-embed1", str(folder), wanted, run_code=True, device="cpu")


def test_a_traced_module_gives_its_own_numbers(tmp_path: Path) -> None:
    """As InternVideo2 is brought along: a network of convolutions, traced."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv3d(3, 4, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten()
    ).eval()

    class TimeFirst(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: "torch.Tensor") -> "torch.Tensor":
            return self.network(x.transpose(1, 2))

    x = torch.from_numpy(frames()).permute(0, 3, 1, 2)[None].float() / 255
    torch.jit.trace(TimeFirst(), x).save(str(tmp_path / "traced.pt"))
    found = open_embedder(
        "torchscript", str(tmp_path / "traced.pt"), digest(tmp_path / "traced.pt"), run_code=True, device="cpu"
    )
    with torch.no_grad():
        assert found(frames()) == pytest.approx(network(x.transpose(1, 2))[0].numpy(), abs=1e-6)


def test_torchscript_gets_time_first_and_colours_from_0_to_1(tmp_path: Path) -> None:
    path = tmp_path / "mean.pt"
    torch.jit.script(Mean()).save(str(path))
    found = open_embedder("torchscript", str(path), digest(path), run_code=True, device="cpu")(frames())
    x = frames() / 255
    expected = [*x[:, :, :16].mean(axis=(0, 1, 2)), *x[:, :, 16:].mean(axis=(0, 1, 2))]
    assert found == pytest.approx(expected, abs=1e-6)


def test_numbers_that_are_not_finite_stop_the_stage(tmp_path: Path) -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=[1, 3, 4]) / x.mean(dim=[1, 3, 4])  # 0 / 0 for a black clip

    path = tmp_path / "broken.pt"
    torch.jit.script(Broken()).save(str(path))
    config = EmbedConfig(
        model="torchscript", weights=str(path), weights_sha256=digest(path), run_code=True, frames=2, side=8
    )
    with pytest.raises(DataError, match="not finite"):
        Embedder(config).vector(np.zeros((2, 8, 8, 3), np.uint8))


def test_the_place_of_the_weights_is_not_in_the_key_but_their_hash_is() -> None:
    a = EmbedConfig(model="clip", weights="/a", weights_sha256="1")
    assert a.what() == EmbedConfig(model="clip", weights="/b", weights_sha256="1", run_code=True).what()
    assert a.what() != EmbedConfig(model="clip", weights="/a", weights_sha256="2").what()
