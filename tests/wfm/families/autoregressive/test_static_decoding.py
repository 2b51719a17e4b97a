"""Steps of fixed shapes give the tokens of plain decoding, compiled once for all steps."""

import pytest
import torch

from wfm.errors import ConfigError, DataError
from wfm.families.autoregressive.build import transformer
from wfm.families.autoregressive.decoding import TopP, continue_tokens, greedy
from wfm.families.autoregressive.static_decoding import continue_tokens_static
from wfm.models.autoregressive import AutoregressiveConfig, AutoregressiveTransformer

SMALL = {
    "levels": (4, 3, 2), "dim": 24, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 12, "ffn_dim": 32, "action_width": 2,
    "action_hidden": 16, "temporal_compression": 4,
}  # fmt: skip


def build(dtype: torch.dtype = torch.float64, **more) -> AutoregressiveTransformer:
    torch.manual_seed(0)
    model = transformer(AutoregressiveConfig.parse({**SMALL, **more}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.to(dtype).eval()


PAST = torch.randint(0, 24, (2, 1, 4, 4), generator=torch.Generator().manual_seed(1))
ACTIONS = torch.randn(2, 9, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize(
    "more", [{}, {"vocabulary": "digits", "copy_bias": True}, {"absolute_embedding": True}], ids=str
)
def test_the_same_tokens(more):
    model = build(**more)
    for choose in (lambda: greedy, lambda: TopP([1, 2])):
        wanted = continue_tokens(model, {"past": PAST, "actions": ACTIONS}, frames=3, choose=choose())
        found = continue_tokens_static(model, {"past": PAST, "actions": ACTIONS}, frames=3, choose=choose())
        assert torch.equal(found, wanted)


def test_text_is_followed():
    model = build(text_embed_dim=5)
    text = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    told = {"past": PAST, "text": text, "text_lengths": torch.tensor([3, 2])}
    wanted = continue_tokens(model, told, frames=2, choose=greedy)
    assert torch.equal(continue_tokens_static(model, told, frames=2, choose=greedy), wanted)


def test_scores_that_are_no_numbers_are_refused():
    # Before: the largest of NaN was a token like any other.
    model = build()
    model.output.weight.data[3] = float("nan")
    with pytest.raises(DataError, match=r"logits: .* not finite"):
        continue_tokens_static(model, {"past": PAST, "actions": ACTIONS}, frames=3, choose=greedy)


def test_attention_is_the_core_s():
    # Before: past it, so that a core of another's making was not asked.
    model, asked = build(), []
    told = {"past": PAST, "actions": ACTIONS}
    plain = continue_tokens_static(model, told, frames=3, choose=greedy)
    for layer in model.layers:
        layer.attention.core.visible = lambda q, k, v, seen: asked.append(seen.sum()) or torch.zeros_like(q)
    assert not torch.equal(continue_tokens_static(model, told, frames=3, choose=greedy), plain)
    assert len(asked) == 2 * 47, "each layer at each position but the last"


@pytest.mark.long
def test_one_graph_serves_every_step():
    """Compiled with constant shapes, in one graph: a second shape would be a second compilation, which is refused here."""
    model = build(torch.float32, vocabulary="digits")
    torch._dynamo.reset()
    made = []

    def compiled(step):
        def backend(graph, examples):
            made.append(len(examples))
            return graph

        return torch.compile(step, backend=backend, fullgraph=True, dynamic=False)

    found = continue_tokens_static(
        model, {"past": PAST, "actions": ACTIONS.float()}, frames=3, choose=greedy, compiled=compiled
    )
    assert len(made) == 1
    assert torch.equal(
        found, continue_tokens(model, {"past": PAST, "actions": ACTIONS.float()}, frames=3, choose=greedy)
    )


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="static decoding is for raster order"):
        continue_tokens_static(build(order="frame"), {"past": PAST, "actions": ACTIONS}, frames=3, choose=greedy)
    with pytest.raises(ConfigError, match="at least 1 must be given"):
        continue_tokens_static(build(), {"past": PAST, "actions": ACTIONS}, frames=1, choose=greedy)
    with pytest.raises(DataError, match="token ids span"):
        continue_tokens_static(build(), {"past": PAST + 24, "actions": ACTIONS}, frames=3, choose=greedy)


def test_static_decoding_runs_under_autocast():
    """Before: "index_copy_(): self and source expected to have the same dtype"."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = continue_tokens_static(
            build().float(), {"past": PAST, "actions": ACTIONS.float()}, frames=3, choose=greedy
        )
    assert torch.equal(found[:, : PAST.shape[1]], PAST)
