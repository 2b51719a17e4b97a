"""Trained embedders open from local files alone, are those the config names, and give the network's own numbers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from wfm.curation.embed import EmbedClip, EmbedConfig, Embedder
from wfm.curation.embed_models import digest, open_embedder
from wfm.curation.rows import Embedding, vectors
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


class Mean(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Colours of the halves of the picture, over time."""

    def forward(self, x: "torch.Tensor") -> "torch.Tensor":
        return torch.cat([x[..., :16].mean(dim=[1, 3, 4]), x[..., 16:].mean(dim=[1, 3, 4])], dim=1)


@pytest.mark.parametrize("model", ["torchscript", "cosmos-embed1"])
def test_what_runs_code_asks_first(model: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run_code"):
        open_embedder(model, str(tmp_path), digest(tmp_path), run_code=False, device="cpu")


def test_torchscript_gets_time_first_and_colours_from_0_to_1(tmp_path: Path) -> None:
    path = tmp_path / "mean.pt"
    torch.jit.script(Mean()).save(str(path))
    found = open_embedder("torchscript", str(path), digest(path), run_code=True, device="cpu")(frames())
    x = frames() / 255
    expected = [*x[:, :, :16].mean(axis=(0, 1, 2)), *x[:, :, 16:].mean(axis=(0, 1, 2))]
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_place_of_the_weights_is_not_in_the_key_but_their_hash_is() -> None:
    a = EmbedConfig(model="clip", weights="/a", weights_sha256="1")
    assert a.what() == EmbedConfig(model="clip", weights="/b", weights_sha256="1", run_code=True).what()
    assert a.what() != EmbedConfig(model="clip", weights="/a", weights_sha256="2").what()
