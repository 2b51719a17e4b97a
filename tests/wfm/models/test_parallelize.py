"""Activation checkpointing of every network's blocks: the same gradients, and what is held until the backward pass."""

import gc
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake
from torch.utils._python_dispatch import TorchDispatchMode

from tests.wfm.models import tiny
from wfm.errors import ConfigError
from wfm.models import parallelize as room
from wfm.models.fast_cpu import fast_cpu
from wfm.models.parallel_config import ParallelConfig
from wfm.models.parallelize import parallelize


def storages(*more: Tensor) -> dict[int, int]:
    """Bytes by address of all memory that tensors of this process hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of objects that are only looked at
        there = [*more, *(each for each in gc.get_objects() if isinstance(each, Tensor) and not is_fake(each))]
    return {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in there}


def learned(name: str, kind: str, *, fast: bool) -> tuple[int, list[Tensor]]:
    """Bytes held between forward and backward, what selective checkpointing keeps for itself too; gradients."""
    make, given = tiny.MODELS[name]
    model, inputs = make(), given()
    if fast:
        fast_cpu(model)
    parallelize(tiny.blocks_of(model), ParallelConfig(activation_checkpointing=kind))
    gc.collect()
    before, saved = storages(), []

    def keep(x: Tensor) -> Tensor:
        saved.append(x.detach())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = model(*inputs).square().sum()
    held = sum(size for place, size in storages(*saved).items() if place not in before)
    loss.backward()
    return held, [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", ["dit", pytest.param("raster", marks=pytest.mark.long), "frame"])
def test_selective_checkpointing_holds_more_than_full_and_less_than_none(name, fast):
    (most, plain), (some, selective), (least, full) = (
        learned(name, kind, fast=fast) for kind in ("none", "selective", "full")
    )
    assert least < some / 3  # measured: 0.19 to 0.23
    assert some < 0.65 * most  # measured: 0.46 to 0.57
    assert len(plain) == len(selective) == len(full)
    for one, two, three in zip(plain, selective, full, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


def test_a_policy_that_keeps_nothing_is_full_checkpointing(monkeypatch):
    monkeypatch.setattr(room, "KEPT", ())
    assert learned("dit", "selective", fast=False)[0] < 1.01 * learned("dit", "full", fast=False)[0]


def test_what_writes_into_a_given_tensor_is_not_kept():
    """The tokenizer's fast convolutions add products up in place."""
    plain, selective = learned("tokenizer", "none", fast=True)[1], learned("tokenizer", "selective", fast=True)[1]
    assert all(torch.equal(one, two) for one, two in zip(plain, selective, strict=True))


class Products(TorchDispatchMode):
    """Counts products of matrices that are computed."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.count += function._schema.name in ("aten::mm", "aten::addmm", "aten::bmm")
        return function(*arguments, **(named or {}))


def test_products_are_counted_once_forward_and_not_again():
    """Of selective checkpointing the backward pass computes no product of the forward again; of full, all of them."""
    counts = {}
    for kind in ("none", "selective", "full"):
        make, given = tiny.MODELS["dit"]
        model = make()
        parallelize(tiny.blocks_of(model), ParallelConfig(activation_checkpointing=kind))
        loss = model(*given()).square().sum()
        with Products() as seen:  # below the mode of selective checkpointing, which answers from what it kept
            loss.backward()
        counts[kind] = seen.count
    assert counts["selective"] == counts["none"]
    assert counts["full"] > 1.2 * counts["none"]


def test_a_wrong_kind_is_refused():
    with pytest.raises(ConfigError, match=r"activation_checkpointing.*'none', 'selective' or 'full'"):
        ParallelConfig.parse({"activation_checkpointing": "some"})


def test_the_state_dict_keeps_its_names():
    model = tiny.MODELS["dit"][0]()
    names = list(model.state_dict())
    parallelize(tiny.blocks_of(model), ParallelConfig(activation_checkpointing="selective"))
    assert list(model.state_dict()) == names
    assert isinstance(model, nn.Module)
