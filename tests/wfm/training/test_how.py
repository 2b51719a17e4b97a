"""What fields of the `how` half may change of a step, and no more: the order in which numbers are added.

Measured in fp32 on 6 samples, relative to the norm of the whole gradient (AVX2): threads and activation checkpointing 0 at
these sizes, accumulation 1.9e-7, compiled blocks 1.0e-7 (elsewhere up to 4e-7). Weights part from there on, as they do from
machine to machine: docs/training.md says so. bf16, which is no `how` field, is beyond the bound by far.
"""

import copy

import pytest
import torch

from tests.wfm.training.rank_runs import ALONE, BATCH, RUNS
from wfm.models.family import FAMILIES
from wfm.models.fast_cpu import fast_cpu
from wfm.models.parallel_config import ParallelConfig
from wfm.models.parallelize import parallelize
from wfm.training.config import TrainingConfig
from wfm.training.step import Step

BOUND = 1e-6


def blocks_of(name, model):
    return FAMILIES.load({"diffusion": "diffusion", "autoregressive": "autoregressive"}[name]).blocks(model)


def gradient(name, *, threads=1, parallel=None, compiled=False, **training):
    """Loss and flat gradient of one batch, in fp32."""
    torch.manual_seed(0)
    made = RUNS[name](ALONE)
    model = made.model.float().train()
    if parallel is not None:
        parallelize(blocks_of(name, model), ParallelConfig(**parallel))
    fast_cpu(model)
    for block in blocks_of(name, model) if compiled else ():
        block.compile(backend="aot_eager", dynamic=False)
    batch = {key: value[:BATCH] for key, value in made.arrays.items()}
    batch = {key: value.float() if value.is_floating_point() else value for key, value in batch.items()}
    batch["seeds"] = torch.arange(BATCH)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = Step(model, made.objective, TrainingConfig.parse(training), ALONE).gradients(copy.copy(batch), 0)
    finally:
        torch.set_num_threads(before)
    flat = torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])
    return float(found.model.loss), flat


def difference(one, two):
    (loss, flat), (other, theirs) = one, two
    return max(abs(loss - other) / abs(loss), float((flat - theirs).norm() / flat.norm()))


HOW = {
    "threads": {"threads": 2},
    "checkpointing": {"parallel": {"activation_checkpointing": "full"}},
    "accumulation": {"accumulation": 4},
    "compiled": {"compiled": True},
}


@pytest.mark.parametrize("name", ["diffusion", "autoregressive"])
def test_how_fields_change_rounding_alone(name):
    plain = gradient(name)
    assert difference(plain, gradient(name)) == 0
    found = {how: difference(plain, gradient(name, **values)) for how, values in HOW.items()}
    assert max(found.values()) < BOUND, found
    assert difference(plain, gradient(name, precision="bf16")) > 100 * BOUND
