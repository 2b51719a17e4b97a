"""The training loop: resumed runs end with the same bits, stops are clean, nonsense is loud."""

import math

import pytest
import torch
from torch import nn

from wfm.data.loader import ArrayDataset, Loader
from wfm.data.order import one_shape
from wfm.errors import Cancelled, ConfigError, DataError
from wfm.training.config import TrainingConfig
from wfm.training.divergence import TrainingDiverged
from wfm.training.loop import fingerprint_of, train
from wfm.training.metrics import read_curve


class Regression:
    """Predict `x @ [1, 2, 3, 4]` with noise drawn from the seeds."""

    def loss(self, model, batch, step):
        noise = torch.stack([torch.randn(1, generator=torch.Generator().manual_seed(int(s))) for s in batch["seeds"]])
        wanted = batch["x"] @ torch.arange(1.0, 5)
        error = (model(batch["x"] + 0.01 * noise)[:, 0] - wanted).square().mean()
        return error, {"error": float(error.detach())}


class Network(nn.Module):
    """One hidden layer whose matrices lie in `blocks`, as Muon looks for."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 16), nn.Linear(16, 16)])
        self.out = nn.Linear(16, 1)

    def forward(self, x):
        for block in self.blocks:
            x = torch.relu(block(x))
        return self.out(x)


def loader(count: int = 30, seed: int = 0) -> Loader:
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(9))
    data = ArrayDataset(tuple(f"s{i}" for i in range(count)), {"x": x})
    return Loader(data, one_shape(data.sample_ids, 4, seed))


def run(scratch, *, config=None, stop_at=None, validate=None, network=None, data=None, objective=None):
    torch.manual_seed(0)
    network = network or Network()
    calls = iter(range(10**6))
    result = train(
        network,
        objective or Regression(),
        data or loader(),
        config or configuration(),
        scratch=scratch,
        stopping=(lambda: next(calls) == stop_at) if stop_at is not None else (lambda: False),
        validate=validate,
    )
    return network, result


def configuration(**values) -> TrainingConfig:
    return TrainingConfig.parse(
        {
            "steps": 24,
            "batch_size": 4,
            "learning_rate": 0.02,
            "checkpoint_every": 7,
            "warmup_steps": 3,
            "log_every": 5,
            **values,
        }
    )


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("stops", [[1], [9], [7, 3, 8], [23]])
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(tmp_path, optimizer, stops):
    config = configuration(optimizer=optimizer)
    whole, _ = run(tmp_path / "whole", config=config)
    for stop in stops:
        with pytest.raises(Cancelled, match="is kept"):
            run(tmp_path / "parts", config=config, stop_at=stop)
    parts, result = run(tmp_path / "parts", config=config)
    assert result.resumed_from == sum(stops)
    assert same(whole, parts)
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "parts/metrics.jsonl").read_bytes()


def weighted(weights: tuple[float, ...]) -> Loader:
    data = loader(len(weights)).sources["samples"]
    return Loader(data, one_shape(data.ids, 4, 0, weights=weights))


def test_a_mixture_goes_on_with_the_very_next_sample(tmp_path):
    weights = (2.5, 0.1, 0.4) * 6
    whole, _ = run(tmp_path / "whole", data=weighted(weights))
    for stop in (9, 5):
        with pytest.raises(Cancelled, match="is kept"):
            run(tmp_path / "parts", data=weighted(weights), stop_at=stop)
    parts, result = run(tmp_path / "parts", data=weighted(weights))
    assert result.resumed_from == 14
    assert same(whole, parts)
    assert not same(whole, run(tmp_path / "plain", data=loader(18))[0])
    with pytest.raises(
        ConfigError, match="weights"
    ):  # refused, and not begun anew: its checkpoints would go in silence
        run(tmp_path / "parts", data=weighted(weights[::-1]))


def test_a_killed_run_goes_back_to_its_checkpoint_and_ends_with_the_same_bits(tmp_path):
    class Killed(Regression):
        def loss(self, model, batch, step):
            if step == 17:
                raise KeyboardInterrupt
            return super().loss(model, batch, step)

    whole, _ = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", objective=Killed())
    (tmp_path / "parts" / ".checkpoint-00000021.123").mkdir()  # a write that was cut short
    parts, result = run(tmp_path / "parts")
    assert result.resumed_from == 14
    assert same(whole, parts)
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "parts/metrics.jsonl").read_bytes()
    assert sorted(p.name for p in (tmp_path / "parts").glob("*checkpoint*")) == [
        "checkpoint-00000021",
        "checkpoint-00000024",
    ]


def test_a_finished_run_is_not_run_again(tmp_path):
    first, _ = run(tmp_path, validate=lambda model: {"x": 1.0})
    second, result = run(tmp_path, validate=lambda model: {"x": 1.0})
    assert result.resumed_from == 24
    assert result.final == {"x": 1.0}
    assert same(first, second)


def test_another_run_does_not_take_the_checkpoint(tmp_path):
    run(tmp_path, config=configuration(learning_rate=0.02))
    _, result = run(tmp_path, config=configuration(learning_rate=0.01))
    assert result.resumed_from == 0


def test_checkpoints_of_another_run_do_not_push_out_this_runs(tmp_path):
    run(tmp_path, config=configuration(learning_rate=0.02))
    with pytest.raises(Cancelled):
        run(tmp_path, config=configuration(learning_rate=0.01), stop_at=9)
    _, result = run(tmp_path, config=configuration(learning_rate=0.01))
    assert result.resumed_from == 9


def test_whatever_else_decides_the_result_makes_another_run():
    data, config, model = loader(), configuration(), nn.Linear(2, 2)
    prints = [fingerprint_of(model, config, data, run=facts) for facts in (None, {"loss": "l1"}, {"loss": "l2"})]
    assert len(set(prints)) == 3


def test_how_fields_do_not_make_another_run(tmp_path):
    run(tmp_path, config=configuration(checkpoint_every=7))
    _, result = run(tmp_path, config=configuration(checkpoint_every=5))
    assert result.resumed_from == 24


@pytest.mark.parametrize("values", [{"optimizer": "muon"}, {"ema_share": 0}, {"seed": 1}, {"gradient_clip": 0.01},
                                    {"weight_decay": 0.9}, {"warmup_steps": 20}, {"decay_share": 0}, {"betas": (0.5, 0.9)},
                                    {"final_share": 0.9}, {"learning_rate": 0.01}, {"batch_size": 4, "steps": 20}])  # fmt: skip
def test_every_option_changes_the_result(tmp_path, values):
    base, _ = run(tmp_path / "base")
    config = configuration(**values)
    other, _ = run(tmp_path / "other", config=config, data=loader(seed=config.seed))
    assert not same(base, other)


def test_muon_rate_changes_the_result(tmp_path):
    one, _ = run(tmp_path / "a", config=configuration(optimizer="muon", matrix_learning_rate=0.02))
    two, _ = run(tmp_path / "b", config=configuration(optimizer="muon", matrix_learning_rate=0.05))
    assert not same(one, two)


def test_it_learns_and_draws_curves(tmp_path):
    _, result = run(tmp_path, config=configuration(steps=300, validate_every=100), validate=lambda model: {"seen": 2.0})
    curve = read_curve(tmp_path / "metrics.jsonl")
    losses = [point["loss"] for point in curve if "loss" in point]
    assert losses[-1] < 0.1 * losses[0]
    assert [point["step"] for point in curve if "validation_seen" in point] == [100, 200, 300]
    assert {"step", "loss", "learning_rate", "gradient_norm", "error"} == set(curve[0])
    assert result.final == {"seen": 2.0}
    assert result.samples_per_second > 0


def test_validation_sees_the_average_and_leaves_no_trace(tmp_path):
    seen = []

    def validate(model):
        seen.append((model.training, {name: p.clone() for name, p in model.named_parameters()}))
        return {"x": 0.0}

    watched, _ = run(tmp_path / "a", config=configuration(validate_every=4), validate=validate)
    plain, _ = run(tmp_path / "b")
    assert same(watched, plain)
    assert not any(training for training, _ in seen)
    assert all(
        torch.equal(seen[-1][1][name], p) for name, p in watched.named_parameters()
    )  # what is kept was validated


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_fails_loudly(tmp_path, where):
    class Broken(Regression):
        def loss(self, model, batch, step):
            loss, values = super().loss(model, batch, step)
            if step == 3:
                loss = loss * math.inf if where == "loss" else loss + (model.out.bias.sum() * 0).sqrt()
            return loss, values

    with pytest.raises(TrainingDiverged, match="step 3"):
        run(tmp_path, objective=Broken())


def test_empty_data_is_refused():
    with pytest.raises(DataError, match="no samples"):
        loader(0)
