"""The caption cache: nothing twice, nothing half, nothing of another encoder."""

import logging

import pytest
import torch
from safetensors import safe_open

from wfm.models.text import CaptionCache, TextConfig, open_encoder
from wfm.models.text.encoders import FolderEncoder

CAPTIONS = ["a red ball", "the camera orbits", " a  red ball", "", "a red ball"]


class Counting:
    """An encoder that counts what it is asked."""

    def __init__(self, inner: FolderEncoder) -> None:
        self.inner, self.asked = inner, []
        self.identity, self.width, self.max_length = inner.identity, inner.width, inner.max_length

    def encode(self, captions, *, pad_to=0):
        self.asked.append(list(captions))
        return self.inner.encode(captions, pad_to=pad_to)


@pytest.fixture
def config(tiny_t5, tmp_path) -> TextConfig:
    return TextConfig(encoder="folder", folder=str(tiny_t5), cache=str(tmp_path / "cache"))


def opened(config: TextConfig) -> tuple[CaptionCache, Counting]:
    encoder = Counting(open_encoder(config))
    return CaptionCache(encoder, config), encoder


def test_equal_captions_are_encoded_once(config):
    cache, encoder = opened(config)
    made = cache.encode(CAPTIONS)
    assert encoder.asked == [["", "a red ball", "the camera orbits"]]
    assert made.captions == ("", "a red ball", "the camera orbits")
    assert made.lengths.tolist() == [1, 4, 4]
    direct, _ = encoder.inner.encode(["a red ball"])
    assert torch.allclose(made.embeddings[1:5], direct[0], atol=1e-5)


def test_another_process_finds_them_bit_for_bit(config):
    first = opened(config)[0].encode(CAPTIONS)
    cache, encoder = opened(config)
    again = cache.encode([*CAPTIONS, "a blue cube"])
    assert encoder.asked == [["a blue cube"]]
    assert (cache.encoded, cache.reused) == (1, 3)
    for caption, part in _by_caption(first).items():
        assert torch.equal(_by_caption(again)[caption], part)


def test_a_cache_that_is_open_sees_what_others_add(config):
    mine, encoder = opened(config)
    mine.encode(["a red ball"])
    opened(config)[0].encode(["the blue cube"])
    mine.encode(["the blue cube"])
    assert encoder.asked == [["a red ball"]]


def test_a_broken_pack_is_left_aside(config, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("wfm"), "propagate", True)
    wanted = opened(config)[0].encode(CAPTIONS)
    (pack,) = _packs(config)
    pack.write_bytes(pack.read_bytes()[:40])
    cache, encoder = opened(config)
    again = cache.encode(CAPTIONS)
    assert len(encoder.asked) == 1
    assert torch.equal(again.embeddings, wanted.embeddings)
    assert "cannot be read" in caplog.text
    assert len(_packs(config)) == 1, "the same captions take the broken pack's place"
    with safe_open(str(pack), framework="pt") as mended:
        assert len(mended.keys()) == 3


def test_length_encoder_and_dtype_do_not_mix(config):
    cut = config.model_copy(update={"max_length": 2})
    half = config.model_copy(update={"dtype": "bfloat16"})
    first, second, third = (opened(each)[0].encode(["a red ball"]) for each in (config, cut, half))
    assert (len(first.embeddings), len(second.embeddings)) == (4, 2)
    assert third.embeddings.dtype == torch.bfloat16
    assert torch.equal(third.embeddings, first.embeddings.bfloat16())
    assert opened(config)[0].key("x") != opened(cut)[0].key("x")
    assert opened(config)[0].key(" x\n") == opened(config)[0].key("x")


def test_without_a_folder_nothing_is_written(config, tmp_path):
    cache, _ = opened(config.model_copy(update={"cache": ""}))
    assert cache.encode(CAPTIONS).lengths.tolist() == [1, 4, 4]
    assert not (tmp_path / "cache").exists()
    assert cache.encode([]).embeddings.shape == (0, 24)


def _packs(config):
    from pathlib import Path

    return sorted(Path(config.cache).rglob("*.safetensors"))


def _by_caption(made):
    return dict(zip(made.captions, made.embeddings.split(made.lengths.tolist()), strict=True))
