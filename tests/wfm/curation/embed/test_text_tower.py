"""Words and pictures of one CLIP in one space: the tower's numbers are the network's own, and `wfm search` meets pictures by
them."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from typer.testing import CliRunner

from pipelines.commands.cli import app
from wfm.artifacts import Store
from wfm.curation.embed.embed import EmbedConfig
from wfm.curation.embed.embedders import digest, open_embedder
from wfm.curation.embed.text_tower import TextTower
from wfm.curation.rows import Embedding
from wfm.errors import ConfigError, DataError

TEXTS = ["red", "a red ball", "a very long sentence of more than sixteen tokens that is cut"]


def test_the_tower_is_the_networks_own(whole_clip: Path) -> None:
    tower = TextTower(str(whole_clip), digest(whole_clip))
    found = tower(TEXTS)
    network = transformers.CLIPModel.from_pretrained(whole_clip).eval()
    words = transformers.CLIPTokenizer.from_pretrained(whole_clip)
    for text, vector in zip(TEXTS, found, strict=True):
        batch = words([text], truncation=True, max_length=16, return_tensors="pt")
        with torch.no_grad():
            true = network.text_projection(network.text_model(**batch).pooler_output)[0]
        assert vector == pytest.approx((true / true.norm()).numpy(), abs=1e-5)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert tower(TEXTS[:1])[0] == pytest.approx(found[0], abs=1e-5), "padding changes nothing"
    with pytest.raises(ConfigError, match="another space"):
        TextTower(str(whole_clip), "0" * 64)


def test_a_folder_without_words_is_refused(whole_clip: Path) -> None:
    shutil.copytree(whole_clip, whole_clip.parent / "blind")
    blind = whole_clip.parent / "blind"
    (blind / "model.safetensors").unlink()
    transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32)
    ).save_pretrained(blind)
    with pytest.raises(DataError, match="CLIP"):
        TextTower(str(blind), digest(blind))(["red"])


def test_search_by_words_meets_pictures(whole_clip: Path, tmp_path: Path) -> None:
    """Clips whose pictures lie where the words do come first, whatever is said of them."""
    store = Store.open(tmp_path / "store", {"fsync": False})
    sha256 = digest(whole_clip)
    config = EmbedConfig(model="clip", weights=str(whole_clip), weights_sha256=sha256, frames=2, side=32)
    embed = open_embedder("clip", str(whole_clip), sha256, run_code=False, device="cpu")
    pictures = np.random.default_rng(0).integers(0, 256, (6, 2, 32, 32, 3), dtype=np.uint8)
    vectors = np.stack([made / np.linalg.norm(made) for made in map(embed, pictures)]).astype(np.float16)
    ids = [hashlib.sha256(bytes([k])).hexdigest() for k in range(6)]
    rows = [
        Embedding(clip_id=i, clip_sha256=i, session_id="s", model="clip", flat=False, embedding=v.tolist())
        for i, v in zip(ids, vectors, strict=True)
    ]
    with store.part_attempt("a" * 64) as part:
        pq.write_table(Embedding.of_width(24).to_table(rows), part.path / "embeddings.parquet")
        entry = part.commit(stage="embed_clips", kind="part").entry("0a")
    with store.attempt("b" * 64) as attempt:
        made = attempt.commit(stage="embed_clips", kind="embeddings", parts=[entry], config=config.resolved())
    with store.part_attempt("c" * 64) as part:
        same = {
            "clip_sha256": ids,
            "caption": ["a blue box"] * 6,
            "source": ids,
            "split": ["train"] * 6,
            "shard": ["x.tar"] * 6,
        }
        numbers = {name: [1.0] * 6 for name in ("start_seconds", "end_seconds", "fps")}
        sizes = {"width": [32] * 6, "height": [32] * 6, "kept": [True] * 6}
        pq.write_table(pa.table({"clip_id": ids, **same, **numbers, **sizes}), part.path / "clips.parquet")
        entry = part.commit(stage="write_shards", kind="part").entry("0a")
    with store.attempt("d" * 64) as attempt:
        attempt.commit(stage="write_shards", kind="dataset", inputs={"embeddings": made.key}, parts=[entry])
    store.promote("dataset", "curated", "d" * 64)

    def ask(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "--store", store.url])
        if done.exception is not None:
            raise done.exception
        return done.output

    found = json.loads(ask("search", "a red ball", "--json"))["hits"]
    cosines = vectors.astype(np.float32) @ TextTower(str(whole_clip), sha256)(["a red ball"])[0]
    assert [hit["clip_id"] for hit in found] == [ids[row] for row in np.argsort(-cosines)]
    assert [hit["cosine"] for hit in found] == pytest.approx(sorted(cosines.tolist(), reverse=True), abs=2e-3)
    assert "by looks" in ask("search", "a red ball")
    assert "by captions" in ask("search", "a red ball", "--by", "captions"), "the sentence encoder still does its part"
    assert "camera moves" in ask("taxonomy", "--by", "looks")
    moved = tmp_path / "moved"
    shutil.move(whole_clip, moved)
    with pytest.raises(ConfigError, match="no such file or folder"):
        ask("search", "a red ball")
    assert json.loads(ask("search", "a red ball", "--json", "--text-encoder", str(moved)))["hits"] == found
    (moved / "merges.txt").write_text("another")
    with pytest.raises(ConfigError, match="another space"):
        ask("search", "a red ball", "--text-encoder", str(moved))
