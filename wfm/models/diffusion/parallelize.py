"""What is applied to a diffusion transformer from outside: activation checkpointing, then compilation.

    parallelize_diffusion(model, ParallelConfig(activation_checkpointing="full", compile=True))

The network file knows nothing of either. Meshes (tensor, context, FSDP) join here in the order of the design.
"""

from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from wfm.models.diffusion.blocks import Block
from wfm.models.diffusion.config import ParallelConfig
from wfm.models.diffusion.network import DiffusionTransformer
from wfm.models.linear import allow_compiling


def parallelize_diffusion(model: DiffusionTransformer, config: ParallelConfig) -> DiffusionTransformer:
    """Apply `config` to the blocks of `model`, in place; the state dict keeps its names. Returns the model."""
    if config.compile:
        allow_compiling()
    for block in model.blocks:
        if config.activation_checkpointing == "full":
            _checkpoint(block)
        if config.compile:
            block.compile(dynamic=False)
    return model


def _checkpoint(block: Block) -> None:
    """Keep only the input of the block and compute the rest again in the backward pass. The same numbers: nothing in a
    block is random. (A partial, not a closure: a deep copy of the model must run its own blocks.)"""
    block.forward = partial(_again, block)  # type: ignore[assignment,method-assign]


def _again(block: Block, *arguments: Any) -> Tensor:
    return checkpoint(type(block).forward, block, *arguments, use_reentrant=False, preserve_rng_state=False)
