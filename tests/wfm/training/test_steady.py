"""A steady step waits for nothing that a device computes, and compiles nothing.

Counted on a CPU: every read of a tensor's number by Python (`item`, `float`, `bool`, `tolist`, `numpy`), and every operation
whose result's size depends on numbers (`nonzero`, masks), each of which is a wait on a GPU. The seeds of samples stand in host
memory wherever it trains (`Mover`): what is drawn from them there is not counted.
"""

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.wfm.training import test_packs, test_packs_of_tokens
from tests.wfm.training.rank_runs import run
from tests.wfm.training.test_loop import Network, Regression, configuration
from tests.wfm.training.test_loop import run as run_regression
from wfm.artifacts import Store
from wfm.data.loader import Loader
from wfm.data.loader.grouped import batches_of
from wfm.models.loss import Mean, Summed
from wfm.parallel.segments import Segments
from wfm.training import fit as fit_module

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
        self.found, self.off, self.host, self.known = Counter(), 0, set(), []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if not self.off and name in WAITS and not self.here(args[0]):
            self.found[name] += 1
        return function(*args, **(kwargs or {}))

    def here(self, tensor):
        """Whether it stands in host memory wherever it is trained."""
        place = tensor.untyped_storage().data_ptr()
        return place in self.host or any(place == one.untyped_storage().data_ptr() for one in self.known)

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
            if not waits.off and not waits.here(tensor):
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


CHECKED = (
    "wfm.models.diffusion.denoiser",
    "wfm.models.autoregressive.vocabulary",
    "wfm.models.diffusion_decoder.network",
)
"""Modules that look at numbers to refuse them where these are at hand: on a GPU they are not, nor here."""


class Counting:
    """An objective of a family; what it draws for samples, and counts, is work of the host."""

    def __init__(self, objective, waits):
        self.objective, self.waits, self.at = objective, waits, {}
        for name in ("draw", "keep"):
            if (own := getattr(objective, name, None)) is not None:
                setattr(objective, name, lambda *args, own=own: self.on_host(own, *args))

    def on_host(self, act, *args):
        with self.waits.elsewhere():
            return act(*args)

    def counts(self, model, batch, step):
        self.at[step] = Counter(self.waits.found)
        stay = [
            tensor for one in batches_of(batch) for name, tensor in one.items()
            if name in ("seeds", "packs") or name.endswith("_lengths")
        ]  # fmt: skip
        self.waits.host = {tensor.untyped_storage().data_ptr() for tensor in stay}
        return self.on_host(self.objective.counts, model, batch, step)

    def sums(self, model, batch, step):
        return self.objective.sums(model, batch, step)


@pytest.mark.parametrize("name", ["autoregressive", "tokenizer", "diffusion", "decoder"])
def test_a_familys_step_reads_nothing(tmp_path, monkeypatch, name):
    """Steps 3 to 8 of a run that has points every ten. (The list of seeds that the test's own `Watched` keeps is no read.)"""
    for module in CHECKED:
        monkeypatch.setattr(f"{module}.at_hand", lambda tensor: False)
    with counted(monkeypatch) as waits:
        following = Loader.next
        monkeypatch.setattr(Loader, "next", lambda self, *args: kept[0].on_host(following, self, *args))
        kept = []
        run(
            name, tmp_path, change=lambda objective: kept.append(Counting(objective, waits)) or kept[0],
            steps=9, log_every=10, validate_every=0,
        )  # fmt: skip
    at = kept[0].at
    assert [dict(at[step + 1] - at[step]) for step in range(3, 8)] == [{}] * 5


def on_packs(tmp_path, monkeypatch, name, known):
    """What steps 3 to 8 of a training on packs read. Bounds of segments are a device's, and `known` to the host or not."""
    of = Segments.of.__func__

    def made(cls, *given, **named):
        found = of(cls, *given, **named)
        if known:
            waits.known.append(found.known)
        return replace(found, bounds=found.bounds.clone(), known=found.known if known else None)

    monkeypatch.setattr(Segments, "of", classmethod(made))
    for module in CHECKED:
        monkeypatch.setattr(f"{module}.at_hand", lambda tensor: False)
    kept, following, training = [], Loader.next, fit_module.train

    def counting(model, objective, *given, **named):
        kept.append(Counting(objective, waits))
        return training(model, kept[0], *given, **named)

    monkeypatch.setattr(fit_module, "train", counting)
    store = Store.open(tmp_path / "store")
    options = {"steps": 9, "log_every": 10, "validate_every": 0, "checkpoint_seconds": 1e9, "loader": {"workers": 0}}
    with counted(monkeypatch) as waits:
        waits.known = []
        with waits.elsewhere():
            if name == "diffusion":
                test_packs.make_latents(store)
            else:
                test_packs_of_tokens.make_tokens(store, test_packs_of_tokens.SHAPES)
        monkeypatch.setattr(Loader, "next", lambda self, *args: on_host(waits, following, self, *args))
        if name == "diffusion":
            test_packs.fitted(store, tmp_path / "out", **options)
        else:
            test_packs_of_tokens.fitted(store, tmp_path / "out", "raster", **options)
    return [dict(kept[0].at[step + 1] - kept[0].at[step]) for step in range(3, 8)]


def on_host(waits, act, *args):
    with waits.elsewhere():
        return act(*args)


@pytest.mark.parametrize("name", ["diffusion", "autoregressive"])
def test_a_step_on_packs_reads_nothing(tmp_path, monkeypatch, name):
    assert on_packs(tmp_path, monkeypatch, name, known=True) == [{}] * 5


def test_bounds_that_the_host_does_not_know_are_read(tmp_path, monkeypatch):
    """The broken twin: as it was, forward and backward of every attention."""
    found = on_packs(tmp_path, monkeypatch, "diffusion", known=False)
    assert sum(one.get("tolist", 0) for one in found) >= 4, found
