import pytest
import torch

from wfm.errors import ConfigError
from wfm.families.autoregressive.build import transformer
from wfm.families.autoregressive.decoding import TopP, continue_tokens, expected, greedy
from wfm.families.autoregressive.static_decoding import continue_tokens_static
from wfm.models.autoregressive import AutoregressiveConfig, AutoregressiveTransformer
from wfm.models.autoregressive.pack import packed

FORMS = [
    {"order": "raster", "vocabulary": "flat"},
    {"order": "raster", "vocabulary": "digits"},
    {"order": "frame", "vocabulary": "digits", "patch": 2},
]


def build(**form) -> AutoregressiveTransformer:
    config = AutoregressiveConfig(
        levels=(4, 3, 2),
        dim=32,
        layers=2,
        heads=2,
        kv_heads=1,
        head_dim=12,
        ffn_dim=48,
        action_width=2,
        action_hidden=16,
        temporal_compression=4,
        **form,
    )
    torch.manual_seed(0)
    model = transformer(config).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def given() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randint(0, 24, (3, 2, 4, 4), generator=generator),
        torch.randn(3, 13, 2, generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_with_and_without_cache(form, given) -> None:
    past, actions = given
    model = build(**form)
    for choose in (lambda: greedy, lambda: TopP([1, 2, 3], top_p=0.9)):
        cached = continue_tokens(model, {"past": past, "actions": actions}, frames=4, choose=choose())
        plain = continue_tokens(model, {"past": past, "actions": actions}, frames=4, choose=choose(), use_cache=False)
        assert cached.shape == (3, 4, 4, 4)
        assert torch.equal(cached[:, :2], past)
        assert torch.equal(cached, plain)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_greedy_tokens_are_the_best_scored_ones(form, given) -> None:
    past, actions = given
    model = build(**form)
    tokens = continue_tokens(model, {"past": past, "actions": actions}, frames=4, choose=greedy)
    with torch.no_grad():
        logits = model(tokens, {"actions": actions})
    best = model.vocabulary.ids(torch.stack([block.argmax(-1) for block in model.vocabulary.split(logits)], dim=-1))
    predicted = 2 * best.shape[1] // 4 if form["order"] == "frame" else 32
    assert torch.equal(best[:, -predicted:], model.targets(tokens)[:, -predicted:])
    assert packed(model, tokens[:1])[0].shape == logits[0].shape  # decoding leaves the model as it was


def test_a_sequence_draws_from_its_own_seed(given) -> None:
    past, actions = given
    model = build(**FORMS[2])
    together = continue_tokens(model, {"past": past, "actions": actions}, frames=4, choose=TopP([5, 6, 7], top_p=1.0))
    alone = continue_tokens(model, {"past": past[1:2], "actions": actions[1:2]}, frames=4, choose=TopP([6], top_p=1.0))
    assert torch.equal(together[1], alone[0])
    other = continue_tokens(model, {"past": past, "actions": actions}, frames=4, choose=TopP([5, 8, 7], top_p=1.0))
    assert torch.equal(other[0], together[0])
    assert not torch.equal(other[1], together[1])


def test_draws_follow_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(1, 20_000, 1, 3)
    for temperature in (1.0, 2.0):
        drawn = TopP([0], temperature=temperature, top_p=1.0)(logits).flatten()
        shares = torch.bincount(drawn, minlength=3) / len(drawn)
        assert torch.allclose(shares, torch.softmax(logits[0, 0, 0] / temperature, -1), atol=0.015)


def test_top_p_keeps_the_smallest_set_that_holds_p() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(1, 4000, 1, 4)
    assert set(TopP([0], top_p=0.79)(logits).flatten().tolist()) == {0, 1}
    assert set(TopP([0], top_p=0.81)(logits).flatten().tolist()) == {0, 1, 2}
    assert set(TopP([0], top_p=0.01)(logits).flatten().tolist()) == {0}


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_impossible_settings_are_refused(bad) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        TopP([0], **bad)


def test_as_many_seeds_as_sequences() -> None:
    with pytest.raises(ConfigError, match="2 sequences but 1 seeds"):
        TopP([0])(torch.zeros(2, 1, 1, 3))


def test_nothing_to_predict_is_refused(given) -> None:
    with pytest.raises(ConfigError, match="at least 1 must be given"):
        continue_tokens(build(**FORMS[0]), {"past": given[0]}, frames=2, choose=greedy)


def test_expected_is_the_level_nearest_to_the_mean() -> None:
    logits = torch.tensor([[0.4, 0.05, 0.0, 0.55], [0.1, 0.8, 0.1, 0.0]]).clamp(min=1e-9).log()
    assert expected(logits).tolist() == [2, 1]  # means 1.7 and 1.0; the most probable of the first is 3
    assert greedy(logits).tolist() == [3, 1]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_guess_is_read_where_it_predicts(form, given) -> None:
    """With and without cache alike; another extrapolation of the last frame changes the last frame only."""
    past, actions = given
    model = build(**form, extrapolate=True)
    extrapolated = torch.randint(0, 24, (3, 4, 4, 4), generator=torch.Generator().manual_seed(2))
    other = extrapolated.clone()
    other[:, 3] = (other[:, 3] + 5) % 24
    cached = continue_tokens(
        model, {"past": past, "actions": actions, "extrapolated": extrapolated}, frames=4, choose=greedy
    )
    assert torch.equal(
        cached,
        continue_tokens(
            model,
            {"past": past, "actions": actions, "extrapolated": extrapolated},
            frames=4,
            choose=greedy,
            use_cache=False,
        ),
    )
    changed = continue_tokens(model, {"past": past, "actions": actions, "extrapolated": other}, frames=4, choose=greedy)
    assert torch.equal(cached[:, :3], changed[:, :3])
    assert not torch.equal(cached[:, 3], changed[:, 3])
    without = continue_tokens(model, {"past": past, "actions": actions}, frames=4, choose=greedy)
    assert not torch.equal(without, cached)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_frames_past_the_context_are_refused_before_the_first_step(form, given, monkeypatch) -> None:
    """Before: the error came with the last step; static decoding, which asked for no context, went on past it."""
    past, actions = given
    model = build(**form)
    stride = model.stride(4, 4)
    places = 16 // model.slots
    needs = 4 * places - stride
    passes = []
    inner = type(model).features
    monkeypatch.setattr(type(model), "features", lambda *a, **k: passes.append(1) or inner(*a, **k))
    ways = [continue_tokens, lambda *a, **k: continue_tokens(*a, use_cache=False, **k)]
    ways += [continue_tokens_static] if form["order"] == "raster" else []
    for context, fits in ((needs, True), (needs - 1, False)):
        limited = build(**form, context_positions=context)
        for way in ways:
            passes.clear()
            if fits:
                assert way(limited, {"past": past, "actions": actions}, frames=4, choose=greedy).shape[1] == 4
                continue
            with pytest.raises(
                ConfigError, match=f"4 latent frames .* more than this model's context of {context}: continue to 3"
            ):
                way(limited, {"past": past, "actions": actions}, frames=4, choose=greedy)
            assert not passes
