"""Where a training computes, and in what. A GPU was not at hand: what is asked of one here is where things would go."""

import pytest
import torch
from torch import nn

from tests.wfm.training.test_loop import Network, Regression, configuration, loader, run, same
from wfm.errors import ConfigError
from wfm.models.folder import load_tensors
from wfm.training.config import TrainingConfig
from wfm.training.device import in_bf16, place, to_device


class Heard(Regression):
    """Notes what the hidden layer computes in."""

    def __init__(self):
        self.seen = set()

    def loss(self, model, batch, step):
        handle = model.blocks[1].register_forward_hook(lambda layer, given, made: self.seen.add(made.dtype))
        try:
            return super().loss(model, batch, step)
        finally:
            handle.remove()


def test_bf16_computes_in_bf16_and_learns_in_fp32(tmp_path):
    """The same run but for rounding: weights within 2e-2 of fp32's after 24 steps (worst measured: 5e-3), and not its bits."""
    kinds, networks = {}, {}
    for precision in ("auto", "fp32", "bf16"):
        heard = Heard()
        networks[precision], _ = run(
            tmp_path / precision, config=configuration(precision=precision, optimizer="muon"), objective=heard
        )
        kinds[precision] = heard.seen
    assert kinds == {"auto": {torch.float32}, "fp32": {torch.float32}, "bf16": {torch.bfloat16}}
    assert same(networks["auto"], networks["fp32"])
    pairs = list(zip(networks["fp32"].parameters(), networks["bf16"].parameters(), strict=True))
    assert 0 < max(float((one - two).detach().abs().max()) for one, two in pairs) < 2e-2
    kept = tmp_path / "bf16/checkpoint-00000024"
    for name in ("model", "average", "optimizer"):
        assert {tensor.dtype for tensor in load_tensors(kept / f"{name}.safetensors").values()} == {torch.float32}


def test_weights_in_half_precision_become_master_weights(tmp_path):
    """A learning rate of 1e-4 moves nothing of a bf16 weight near 1: the broken twin stands still."""
    config = configuration(learning_rate=1e-4, weight_decay=0.0)
    network = Network().bfloat16()
    nn.init.ones_(network.out.weight)
    trained, _ = run(tmp_path, config=config, network=network)
    assert {p.dtype for p in trained.parameters()} == {torch.float32}
    assert float((trained.out.weight.detach() - 1).abs().max()) > 5e-4
    twin = torch.ones(16, dtype=torch.bfloat16)
    for _ in range(24):
        twin -= 1e-4
    assert torch.equal(twin, torch.ones_like(twin))


def test_weights_in_fp32_and_fp64_stay_what_they_are():
    for kind in (torch.float32, torch.float64):
        model = nn.Linear(2, 2, dtype=kind)
        before = model.weight.data_ptr()
        to_device(model, torch.device("cpu"))
        assert (model.weight.dtype, model.weight.data_ptr()) == (kind, before)


def test_auto_is_bf16_on_a_gpu():
    cpu, gpu = torch.device("cpu"), torch.device("cuda:0")
    found = {(name, kind.type): in_bf16(kind, name) for name in ("auto", "fp32", "bf16") for kind in (cpu, gpu)}
    assert [key for key, yes in found.items() if yes] == [("auto", "cuda"), ("bf16", "cpu"), ("bf16", "cuda")]


@pytest.mark.parametrize(
    ("values", "rank", "where"),
    [
        ({}, None, "cpu"), ({"device": "cuda"}, None, "cuda"), ({"device": "cuda"}, "3", "cuda:3"),
        ({"device": "cuda:1"}, "3", "cuda:1"), ({"loader": {"device": "cuda"}}, "2", "cuda:2"), ({"device": "cpu"}, "3", "cpu"),
    ],
)  # fmt: skip
def test_batches_go_where_it_trains(values, rank, where):
    environment = {} if rank is None else {"LOCAL_RANK": rank}
    assert place(TrainingConfig.parse(values), environment).device == where


def test_two_places_are_refused_and_so_is_what_is_none():
    with pytest.raises(ConfigError, match=r"device is 'cpu' and loader\.device 'cuda'"):
        TrainingConfig.parse({"device": "cpu", "loader": {"device": "cuda"}})
    with pytest.raises(ConfigError, match="device"):
        TrainingConfig.parse({"device": "gpu"})
    with pytest.raises(ConfigError, match="precision"):
        TrainingConfig.parse({"precision": "fp16"})
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="torch sees no GPU here"):
            type(loader())(loader().sources, loader().order, place(TrainingConfig.parse({"device": "cuda"}), {}))
