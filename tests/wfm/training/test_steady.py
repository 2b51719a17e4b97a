"""A steady step waits for nothing that a device computes, and compiles nothing.

Counted on a CPU: every read of a tensor's number by Python (`item`, `float`, `bool`, `tolist`, `numpy`), and every operation
whose result's size depends on numbers (`nonzero`, masks), each of which is a wait on a GPU. The seeds of samples stand in host
memory wherever it trains (`Mover`): what is drawn from them there is not counted.
"""

from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.wfm.training.test_loop import Network, Regression, configuration
from tests.wfm.training.test_loop import run as run_regression
from wfm.models.loss import Mean, Summed

WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "equal",
    "unique2",
    "_unique2",
    "unique_consecutive",
}


class Waits(TorchDispatchMode):
    """Counts them, by name."""

    def __init__(self):
        super().__init__()
        self.found, self.off = Counter(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if not self.off and name in WAITS:
            self.found[name] += 1
        return function(*args, **(kwargs or {}))

    @contextmanager
    def elsewhere(self):
        """In here is work of the host."""
        self.off += 1
        try:
            yield
        finally:
            self.off -= 1


@contextmanager
def counted(monkeypatch):
    waits = Waits()
    for name in ("tolist", "numpy"):
        own = getattr(Tensor, name)

        def read(tensor, *args, own=own, name=name, **kwargs):
            if not waits.off:
                waits.found[name] += 1
            with waits.elsewhere():
                return own(tensor, *args, **kwargs)

        monkeypatch.setattr(Tensor, name, read)
    with waits:
        yield waits


class Steady(Summed, Regression):
    """The regression by sums and counts, its noise drawn on the host."""

    def __init__(self, waits):
        self.waits, self.at = waits, {}

    def counts(self, model, batch, step):
        self.at[step] = Counter(self.waits.found)
        return {"samples": float(len(batch["seeds"]))}

    def sums(self, model, batch, step):
        with self.waits.elsewhere():
            noise = torch.stack(
                [torch.randn(1, generator=torch.Generator().manual_seed(int(s))) for s in batch["seeds"]]
            )
        error = (model(batch["x"] + 0.01 * noise)[:, 0] - batch["x"] @ torch.arange(1.0, 5)).square().sum()
        return {"samples": error}, {"error": Mean(error.detach(), len(noise))}


@pytest.mark.parametrize("values", [{}, {"optimizer": "muon", "accumulation": 2, "precision": "bf16"}])
def test_the_loop_reads_nothing_between_points(tmp_path, monkeypatch, values):
    with counted(monkeypatch) as waits:
        objective = Steady(waits)
        config = configuration(log_every=10, validate_every=0, checkpoint_every=100, **values)
        run_regression(tmp_path, config=config, objective=objective)
    seen = [objective.at[step].total() for step in range(24)]
    assert seen[9] == seen[0], objective.at[9] - objective.at[0]  # nothing in nine steps
    assert seen[10] - seen[9] == 2, "a point: whether all was finite, and the means"
    assert seen[19] == seen[10]


class Reads(Steady):
    """The broken twin: what an objective with `float(loss)` does."""

    def sums(self, model, batch, step):
        sums, values = super().sums(model, batch, step)
        float(sums["samples"].detach())
        return sums, values


def test_an_objective_that_reads_is_found(tmp_path, monkeypatch):
    with counted(monkeypatch) as waits:
        objective = Reads(waits)
        run_regression(tmp_path, config=configuration(log_every=10, checkpoint_every=100), objective=objective)
    assert objective.at[9].total() - objective.at[0].total() == 9


def test_a_steady_step_compiles_nothing(tmp_path):
    """Graphs of torch.compile after the first step, and at the end."""
    torch._dynamo.reset()
    graphs = []

    class Compiled(Regression):
        def loss(self, model, batch, step):
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
            return super().loss(model, batch, step)

    network = Network()
    network.compile(backend="eager", dynamic=False)
    run_regression(tmp_path, config=configuration(accumulation=2), network=network, objective=Compiled())
    assert graphs[0] < graphs[2]  # of the two micro-batches of the first step
    assert len(set(graphs[2:])) == 1
