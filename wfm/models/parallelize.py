"""What is applied to a transformer's blocks from outside: activation checkpointing, then compilation.

    parallelize(model.blocks, ParallelConfig(activation_checkpointing="full", compile=True))

The network files know nothing of either. The order of all passes is fixed: activation checkpointing, compilation, what is fast
on a CPU (`fast_cpu`), and last of all the parameters are spread over ranks (`wfm.parallel.spread`): each stands around what was
there before it.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    SelectiveCheckpointContext,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from wfm.models.parallel_config import ParallelConfig
from wfm.models.product import allow_compiling

KEPT = (
    "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention", "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_cudnn_attention", "aten::_flash_attention_forward", "flash_attn::_flash_attn_varlen_forward",
    "torch_attn::_varlen_attn", "mkldnn::_linear_pointwise", "wfm::product",
    "wfm::pack_attention", "wfm::block_causal",
)  # fmt: skip
"""Operators whose results selective checkpointing keeps: products and attention."""


def parallelize(blocks: Iterable[nn.Module], config: ParallelConfig) -> None:
    """Apply `config` to blocks in place; the state dict keeps its names."""
    if config.compile:
        allow_compiling()
    for block in blocks:
        if config.activation_checkpointing != "none":
            _checkpoint(block, selective=config.activation_checkpointing == "selective")
        if config.compile:
            block.compile(dynamic=False)


def _checkpoint(block: nn.Module, *, selective: bool) -> None:
    """Keep only the inputs of the block, and with `selective` the results of `KEPT`, and compute the rest again in the backward
    pass. The same numbers: nothing in a block is random. (A partial, not a closure: a deep copy of the model must run its own
    blocks.)"""
    block.forward = partial(_again_but_kept if selective else _again, block)


def _again(block: nn.Module, *arguments: Any) -> Any:
    return checkpoint(type(block).forward, block, *arguments, use_reentrant=False, preserve_rng_state=False)


def _again_but_kept(block: nn.Module, *arguments: Any) -> Any:
    return checkpoint(
        type(block).forward, block, *arguments, use_reentrant=False, preserve_rng_state=False,
        context_fn=partial(create_selective_checkpoint_contexts, _policy),
    )  # fmt: skip


def _policy(context: SelectiveCheckpointContext, operator: Any, *arguments: Any, **named: Any) -> CheckpointPolicy:
    kept = isinstance(operator, torch._ops.OpOverload) and operator._schema.name in KEPT
    kept = (
        kept and not operator._schema.is_mutable
    )  # one that writes into a tensor given gives that, which may change again
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
