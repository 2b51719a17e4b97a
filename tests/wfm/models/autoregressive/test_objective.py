import math

import pytest
import torch
from torch.nn import functional

from wfm.errors import ConfigError
from wfm.models.autoregressive import AutoregressiveObjective, AutoregressiveObjectiveConfig
from wfm.models.autoregressive.vocabulary import Vocabulary

SEEDS = torch.tensor([11, 22])


def loss(model, tokens, actions, **changes):
    batch = {"tokens": tokens, "actions": actions, "seeds": SEEDS}
    return AutoregressiveObjective(AutoregressiveObjectiveConfig(**{"action_dropout": 0.0, **changes})).loss(
        model, batch, 0
    )


def test_is_cross_entropy_plus_the_z_loss(build, sample) -> None:
    tokens, actions = sample
    model = build(order="raster", vocabulary="flat")
    logits, target = model(tokens, {"actions": actions}).flatten(0, 2), model.targets(tokens).flatten()
    entropy, z = functional.cross_entropy(logits, target), logits.logsumexp(-1).square().mean()
    assert torch.allclose(loss(model, tokens, actions, z_loss=0.0)[0], entropy)
    assert torch.allclose(loss(model, tokens, actions, z_loss=0.5)[0], entropy + 0.5 * z)


@pytest.mark.parametrize(
    "changes",
    [
        {"label_smoothing": 0.3},
        {"ordinal_smoothing": 0.8},
        {"input_noise": 0.5},
        {"action_dropout": 1.0},
        {"z_loss": 1.0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_option_changes_the_loss(build, sample, form, changes) -> None:
    if "ordinal_smoothing" in changes and form["vocabulary"] == "flat":
        changes = {"ordinal_smoothing": 2.0}
    tokens, actions = sample
    model = build(**form)
    plain, other = loss(model, tokens, actions)[0], loss(model, tokens, actions, **changes)[0]
    assert abs(float(plain.detach() - other.detach())) > 1e-6


def test_noise_of_a_sample_comes_from_its_own_seed(sample) -> None:
    tokens, _ = sample
    vocabulary = Vocabulary((4, 3, 2), digits=True)
    objective = AutoregressiveObjective(AutoregressiveObjectiveConfig(input_noise=1.0, action_dropout=0.5))
    noisy, known = objective.draw(SEEDS, tokens, vocabulary)
    swapped, swapped_known = objective.draw(SEEDS.flip(0), tokens.flip(0), vocabulary)
    assert torch.equal(noisy.flip(0), swapped)
    assert torch.equal(known.flip(0), swapped_known)
    assert not torch.equal(noisy, tokens)


def test_noise_moves_a_digit_by_one_level_at_most(sample) -> None:
    tokens, _ = sample
    vocabulary = Vocabulary((4, 3, 2), digits=True)
    noisy, _ = AutoregressiveObjective(AutoregressiveObjectiveConfig(input_noise=1.0)).draw(SEEDS, tokens, vocabulary)
    assert (vocabulary.symbols(noisy) - vocabulary.symbols(tokens)).abs().max() == 1


def test_training_learns_a_rule(build) -> None:
    """Every token is the one before it at the same place, plus one: a few steps must find that."""
    generator = torch.Generator().manual_seed(3)
    first = torch.randint(0, 24, (16, 1, 2, 2), generator=generator)
    tokens = (first + torch.arange(4)[None, :, None, None]) % 24
    model = build(torch.float32, order="frame", vocabulary="flat", action_width=0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    objective = AutoregressiveObjective(AutoregressiveObjectiveConfig())
    for step in range(60):
        value, metrics = objective.loss(model, {"tokens": tokens, "seeds": torch.arange(16)}, step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert metrics["cross_entropy_per_token"] < 0.3 * math.log(24)
    assert metrics["accuracy"] > 0.9


def test_samples_without_actions_see_the_null_action(build, sample) -> None:
    tokens, actions = sample
    model = build(order="frame")
    objective = AutoregressiveObjective(AutoregressiveObjectiveConfig(action_dropout=0.0))
    batch = {"tokens": tokens, "actions": actions, "seeds": SEEDS, "has_actions": torch.tensor([False, False])}
    assert torch.equal(
        objective.loss(model, batch, 0)[0], objective.loss(model, {"tokens": tokens, "seeds": SEEDS}, 0)[0]
    )


def test_text_is_followed_and_dropped_by_the_seed(build, sample) -> None:
    tokens, actions = sample
    model = build(text_embed_dim=5)
    text = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    batch = {"tokens": tokens, "actions": actions, "seeds": SEEDS, "text_lengths": torch.tensor([4, 2])}

    def of(told, share):
        config = AutoregressiveObjectiveConfig(action_dropout=0.0, text_dropout=share)
        return float(AutoregressiveObjective(config).loss(model, {**batch, "text": told}, 0)[0].detach())

    assert of(text, 0.0) != of(-text, 0.0)
    assert of(text, 1.0) == of(-text, 1.0)
    assert math.isclose(
        of(text, 1.0), float(loss(model, tokens, actions)[0].detach()), rel_tol=1e-12
    )  # zeros add nothing


def test_medusa_heads_learn_the_tokens_further_on(build, sample) -> None:
    """By hand: head j at row k is scored against row k + 1 + j, each head decay times the one before."""
    tokens, actions = sample
    model = build(medusa_heads=2)
    with torch.no_grad():
        logits, drafts = model.with_drafts(tokens, {"actions": actions})
    target = model.targets(tokens)[..., 0]  # [B, n]
    wanted = functional.cross_entropy(logits.flatten(0, 2), target.flatten())
    for j, weight in enumerate((0.3, 0.3 * 0.5)):
        further = functional.cross_entropy(drafts[:, : -1 - j, j].flatten(0, 2), target[:, 1 + j :].flatten())
        wanted = wanted + weight * further
    found, values = loss(model, tokens, actions, z_loss=0.0, medusa_weight=0.3, medusa_decay=0.5)
    assert torch.allclose(found, wanted)
    assert 0 <= values["draft_accuracy"] <= 1
    found.backward()
    assert model.medusa.merged.weight.grad.abs().max() > 0


def test_with_a_token_to_begin_with_every_token_counts(build, sample):
    """Alignment: the row of the token to begin with is held against the first token, the last token enters nowhere."""
    tokens, actions = sample
    model = build(order="raster", vocabulary="flat", begin_token=True)
    config = AutoregressiveObjectiveConfig(action_dropout=0.0, z_loss=0.0)
    batch = {"tokens": tokens, "actions": actions, "seeds": torch.tensor([1, 2])}
    loss, _ = AutoregressiveObjective(config).loss(model, batch, 0)
    scores = model(tokens, {"actions": actions})[:, :, 0].log_softmax(-1)
    wanted = -scores.gather(-1, tokens.flatten(1)[..., None]).mean()
    assert float(loss - wanted) == pytest.approx(0, abs=1e-12)
    assert scores.shape[1] == tokens[0].numel()


def test_a_batch_of_none_is_refused(build, sample) -> None:
    # Before: RuntimeError, "stack expects a non-empty TensorList".
    tokens, actions = sample
    batch = {"tokens": tokens[:0], "actions": actions[:0], "seeds": SEEDS[:0]}
    with pytest.raises(ConfigError, match="no samples"):
        AutoregressiveObjective(AutoregressiveObjectiveConfig()).loss(build(), batch, 0)
