"""Shared layers: against torch's own, against invariances, and for what their options claim."""

import pytest
import torch

from wfm.errors import ConfigError
from wfm.models.layers import (
    AdaLayerNormLoRA,
    Attention,
    FeedForward,
    LearnablePositions,
    RMSNorm,
    TimestepEmbedding,
)
from wfm.models.rotary import apply_rope, grid_positions, rope_3d


def test_rms_norm_equals_torch():
    x = torch.randn(3, 5, 16)
    mine, theirs = RMSNorm(16, eps=1e-6), torch.nn.RMSNorm(16, eps=1e-6)
    gain = torch.rand(16)
    mine.weight.data.copy_(gain)
    theirs.weight.data.copy_(gain)
    assert torch.allclose(mine(x), theirs(x), atol=1e-6)


def test_rope_scores_depend_on_relative_position_only():
    head = 12
    q, k = torch.randn(head), torch.randn(head)

    def score(a, b):
        rope = rope_3d(torch.tensor([a, b], dtype=torch.float64), head)
        turned = apply_rope(torch.stack([q, k])[None, :, None], rope)[0, :, 0]
        return float(turned[0] @ turned[1])

    assert score([1, 2, 3], [2, 0, 1]) == pytest.approx(score([5, 7, 4], [6, 5, 2]), abs=1e-5)
    assert score([1, 2, 3], [2, 0, 1]) != pytest.approx(score([1, 2, 3], [2, 1, 1]), abs=1e-5)


def test_rope_axes_have_their_own_channels():
    cos, sin = rope_3d(grid_positions((2, 2, 2)), 24)
    assert cos.shape == sin.shape == (8, 12)
    moved = [sin[place] != sin[0] for place in (4, 2, 1)]  # one step in t, h, w
    assert [m.nonzero().flatten().tolist() for m in moved] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_rope_ratio_slows_its_axis():
    plain, slow = (rope_3d(grid_positions((3, 1, 1)), 24, ratio=(r, 1.0, 1.0))[1] for r in (1.0, 2.0))
    assert slow[1, 1] < plain[1, 1]


def test_rope_refuses_a_head_it_cannot_split():
    with pytest.raises(ConfigError, match="head_dim"):
        rope_3d(grid_positions((1, 1, 1)), 4)


def test_time_scale_is_applied_to_time_only():
    positions = grid_positions((2, 1, 2), time_scale=0.5)
    assert positions.tolist() == [[0, 0, 0], [0, 0, 1], [0.5, 0, 0], [0.5, 0, 1]]


def test_grouped_heads_equal_repeated_ones():
    torch.manual_seed(0)
    grouped, full = Attention(32, 4, num_kv_heads=2), Attention(32, 4)
    state = grouped.state_dict()
    for name in ("to_k.weight", "to_v.weight"):
        state[name] = state[name].unflatten(0, (2, 8)).repeat_interleave(2, dim=0).flatten(0, 1)
    full.load_state_dict(state)
    x = torch.randn(2, 5, 32)
    assert torch.allclose(grouped(x), full(x), atol=1e-6)


def test_attention_masks_and_context():
    torch.manual_seed(0)
    layer = Attention(24, 2, context_dim=10)
    out = layer(torch.randn(2, 5, 24), context=torch.randn(2, 3, 10))
    assert out.shape == (2, 5, 24)
    causal = Attention(24, 2)
    x = torch.randn(1, 6, 24)
    y = x.clone()
    y[:, -1] += 1
    assert torch.equal(causal(x, mask="causal")[:, :5], causal(y, mask="causal")[:, :5])
    assert not torch.allclose(causal(x)[:, :5], causal(y)[:, :5])


def test_names_are_those_of_published_weights():
    assert set(Attention(24, 2).state_dict()) == {
        "to_q.weight", "to_k.weight", "to_v.weight", "norm_q.weight", "norm_k.weight", "to_out.0.weight"
    }  # fmt: skip
    assert set(FeedForward(8).state_dict()) == {"net.0.proj.weight", "net.2.weight"}
    assert set(AdaLayerNormLoRA(8, 2).state_dict()) == {"linear_1.weight", "linear_2.weight"}
    assert set(TimestepEmbedding(8).state_dict()) == {
        "t_embedder.linear_1.weight", "t_embedder.linear_2.weight", "norm.weight"
    }  # fmt: skip


def test_adaptive_norm_modulates_each_frame_alone():
    torch.manual_seed(0)
    norm = AdaLayerNormLoRA(8, 4)
    x, embedding, lora = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 8), torch.randn(1, 2, 24)
    out, gate = norm(x, embedding, lora)
    changed = embedding.clone()
    changed[:, 1] += 1
    out2, gate2 = norm(x, changed, lora)
    assert torch.equal(out[:, 0], out2[:, 0])
    assert not torch.equal(out[:, 1], out2[:, 1])
    assert not torch.equal(gate[:, 1], gate2[:, 1])
    assert norm.modulation(embedding, lora)[0].shape == (1, 2, 8)


def test_learned_positions_are_normalised_and_bounded():
    positions = LearnablePositions((4, 2, 2), 16)
    torch.nn.init.normal_(positions.pos_emb_t)
    out = positions((3, 2, 2))
    assert out.shape == (12, 16)
    assert torch.allclose(out.square().mean(-1), torch.ones(12), atol=1e-4)
    with pytest.raises(ConfigError, match="max_size"):
        positions((5, 2, 2))


@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("queries", [0, 1, 3])
@pytest.mark.parametrize("given", [0, 2])
def test_attention_takes_empty_inputs(batch, queries, given):
    """Before: SIGFPE for a context without tokens, torch's reshape error for the others."""
    torch.manual_seed(0)
    cross = Attention(24, 2, num_kv_heads=1, head_dim=12, context_dim=10)
    x = torch.randn(batch, queries, 24, requires_grad=True)
    out = cross(x, context=torch.randn(batch, given, 10))
    assert out.shape == (batch, queries, 24)
    assert bool(out.any()) == bool(batch and queries and given)
    out.sum().backward()
    assert x.grad.isfinite().all()
    itself = Attention(24, 2, num_kv_heads=1, head_dim=12)
    assert itself(x, mask="causal").shape == (batch, queries, 24)
