"""The small parts of the loop: schedule, average, optimisers, curves."""

import json

import pytest
import torch
from torch import nn

from wfm.errors import ConfigError
from wfm.families.diffusion.card import DiffusionTrainingConfig
from wfm.training.config import TrainingConfig
from wfm.training.ema import PowerEMA, gamma_of
from wfm.training.encode_config import EncodingConfig
from wfm.training.metrics import Curve, read_curve
from wfm.training.muon import orthogonalise
from wfm.training.optim import Optimizers, is_hidden_matrix
from wfm.training.schedule import rate


def test_schedule_warms_up_holds_and_decays():
    config = TrainingConfig(steps=100, warmup_steps=10, decay_share=0.5, final_share=0.1)
    rates = [rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[20] == rates[49] == 1
    assert rates[75] == pytest.approx(0.55)
    assert rates[99] == pytest.approx(0.118)
    assert all(0 < value <= 1 for value in rates)


def test_schedule_without_decay():
    config = TrainingConfig(steps=10, warmup_steps=1, decay_share=0)
    assert [rate(step, config) for step in range(10)] == [1.0] * 10


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ema_share", 0.31), ("ema_share", -0.1), ("ema_share", float("nan")), ("learning_rate", -1e-3), ("learning_rate", 0),
        ("learning_rate", float("inf")), ("matrix_learning_rate", -0.02), ("matrix_learning_rate", 0), ("warmup_steps", -1),
        ("warmup_steps", 1.5), ("weight_decay", -0.01), ("final_share", -0.1), ("final_share", 1.5), ("gradient_clip", -1),
        ("validate_every", -1), ("checkpoint_every", 0), ("checkpoint_seconds", -1),
    ],
)  # fmt: skip
def test_values_that_cannot_train_are_refused_by_name(field, value):
    # Before: taken; with ema_share 0.31 gamma was -0.44, the real part of a root that is none.
    with pytest.raises(ConfigError, match=f"field '{field}' = "):
        TrainingConfig.parse({field: value})


def test_betas_are_shares_below_1():
    for betas in ((-0.1, 0.9), (0.9, 1.0)):  # taken before, both
        with pytest.raises(ConfigError, match=r"field 'betas\.[01]' = "):
            TrainingConfig.parse({"betas": betas})


def test_what_may_be_zero_may():
    for field in ("ema_share", "warmup_steps", "weight_decay", "gradient_clip", "final_share", "validate_every"):
        assert getattr(TrainingConfig.parse({field: 0}), field) == 0


def test_the_widest_average_has_an_exponent_and_wider_ones_have_none():
    gamma = gamma_of(0.3)
    assert (gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)) == pytest.approx(0.09)
    for width in (0.301, 0.5, 0.0, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="ema_share is"):
            gamma_of(width)


@pytest.mark.parametrize("extrapolate_from", [1, 33, 40])
def test_a_guess_needs_motion_to_go_on(extrapolate_from):
    # Before: ValueError of the optical flow in the middle of encoding.
    with pytest.raises(ConfigError, match=f"extrapolate_from is {extrapolate_from}; give 0 for none, or 2 to 32"):
        EncodingConfig.parse({"extrapolate_from": extrapolate_from})


@pytest.mark.parametrize("counts", [[1], [0, 1], [0]])
def test_a_model_that_is_shown_motion_is_given_more_than_a_frame(counts):
    values = {
        "diffusion": {"network": {"condition_mask": True}, "extrapolate": True},
        "edm": {"condition_latents": counts},
    }
    with pytest.raises(ConfigError, match=r"edm\.condition_latents is .* give 2 or more latent frames"):
        DiffusionTrainingConfig.parse(values)
    DiffusionTrainingConfig.parse({**values, "edm": {"condition_latents": [2]}})


def test_gamma_is_the_published_one():
    assert gamma_of(0.1) == pytest.approx(6.94, abs=0.01)  # Karras et al. 2024, section 3.1
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.01)


def test_average_forgets_the_start_and_follows_a_line():
    module = nn.Linear(1, 1, bias=False)
    average = PowerEMA(module, 0.1)
    for step in range(1, 1001):
        module.weight.data.fill_(float(step))
        average.update(module, step)
    value = float(average.average["weight"])
    gamma = gamma_of(0.1)
    assert value == pytest.approx(1000 * (gamma + 1) / (gamma + 2), rel=0.01)


def test_swap_twice_changes_nothing():
    module = nn.Linear(3, 3)
    average = PowerEMA(module, 0.1)
    module.weight.data.add_(1)
    before = module.weight.clone()
    average.swap(module)
    assert not torch.equal(module.weight, before)
    average.swap(module)
    assert torch.equal(module.weight, before)


def test_average_refuses_other_parameters():
    with pytest.raises(KeyError, match="other parameters"):
        PowerEMA(nn.Linear(3, 3), 0.1).load_state_dict({"weight": torch.zeros(3, 3)})


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_orthogonalise_flattens_the_singular_values(shape):
    values = torch.linalg.svdvals(orthogonalise(torch.randn(3, *shape)))
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_muon_takes_matrices_inside_blocks_only():
    matrix, vector = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))
    assert is_hidden_matrix("transformer_blocks.0.attn1.to_q.weight", matrix)
    assert is_hidden_matrix("layers.3.attention.wq.weight", matrix)
    assert not is_hidden_matrix("patch_embed.proj.weight", matrix)
    assert not is_hidden_matrix("transformer_blocks.0.attn1.norm_q.weight", vector)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_optimizer_state_goes_by_name_and_is_complete(optimizer):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(4, 4)])
            self.out = nn.Linear(4, 1)

    def step(module, optimizers):
        module.out(module.blocks[0](torch.ones(1, 4))).sum().backward()
        optimizers.step(1.0)

    config = TrainingConfig(optimizer=optimizer)
    torch.manual_seed(0)
    one = Net()
    first = Optimizers(one, config)
    step(one, first)
    two = Net()
    two.load_state_dict(one.state_dict())
    second = Optimizers(two, config)
    second.restore(first.tensors())
    assert set(second.tensors()) == set(first.tensors())
    assert any(name.startswith("blocks.0.weight/") for name in first.tensors())
    step(one, first)
    step(two, second)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    with pytest.raises(KeyError):
        second.restore({"nowhere/exp_avg": torch.zeros(1)})


def test_curve_drops_what_will_be_written_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    curve = Curve(path)
    for step in (5, 10, 15):
        curve.add(step, {"loss": 1 / 3, "count": step})
    with path.open("a") as file:
        file.write('{"step": 20, "lo')  # cut short by a kill
    Curve(path, keep_until=10)
    assert [point["step"] for point in read_curve(path)] == [5, 10]
    assert json.loads(path.read_text().splitlines()[0])["loss"] == 0.3333333


def test_curve_refuses_what_is_not_finite(tmp_path):
    with pytest.raises(ValueError, match="finite"):
        Curve(tmp_path / "m.jsonl").add(1, {"loss": float("nan")})


@pytest.mark.parametrize(
    "values", [{"steps": 0}, {"batch_size": 0}, {"decay_share": 1.5}, {"optimizer": "sgd"}, {"lr": 1}]
)
def test_wrong_configs_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        TrainingConfig.parse(values)


def test_the_budget_is_in_what_and_checkpoints_are_not():
    config = TrainingConfig()
    assert {"steps", "batch_size", "seed"} <= set(config.what())
    # mixture: the table enters by its content, wherever it lies
    assert set(config.how()) == {
        "checkpoint_every", "checkpoint_seconds", "checkpoint_store_seconds", "checkpoint_drain_seconds", "stall_seconds",
        "threads", "mixture", "loader", "reading",
    }  # fmt: skip
