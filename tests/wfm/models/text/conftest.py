"""A tiny T5 and its tokenizer, made on the spot: random weights, a vocabulary of a few words."""

import json
import re
from pathlib import Path

import pytest
import torch

WORDS = re.findall(r"\S+", "a red green blue cube ball slides rolls to the left right camera orbits slowly fast and .")


def write_tiny_t5(folder: Path, seed: int = 0) -> Path:
    """A T5 encoder of 2 layers, 24 wide, that ends every caption with </s> as the real one does."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(vocabulary), d_model=24, d_kv=6, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.1
    )
    T5EncoderModel(config).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "t5"
    return folder


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny T5."""
    return write_tiny_t5(tmp_path_factory.mktemp("t5"))
