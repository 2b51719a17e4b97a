"""Medusa decoding: the tokens of greedy decoding, in fewer passes where the heads know something."""

import pytest
import torch

from wfm.errors import ConfigError
from wfm.families.autoregressive.build import transformer
from wfm.families.autoregressive.decoding import continue_tokens, greedy
from wfm.families.autoregressive.medusa import continue_with_drafts
from wfm.models.autoregressive import AutoregressiveConfig, AutoregressiveTransformer

SMALL = {
    "levels": (4, 3, 2), "dim": 24, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 12, "ffn_dim": 32, "action_width": 2,
    "action_hidden": 16, "temporal_compression": 4, "order": "raster",
}  # fmt: skip


def build(seed: int, **more) -> AutoregressiveTransformer:
    torch.manual_seed(seed)
    model = transformer(AutoregressiveConfig.parse({**SMALL, "medusa_heads": 3, **more})).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def given(seed: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    actions = torch.randn(batch, 9, 2, generator=generator, dtype=torch.float64)
    return torch.randint(0, 24, (batch, 1, 4, 4), generator=generator), actions


@pytest.mark.parametrize("more", [{}, {"vocabulary": "digits"}, {"vocabulary": "digits", "copy_bias": True}], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_same_tokens_as_greedy(more, batch):
    for seed in range(6):
        model, (past, actions) = build(seed, **more), given(seed, batch)
        wanted = continue_tokens(model, {"past": past, "actions": actions}, frames=3, choose=greedy)
        found = continue_with_drafts(model, {"past": past, "actions": actions}, frames=3)
        assert torch.equal(found.tokens, wanted)
        assert found.passes <= 32


def test_ties_fall_as_they_do_in_greedy_decoding():
    """Scores that are all equal: the lowest id everywhere, in as few passes as the heads allow."""
    model, (past, actions) = build(0), given(0, 2)
    torch.nn.init.zeros_(model.output.weight)
    found = continue_with_drafts(model, {"past": past, "actions": actions}, frames=3)
    assert torch.equal(
        found.tokens, continue_tokens(model, {"past": past, "actions": actions}, frames=3, choose=greedy)
    )
    assert found.tokens[:, 1:].max() == 0
    assert found.passes == 1 + -(-31 // 4)  # one token from the first pass, four from each that follows


def test_a_guess_is_seen_where_it_belongs():
    model, (past, actions) = build(4, vocabulary="digits", copy_bias=True, extrapolate=True), given(4, 2)
    extrapolated = torch.randint(0, 24, (2, 3, 4, 4), generator=torch.Generator().manual_seed(9))
    wanted = continue_tokens(
        model, {"past": past, "actions": actions, "extrapolated": extrapolated}, frames=3, choose=greedy
    )
    assert torch.equal(
        continue_with_drafts(model, {"past": past, "actions": actions, "extrapolated": extrapolated}, frames=3).tokens,
        wanted,
    )
    other = continue_with_drafts(
        model, {"past": past, "actions": actions, "extrapolated": extrapolated.flip(1)}, frames=3
    ).tokens
    assert not torch.equal(other, wanted)


def test_sequences_share_what_is_kept():
    """Heads that know everything of one sequence and nothing of another: together they are as slow as the other."""
    model, (past, actions) = build(1), given(1, 2)
    alone = [
        continue_with_drafts(model, {"past": past[i : i + 1], "actions": actions[i : i + 1]}, frames=3).passes
        for i in range(2)
    ]
    assert continue_with_drafts(model, {"past": past, "actions": actions}, frames=3).passes >= max(alone)


def test_wrong_use_is_refused():
    past, actions = given(0, 1)
    with pytest.raises(ConfigError, match="no Medusa heads"):
        continue_with_drafts(build(0, medusa_heads=0), {"past": past, "actions": actions}, frames=3)
    with pytest.raises(ConfigError, match="1 predicted"):
        continue_with_drafts(build(0), {"past": past, "actions": actions}, frames=1)
    with pytest.raises(ConfigError, match='need order="raster"'):
        AutoregressiveConfig.parse({**SMALL, "order": "frame", "medusa_heads": 2})
