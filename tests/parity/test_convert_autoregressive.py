"""Original autoregressive checkpoints there and back: bit by bit, with and without the prefix, and what is refused.

The published lists (`keys/ar-*.txt`) are met in `test_convert.py`, with those of the other families.
"""

import pytest
import torch
from safetensors.torch import load_file, save_file

from wfm.errors import ConfigError, DataError
from wfm.families.autoregressive.build import transformer
from wfm.models.autoregressive import AutoregressiveConfig, AutoregressiveTransformer
from wfm.models.convert import from_cosmos, to_cosmos

SMALL = {"levels": (4, 3, 2), "dim": 48, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 12, "ffn_dim": 40}
KINDS = {"plain": {}, "text": {"text_embed_dim": 10, "absolute_embedding": True, "begin_token": True}}


def make(**changes) -> AutoregressiveTransformer:
    torch.manual_seed(0)
    model = transformer(AutoregressiveConfig(**{**SMALL, **changes}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_gives_the_same_bits_and_logits(tmp_path, kind, prefix):
    model = make(**KINDS[kind])
    (written,) = to_cosmos(model, tmp_path / "model.safetensors")
    tensors = load_file(written)
    assert {
        "tok_embeddings.weight",
        "layers.1.attention.wq.weight",
        "layers.0.attention.k_norm.weight",
    } < tensors.keys()
    assert ("layers.0.cross_attention.wo.weight" in tensors) == (kind == "text")
    assert len(tensors["tok_embeddings.weight"]) == (64 if kind == "text" else 24)
    assert len(tensors["output.weight"]) == 24
    beside = {"layers.0.attention._extra_state": torch.zeros(1)}  # as the original's own have
    save_file({prefix + name: tensor for name, tensor in (tensors | beside).items()}, written)
    again = from_cosmos(written, model.config)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    tokens = torch.randint(0, 24, (2, 2, 3, 3), generator=torch.Generator().manual_seed(1))
    words = {"text": torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(2))} if kind == "text" else {}
    with torch.no_grad():
        assert torch.equal(again(tokens, words), model(tokens, words))


def test_queries_are_the_queries(tmp_path):
    """Two tensors of one shape that change places pass every check of names: the logits must show it."""
    model = make(kv_heads=4)
    (written,) = to_cosmos(model, tmp_path / "model.safetensors")
    tensors = load_file(written)
    assert torch.equal(tensors["layers.0.attention.wq.weight"], model.layers[0].attention.to_q.weight)
    assert torch.equal(tensors["layers.0.attention.wk.weight"], model.layers[0].attention.to_k.weight)
    assert torch.equal(tensors["layers.0.attention.q_norm.weight"], model.layers[0].attention.norm_q.weight)
    assert torch.equal(tensors["layers.1.attention.wv.weight"], model.layers[1].attention.to_v.weight)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("order", {"order": "frame"}),
        ("vocabulary", {"vocabulary": "digits"}),
        ("action_width", {"action_width": 2}),
        ("extrapolate", {"extrapolate": True}),
    ],
)
def test_what_the_original_cannot_express_is_refused(tmp_path, field, values):
    with pytest.raises(ConfigError, match=f"{field} is .* the original has no other than"):
        to_cosmos(make(**values), tmp_path)


def test_a_checkpoint_of_another_preset_is_refused(tmp_path):
    (written,) = to_cosmos(make(), tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"do not fit the model: .*Is it a checkpoint of ar-4b"):
        from_cosmos(written, "ar-4b")
    with pytest.raises(DataError, match=r"missing layers\.0\.cross_attention"):
        from_cosmos(written, make(text_embed_dim=10).config)
    with pytest.raises(DataError, match=r"tok_embeddings.weight is \[24, 48\], wanted \[64, 48\]"):
        from_cosmos(written, make(begin_token=True).config)
