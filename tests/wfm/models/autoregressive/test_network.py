import pytest
import torch
from torch.nn import functional

from wfm.errors import ConfigError
from wfm.families.autoregressive.build import transformer
from wfm.models.autoregressive import AutoregressiveConfig
from wfm.models.autoregressive.blocks import Segment
from wfm.models.autoregressive.pack import packed
from wfm.models.folder import load_model, save_model
from wfm.models.layers import DotProductAttention
from wfm.models.parallel_config import ParallelConfig
from wfm.models.parallelize import parallelize


def test_cached_decoding_equals_one_pass(build, sample, form) -> None:
    tokens, actions = sample
    model = build(**form)
    with torch.no_grad():
        whole = model(tokens, {"actions": actions})
        patches, stride = model.patchify(tokens), model.stride(4, 4)
        cache, condition = model.new_cache(2, 4, (4, 4)), model.condition({"actions": actions}, 2, 4)
        pieces = [
            model.step(patches[:, i : i + stride], condition, (4, 4), cache)
            for i in range(0, patches.shape[1] - stride, stride)
        ]
    assert torch.cat(pieces, dim=1).shape == whole.shape
    assert (torch.cat(pieces, dim=1) - whole).abs().max() < 1e-10  # seen: 7e-16


def test_cache_prefilled_with_several_frames_equals_one_pass(build, sample, form) -> None:
    tokens, actions = sample
    model = build(**form)
    places = model.patchify(tokens[:, :1]).shape[1]
    with torch.no_grad():
        whole = model(tokens, {"actions": actions})
        cache, condition = model.new_cache(2, 4, (4, 4)), model.condition({"actions": actions}, 2, 4)
        first = model.step(model.patchify(tokens[:, :2]), condition, (4, 4), cache)
    assert cache.length == 2 * places
    assert (first - whole[:, : 2 * places]).abs().max() < 1e-10


def test_a_prediction_depends_on_the_past_alone(build, sample, form) -> None:
    tokens, actions = sample
    model = build(**form)
    stride = model.stride(4, 4)
    with torch.no_grad():
        before = model(tokens, {"actions": actions})
        changed = tokens.clone()
        changed[:, 2, 1, 2] = (changed[:, 2, 1, 2] + 1) % 24
        after = model(changed, {"actions": actions})
    rows = ((before - after).abs().amax(dim=(0, 2, 3)) > 1e-12).nonzero().flatten()
    position = int((model.patchify(changed) != model.patchify(tokens)).any(dim=-1)[0].nonzero())
    assert rows.min() == position // stride * stride  # its own block at the earliest: nothing before the change moves
    assert rows.max() == before.shape[1] - 1


def test_what_a_row_scores_is_its_target(build, sample, form) -> None:
    tokens, actions = sample
    model = build(**form)
    targets = model.targets(tokens)
    assert targets.shape[:2] == model(tokens, {"actions": actions}).shape[:2]
    assert torch.equal(targets, model.patchify(tokens)[:, model.stride(4, 4) :])
    assert torch.equal(model.unpatchify(model.patchify(tokens), 4, 4), tokens)


def test_an_action_moves_the_frames_it_leads_to_and_later_ones(build, sample, form) -> None:
    tokens, actions = sample
    model = build(**form)
    other = actions.clone()
    other[:, 4:8] += 1.0  # leads to latent frame 2
    with torch.no_grad():
        change = (model(tokens, {"actions": actions}) - model(tokens, {"actions": other})).abs().amax(dim=(0, 2, 3))
    places = model.patchify(tokens[:, :1]).shape[1]
    predicted = (torch.arange(len(change)) + model.stride(4, 4)) // places  # latent frame that each row predicts
    assert change[predicted < 2].max() < 1e-12
    assert change[predicted == 2].min() > 1e-9


def test_the_null_action_is_learned_and_is_not_the_zero_action(build, sample) -> None:
    tokens, actions = sample
    model = build(order="frame")
    with torch.no_grad():
        none = model(tokens, None)
        assert not torch.allclose(none, model(tokens, {"actions": torch.zeros_like(actions)}))
        unknown = model(tokens, {"actions": actions}, {"action": torch.tensor([False, True])})
        assert torch.equal(unknown[0], none[0])
        assert torch.equal(unknown[1], model(tokens, {"actions": actions})[1])


def test_actions_of_another_width_are_refused(build, sample) -> None:
    tokens, actions = sample
    with pytest.raises(ConfigError, match="built for 3"):
        build()(tokens, {"actions": actions[..., :2]})


def test_the_copy_bias_scores_the_level_that_is_there(build, sample) -> None:
    tokens, _ = sample
    model = build(order="frame", vocabulary="digits", copy_bias=True)
    with torch.no_grad():
        for table in model.copy:
            table.copy_(1e3 * torch.eye(len(table)))
        logits = model(tokens)
    blocks = model.vocabulary.split(logits)
    extrapolated = model.vocabulary.ids(torch.stack([block.argmax(-1) for block in blocks], dim=-1))
    assert torch.equal(extrapolated, model.patchify(tokens)[:, :-16])


def test_attention_block_against_torch(build) -> None:
    """Grouped heads, QK-norm and the block mask against torch's own attention with an explicit mask."""
    model = build(order="frame", layers=1)
    block = model.layers[0]
    x = torch.randn(2, 12, 48, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rope = model._rope(model._places(torch.arange(12), 2, 4), torch.float64)
    q, k, v = (y.transpose(1, 2) for y in block.attention.project(block.attention_norm(x), rope=rope))
    frame = torch.arange(12) // 4
    wanted = functional.scaled_dot_product_attention(q, k, v, attn_mask=frame[:, None] >= frame, enable_gqa=True)
    wanted = x + block.attention.to_out[0](wanted.transpose(1, 2).flatten(2))
    wanted = wanted + block.feed_forward(block.ffn_norm(wanted))
    assert (block(x, rope, Segment(12, 4)) - wanted).abs().max() < 1e-10


def test_a_folder_brings_back_the_same_network(build, sample, tmp_path) -> None:
    model = build(torch.float32, order="frame", vocabulary="digits", patch=2, copy_bias=True)
    save_model(model, model.config, tmp_path)
    again, card = load_model(tmp_path)
    assert card.family == "autoregressive"
    assert card.config == model.config
    assert torch.equal(again(sample[0]), model(sample[0]))


def test_parameter_counts_of_cosmos() -> None:
    """The defaults are Cosmos's 4B model: 4,014,088,192 parameters, besides what embeds actions."""
    with torch.device("meta"):
        model = transformer(AutoregressiveConfig())
    total = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("action."))
    assert total == 4_014_088_192


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"heads": 4, "kv_heads": 3}, "kv_heads"),
        ({"head_dim": 5}, "head_dim"),
        ({"patch": 2}, "patch"),
        ({"copy_bias": True}, "copy_bias"),
        ({"levels": (8, 1)}, "levels"),
    ],
)
def test_configs_that_cannot_be_are_refused(changes, word) -> None:
    with pytest.raises(ConfigError, match=word):
        AutoregressiveConfig.parse(changes)


@torch.no_grad()
def test_a_pack_equals_its_videos_one_by_one(build, form) -> None:
    """Videos of other lengths and sizes, with and without actions, guesses and text; nothing of one is seen by another."""
    model = build(**form, extrapolate=True, text_embed_dim=5)
    generator = torch.Generator().manual_seed(3)
    sizes = [(3, 4, 4), (2, 2, 6), (4, 2, 2), (3, 4, 4)]
    tokens, extrapolated = ([torch.randint(0, 24, size, generator=generator) for size in sizes] for _ in range(2))
    actions = [torch.randn(1 + 4 * (t - 1), 3, generator=generator, dtype=torch.float64) for t, _, _ in sizes]
    text = torch.randn(4, 6, 5, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([6, 1, 3, 4])
    told = [
        {"actions": actions[i], "extrapolated": extrapolated[i], "text": text[i], "text_lengths": lengths[i]}
        for i in range(4)
    ]
    for i, out in enumerate(packed(model, tokens, told)):
        alone = model(tokens[i][None], {name: x[None] for name, x in told[i].items()})
        assert (out - alone[0]).abs().max() < 1e-10 * alone.abs().max()
    plain = build(**form)
    assert (packed(plain, tokens[:1])[0] - plain(tokens[0][None])[0]).abs().max() < 1e-10


def test_checkpointed_gradients_are_the_plain_ones(build, form, sample) -> None:
    tokens, actions = sample
    gradients = []
    for kind in ("none", "full"):
        model = build(**form)
        parallelize(model.layers, ParallelConfig(activation_checkpointing=kind))
        model(tokens, {"actions": actions}).square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_medusa_heads_share_the_output_and_start_as_the_model(build, sample) -> None:
    torch.manual_seed(0)
    model = transformer(build(medusa_heads=2).config).double()
    told = (sample[0], {"actions": sample[1]})
    logits, drafts = model.with_drafts(*told)
    assert drafts.shape == (2, 63, 2, 1, 24)
    assert torch.allclose(drafts[:, :, 0], logits)
    assert model.with_drafts(*told)[0].shape == model(*told).shape
    plain, none = build().with_drafts(*told)
    assert none is None
    assert plain.shape == logits.shape


def test_what_is_empty_ends_in_an_error_or_in_nothing(build, form):
    """Before: ZeroDivisionError for frames without rows, torch.cat's error for no videos, SIGFPE in a pack for a video of one
    block, which has nothing to predict."""
    model, tokens = build(**form), torch.zeros(1, 2, 4, 4, dtype=torch.int64)
    with pytest.raises(ConfigError, match="0 x 4 do not divide"):
        model(tokens[:, :, :0])
    with pytest.raises(ConfigError, match="an empty pack"):
        packed(model, [])
    with torch.no_grad():
        single = tokens[0, :1] if model.stride(4, 4) > 1 else tokens[0, :1, :1, :1]
        nothing, found = packed(model, [single, tokens[0]])
        assert nothing.shape[0] == 0
        assert (found - model(tokens)[0]).abs().max() < 1e-10
        assert model(tokens[:0]).shape[0] == 0


class Other(torch.nn.Module):
    """A core that knows its one call alone."""

    def __init__(self, core):
        super().__init__()
        self.call = core.forward

    def forward(self, *given, **more):
        return self.call(*given, **more)


def test_a_core_of_another_make_is_asked_block_by_block(build, sample):
    """The same numbers, forward and backward."""
    model, made = build(order="frame"), []
    for own in (True, False):
        for layer in model.layers:
            core = DotProductAttention()
            layer.attention.core = core if own else Other(core)
        out = model(sample[0], {"actions": sample[1]})
        made.append([out.detach(), *torch.autograd.grad(out.square().sum(), list(model.layers.parameters()))])
    assert all((one - other).abs().max() < 1e-9 for one, other in zip(*made, strict=True))
