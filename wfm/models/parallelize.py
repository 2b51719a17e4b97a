"""What is applied to a transformer's blocks from outside: activation checkpointing, then compilation.

    parallelize(model.blocks, ParallelConfig(activation_checkpointing="full", compile=True))

The network files know nothing of either. Meshes (tensor, context, FSDP) join here in the order of the design.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from wfm.models.parallel_config import ParallelConfig
from wfm.models.product import allow_compiling


def parallelize(blocks: Iterable[nn.Module], config: ParallelConfig) -> None:
    """Apply `config` to blocks in place; the state dict keeps its names."""
    if config.compile:
        allow_compiling()
    for block in blocks:
        if config.activation_checkpointing == "full":
            _checkpoint(block)
        if config.compile:
            block.compile(dynamic=False)


def _checkpoint(block: nn.Module) -> None:
    """Keep only the inputs of the block and compute the rest again in the backward pass. The same numbers: nothing in a
    block is random. (A partial, not a closure: a deep copy of the model must run its own blocks.)"""
    block.forward = partial(_again, block)


def _again(block: nn.Module, *arguments: Any) -> Any:
    return checkpoint(type(block).forward, block, *arguments, use_reentrant=False, preserve_rng_state=False)
