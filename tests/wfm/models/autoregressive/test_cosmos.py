"""What only the published models have: stretched frequencies, fixed sinusoids, text; their sizes; and what is refused."""

import json
import math

import pytest
import torch

from wfm.errors import ConfigError, DataError
from wfm.families.autoregressive.build import transformer
from wfm.families.autoregressive.decoding import continue_tokens, greedy
from wfm.families.autoregressive.medusa import continue_with_drafts
from wfm.families.autoregressive.static_decoding import continue_tokens_static
from wfm.models.autoregressive import AutoregressiveConfig, AutoregressiveTransformer
from wfm.models.autoregressive.config import YarnConfig
from wfm.models.autoregressive.pack import packed
from wfm.models.folder import load_model, save_model
from wfm.models.rotary import Yarn, rope_3d, sinusoids_3d

PUBLISHED = {"4b": 4_014_088_192, "5b": 4_584_845_312, "12b": 11_560_975_360, "13b": 13_323_125_760}
ALL = {
    "text_embed_dim": 10,
    "absolute_embedding": True,
    "yarn": {"original_shape": (2, 2, 3), "beta_fast": 1.0, "beta_slow": 0.2},
}
RASTER = {"order": "raster", "vocabulary": "flat"}


def text(batch: int = 2, length: int = 5) -> torch.Tensor:
    return torch.randn(batch, length, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_counts_are_the_published_ones(name, count):
    with torch.device("meta"):
        model = transformer(AutoregressiveConfig.cosmos(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_what_tells_the_published_models_apart():
    found = {name: AutoregressiveConfig.cosmos(name) for name in PUBLISHED}
    assert [name for name, config in found.items() if config.yarn] == ["12b"]
    assert [name for name, config in found.items() if config.absolute_embedding and config.text_embed_dim == 1024] == [
        "5b",
        "13b",
    ]


def plain_angles(place: tuple[int, int, int], head_dim: int, theta: float, yarn: YarnConfig | None) -> list[float]:
    """Angle of every pair, number by number, in Python floats."""
    space = head_dim // 6 * 2
    angles = []
    for axis, dim in enumerate((head_dim - 2 * space, space, space)):
        for i in range(0, dim, 2):
            frequency = theta ** (-i / dim)
            if yarn is not None:
                turns = frequency * yarn.original_shape[min(axis, 1)] / (2 * math.pi)
                kept = min(max((turns - yarn.beta_slow) / (yarn.beta_fast - yarn.beta_slow), 0.0), 1.0)
                frequency *= (1 - kept) / yarn.scale + kept
            angles.append(place[axis] * frequency)
    return angles


@pytest.mark.parametrize("head_dim", [12, 24, 128])
@pytest.mark.parametrize(
    "yarn", [None, YarnConfig(), YarnConfig(original_shape=(7, 30, 9), beta_fast=2.0, beta_slow=0.1, scale=3.0)]
)
def test_rotary_tables_are_those_of_a_plain_twin(head_dim, yarn):
    places = [(0, 0, 0), (4, 39, 63), (1, 7, 2), (11, 3, 50)]
    frames, rows, _ = yarn.original_shape if yarn else (1, 1, 1)
    given = Yarn((frames, rows, rows), yarn.beta_fast, yarn.beta_slow, yarn.scale) if yarn else None
    rope = rope_3d(torch.tensor(places), head_dim, theta=5e5, yarn=given, dtype=torch.float64)
    angles = torch.tensor([plain_angles(place, head_dim, 5e5, yarn) for place in places], dtype=torch.float64)
    assert (rope.cos - angles.cos()).abs().max() < 1e-13  # seen: below 1e-14
    assert (rope.sin - angles.sin()).abs().max() < 1e-13
    if yarn is not None:
        assert not torch.allclose(rope.cos, rope_3d(torch.tensor(places), head_dim, theta=5e5, dtype=torch.float64).cos)


def test_sinusoids_are_those_of_a_plain_twin():
    dim, places = 22, [(0, 0, 0), (3, 5, 1), (2, 39, 63)]
    wanted = []
    for place in places:
        row = []
        for axis, size in enumerate((10, 6, 6)):
            angles = [place[axis] / 10000 ** (2 * i / size) for i in range(size // 2)]
            row += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        wanted.append(row)
    found = sinusoids_3d(torch.tensor(places), dim, dtype=torch.float64)
    assert (found - torch.tensor(wanted, dtype=torch.float64)).abs().max() < 1e-13
    with pytest.raises(ConfigError, match="cannot be split"):
        sinusoids_3d(torch.tensor(places), 4)


@pytest.mark.parametrize(
    "change",
    [{"text_embed_dim": 10}, {"absolute_embedding": True}, {"yarn": ALL["yarn"]}, ALL],
    ids=lambda c: "+".join(c),
)
def test_cached_decoding_equals_one_pass(build, sample, form, change):
    tokens, actions = sample
    model = build(**form, **change)
    words = {"text": text()} if model.config.text_embed_dim else {}
    with torch.no_grad():
        whole = model(tokens, {"actions": actions, **words})
        patches, stride = model.patchify(tokens), model.stride(4, 4)
        told, condition, cache = (
            model.prepare_contexts(words, batch=2),
            model.condition({"actions": actions}, 2, 4),
            model.new_cache(2, 4, (4, 4)),
        )
        pieces = [
            model.step(patches[:, i : i + stride], condition, (4, 4), cache, contexts=told)
            for i in range(0, patches.shape[1] - stride, stride)
        ]
        without = build(**form)
        plain = AutoregressiveTransformer.forward(without, tokens, {"actions": actions})
    assert (torch.cat(pieces, dim=1) - whole).abs().max() < 1e-10  # seen: 4e-15
    assert not torch.allclose(whole, plain)


def test_text_is_seen_as_far_as_its_length_and_zeros_are_none(build, sample):
    tokens, actions = sample
    model, words = build(**RASTER, text_embed_dim=10), text()
    lengths = torch.tensor([2, 5])
    with torch.no_grad():
        both = model(tokens, {"actions": actions, "text": words, "text_lengths": lengths})
        apart = [
            model(tokens[i : i + 1], {"actions": actions[i : i + 1], "text": words[i : i + 1, : lengths[i]]})
            for i in range(2)
        ]
        assert (both - torch.cat(apart)).abs().max() < 1e-12
        other = words.clone()
        other[0, 2:] = 7.0  # past the end
        assert torch.equal(model(tokens, {"actions": actions, "text": other, "text_lengths": lengths}), both)
        assert not torch.allclose(model(tokens, {"actions": actions, "text": words}), both)
        assert (
            model(tokens, {"actions": actions, "text": torch.zeros_like(words)}) - model(tokens, {"actions": actions})
        ).abs().max() < 1e-12


def test_cross_attention_is_torchs(build, sample):
    """One layer, the published order of things, against plain torch."""
    model = build(**RASTER, text_embed_dim=10)
    block, words = model.layers[0], text(1)
    cross, x = block.cross_attention, torch.randn(1, 6, 48, dtype=torch.float64)
    norm = torch.nn.functional.rms_norm

    def heads(y, count, gain=None):
        y = y.unflatten(-1, (count, 12)).transpose(1, 2)
        return y if gain is None else norm(y, (12,), gain, 1e-5)

    normed = norm(x, (48,), block.cross_attention_norm.weight, 1e-5)
    q = heads(normed @ cross.to_q.weight.T, 4, cross.norm_q.weight)
    k, v = heads(words @ cross.to_k.weight.T, 2, cross.norm_k.weight), heads(words @ cross.to_v.weight.T, 2)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2)
    wanted = out @ cross.to_out[0].weight.T
    told = model.prepare_contexts({"text": words}, batch=1)[0]["text"]
    found = cross.attend(
        cross.project_queries(block.cross_attention_norm(x)), told.keys, told.values, kv_segments=told.lengths
    )
    assert (found - wanted).abs().max() < 1e-12 * wanted.abs().max()


def test_a_cache_is_cut_back_and_goes_on_as_if_nothing_had_been(build, sample):
    tokens, actions = sample
    model = build(**RASTER)
    patches, condition = model.patchify(tokens), model.condition({"actions": actions}, 2, 4)
    with torch.no_grad():
        cache = model.new_cache(2, 4, (4, 4))
        model.step(patches[:, :20], condition, (4, 4), cache)
        straight = model.step(patches[:, 20:30], condition, (4, 4), cache)
        cache.truncate(20)
        assert cache.length == 20
        assert torch.equal(model.step(patches[:, 20:30], condition, (4, 4), cache), straight)
    with pytest.raises(ConfigError, match="cannot be cut to 31"):
        cache.truncate(31)


def test_what_does_not_fit_is_refused(build, sample, form):
    tokens, actions = sample
    model = build(**form)
    patches, stride, condition = model.patchify(tokens), model.stride(4, 4), model.condition({"actions": actions}, 2, 4)
    with pytest.raises(ConfigError, match="this model and batch need"):
        model.step(patches[:, :stride], condition, (4, 4), model.new_cache(1, 4, (4, 4)))
    with pytest.raises(ConfigError, match="this model and batch need"):
        model.step(patches[:, :stride], condition, (4, 4), build(**form, layers=4).new_cache(2, 4, (4, 4)))
    if stride > 1:
        with pytest.raises(ConfigError, match="give whole latent frames"):
            model.step(patches[:, : stride - 1], condition, (4, 4))
    short = build(**form, context_positions=2 * stride if stride > 1 else 32)
    with pytest.raises(ConfigError, match="more than this model's context of"):
        continue_tokens(short, {"past": tokens[:, :1], "actions": actions}, frames=4, choose=greedy)
    with pytest.raises(ConfigError, match=r"text \[2, 5, 10\] given, and this model takes none"):
        model(tokens, {"actions": actions, "text": text()})


@pytest.mark.parametrize(
    ("words", "lengths", "says"),
    [
        (torch.zeros(2, 5, 9), None, r"wanted \[2, 1 or more, 10\]"),
        (torch.zeros(1, 5, 10), None, r"wanted \[2"),
        (torch.zeros(2, 0, 10), None, "1 or more"),
        (torch.zeros(2, 5, 10), torch.tensor([0, 5]), "from 1 to 5"),
        (torch.zeros(2, 5, 10), torch.tensor([3]), "give 2 numbers"),
    ],
)
def test_text_that_does_not_fit_is_refused(build, words, lengths, says):
    told = {"text": words} | ({} if lengths is None else {"text_lengths": lengths})
    with pytest.raises(ConfigError, match=says):
        build(**RASTER, text_embed_dim=10).prepare_contexts(told, batch=2)


@pytest.mark.parametrize("values", [{"beta_fast": 0.5}, {"original_shape": (0, 40, 64)}])
def test_a_stretch_that_makes_no_sense_is_refused(values):
    with pytest.raises(ConfigError, match=r"beta_fast|original_shape"):
        YarnConfig.parse(values)


# The token that sequences begin with

BEGINS = {**RASTER, "begin_token": True, "absolute_embedding": True, "text_embed_dim": 10}


def test_the_table_has_rows_for_the_token_to_begin_with_and_the_output_has_none(build):
    """Before: 64,000 rows in both, so that a published checkpoint of the 5B or 13B did not fit."""
    found = {}
    for name in PUBLISHED:
        with torch.device("meta"):
            model = transformer(AutoregressiveConfig.cosmos(name))
        found[name] = (len(model.tok_embeddings.weight), len(model.output.weight), model.vocabulary.begin)
    plain, begins = (64_000, 64_000, None), (64_064, 64_000, 64_000)
    assert found == {"4b": plain, "5b": begins, "12b": plain, "13b": begins}
    assert [len(build(**BEGINS, levels=levels).tok_embeddings.weight) for levels in ((3, 3), (8, 8), (13, 5))] == [
        64,
        128,
        128,
    ]


def by_hand(model, tokens, actions, words):
    """Logits of every token of one video, with the rotary angles and sinusoids of each place written out."""
    config, norm = model.config, torch.nn.functional.rms_norm
    ids = tokens.flatten().tolist()
    rows = [model.tok_embeddings.weight[24], *(model.tok_embeddings.weight[i] for i in ids[:-1])]
    grid = torch.cartesian_prod(*map(torch.arange, tokens.shape))[:-1]
    fixed = torch.cat(
        [torch.zeros(1, config.dim, dtype=torch.float64), sinusoids_3d(grid, config.dim, dtype=torch.float64)]
    )
    angles = [[0.0] * (config.head_dim // 2)] + [
        plain_angles(place, config.head_dim, config.rope_theta, None) for place in grid.tolist()
    ]
    angles = torch.tensor(angles, dtype=torch.float64)[:, None]  # no rotation of the first
    x = torch.stack(rows) + model.condition({"actions": actions}, 1, len(tokens))[0].repeat_interleave(
        tokens[0].numel(), 0
    )

    def heads(y, count, gain=None, turned=False):
        y = y.unflatten(-1, (count, config.head_dim))
        y = y if gain is None else norm(y, (config.head_dim,), gain, config.norm_eps)
        a, b = y.chunk(2, dim=-1)
        return (
            torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1) if turned else y
        )

    def attend(part, y, context, causal):
        q = heads(y @ part.to_q.weight.T, config.heads, part.norm_q.weight, causal)
        k = heads(context @ part.to_k.weight.T, config.kv_heads, part.norm_k.weight, causal)
        v = heads(context @ part.to_v.weight.T, config.kv_heads)
        q, k, v = (z.transpose(0, 1) for z in (q, k, v))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
        return out.transpose(0, 1).flatten(1) @ part.to_out[0].weight.T

    for block in model.layers:
        x = x + fixed
        y = norm(x, (config.dim,), block.attention_norm.weight, config.norm_eps)
        x = x + attend(block.attention, y, y, True)
        y = norm(x, (config.dim,), block.cross_attention_norm.weight, config.norm_eps)
        x = x + attend(block.cross_attention, y, words, False)
        y = norm(x, (config.dim,), block.ffn_norm.weight, config.norm_eps)
        f = block.feed_forward
        x = x + (torch.nn.functional.silu(y @ f.w1.weight.T) * (y @ f.w3.weight.T)) @ f.w2.weight.T
    return norm(x, (config.dim,), model.norm.weight, config.norm_eps) @ model.output.weight.T


def test_every_sequence_begins_with_a_token_of_its_own(build, sample):
    """Row k scores token k, the first from the token to begin with alone; places shift by none."""
    (tokens, actions), model = sample, build(**BEGINS)
    with torch.no_grad():
        found = model(tokens, {"actions": actions, "text": text()})
        assert found.shape == (2, 64, 1, 24)
        assert torch.equal(model.targets(tokens)[..., 0], tokens.flatten(1))
        for i in range(2):
            assert (
                found[i, :, 0] - by_hand(model, tokens[i], actions[i : i + 1], text()[i])
            ).abs().max() < 1e-10  # seen: 2e-14
        other = (tokens + 1) % 24
        assert torch.equal(model(other, {"actions": actions, "text": text()})[:, 0], found[:, 0])
        assert not torch.allclose(model(other, {"actions": actions, "text": text()})[:, 1], found[:, 1])
        one_by_one = packed(
            model, list(tokens), [{"actions": a, "text": t} for a, t in zip(actions, text(), strict=True)]
        )
        assert (torch.stack(one_by_one) - found).abs().max() < 1e-10
    model.tok_embeddings.weight.grad = None
    model(tokens, {"actions": actions, "text": text()}).square().sum().backward()
    reached = model.tok_embeddings.weight.grad.abs().amax(dim=1) > 0
    assert reached[24]
    assert not reached[25:].any()


@pytest.mark.parametrize("use_cache", [True, False])
def test_decoding_begins_with_the_token_too(build, sample, use_cache):
    """Greedy: each chosen token is the best scored of one whole pass over the result; all three ways agree."""
    (tokens, actions), words = sample, text()
    model = build(**BEGINS, medusa_heads=2)
    how, told = {"frames": 4}, {"past": tokens[:, :2], "actions": actions, "text": words}
    found = continue_tokens(model, told, choose=greedy, use_cache=use_cache, **how)
    assert torch.equal(found[:, :2], tokens[:, :2])
    with torch.no_grad():
        best = model(found, {"actions": actions, "text": words})[:, :, 0].argmax(-1)
    assert torch.equal(best[:, 32:], found.flatten(1)[:, 32:])
    assert torch.equal(continue_tokens_static(model, told, choose=greedy, **how), found)
    assert torch.equal(continue_with_drafts(model, told, **how).tokens, found)
    assert not torch.equal(
        continue_tokens(build(**{**BEGINS, "begin_token": False}), told, choose=greedy, **how), found
    )


def test_the_context_counts_video_tokens_alone(build, sample):
    (tokens, actions), words = sample, text()
    continue_tokens(
        build(**BEGINS, context_positions=64),
        {"past": tokens[:, :1], "actions": actions, "text": words},
        frames=4,
        choose=greedy,
    )
    with pytest.raises(ConfigError, match=r"64 positions, more than this model.s context of 63: continue to 3 at most"):
        continue_tokens(
            build(**BEGINS, context_positions=63),
            {"past": tokens[:, :1], "actions": actions, "text": words},
            frames=4,
            choose=greedy,
        )


def test_the_token_to_begin_with_is_none_of_a_video(build, sample):
    (tokens, actions), model = sample, build(**BEGINS)
    tokens = tokens.clone()
    tokens[0, 1, 2, 3] = 24
    for given in (
        lambda: model(tokens, {"actions": actions}),
        lambda: continue_tokens(model, {"past": tokens[:, :2], "actions": actions}, frames=4, choose=greedy),
    ):
        with pytest.raises(DataError, match=r"token ids span 0\.\.24"):
            given()
    with pytest.raises(DataError, match="begin with token 24: put it in front"):
        model.step(model.patchify(sample[0]), model.condition({"actions": actions}, 2, 4), (4, 4))
    for values in ({"order": "frame"}, {"vocabulary": "digits"}, {"extrapolate": True}):
        with pytest.raises(ConfigError, match="begin_token=True with"):
            AutoregressiveConfig.parse({**RASTER, "begin_token": True, **values})


def test_a_model_saved_before_opens_as_it_was(build, sample, tmp_path):
    """Its card says nothing of a token to begin with; and without one nothing is said of it in a key."""
    model = build(**RASTER, text_embed_dim=10, absolute_embedding=True)
    save_model(model, model.config, tmp_path)
    card = json.loads((tmp_path / "config.json").read_text())
    assert card["config"].pop("begin_token") is False
    (tmp_path / "config.json").write_text(json.dumps(card))
    again, _ = load_model(tmp_path, dtype="saved")
    with torch.no_grad():
        assert torch.equal(again(sample[0], {"text": text()}), model(sample[0], {"text": text()}))
    assert "begin_token" not in model.config.what()
    assert AutoregressiveConfig(begin_token=True).what()["begin_token"] is True


def test_a_video_of_no_frames_adds_nothing_to_a_pack(build, sample):
    # As without the token to begin with; there it was an IndexError at first, "index 0 is out of bounds for dimension 1".
    tokens, actions = sample
    model = build(**BEGINS)
    words = torch.randn(2, 3, 10, dtype=torch.float64)
    told = [{"actions": actions[0], "text": words[0]}, {"actions": actions[0, :0], "text": words[1]}]
    one, none = packed(model, [tokens[0], tokens[0, :0]], told)
    assert none.shape == (0, 1, 24)
    assert torch.allclose(one, packed(model, tokens[:1], told[:1])[0])
    with_text, without = packed(model, [tokens[0], tokens[0]], [told[0], {}])  # some have it, some have not
    assert torch.allclose(with_text, one)
    assert torch.allclose(without, model(tokens[:1])[0])
