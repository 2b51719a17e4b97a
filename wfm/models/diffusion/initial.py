"""What the weights of the network begin as: Cosmos's Xavier, small time embedding and closed gates, with options of our own."""

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from wfm.models.diffusion.blocks import PatchEmbed, VectorMLP
from wfm.models.diffusion.config import DiffusionConfig
from wfm.models.layers import AdaLayerNormLoRA, LearnablePositions, Linear, TimestepEmbedding


class Network(Protocol):
    """What of the network is drawn (`wfm.models.diffusion.network`)."""

    config: DiffusionConfig
    patch_embed: PatchEmbed
    learnable_pos_embed: LearnablePositions | None
    time_embed: TimestepEmbedding
    transformer_blocks: nn.ModuleList
    norm_out: AdaLayerNormLoRA
    proj_out: Linear

    def children(self) -> Iterator[nn.Module]:
        """Its modules, in order."""

    def vector_embedders(self, name: str) -> tuple[VectorMLP, VectorMLP]:
        """What takes a vector in."""


@torch.no_grad()
def initialise(model: Network) -> None:
    """Draw the weights anew, in place. Options: `zero_output` and `open_gates` of the config."""
    model.patch_embed.initialise()
    for module in (part for child in model.children() for part in child.modules() if child is not model.patch_embed):
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for weight in model.time_embed.t_embedder.parameters():
        nn.init.normal_(weight, std=0.02)
    for module in model.transformer_blocks.modules():
        if isinstance(module, AdaLayerNormLoRA):
            nn.init.zeros_(module.linear_2.weight)
    if model.learnable_pos_embed is not None:
        for table in model.learnable_pos_embed.parameters():
            nn.init.trunc_normal_(table, std=0.02)
    for name in model.config.vectors:
        for mlp in model.vector_embedders(name):
            nn.init.zeros_(mlp.fc2.weight)
    if model.config.zero_output:
        nn.init.zeros_(model.norm_out.linear_2.weight)
        nn.init.zeros_(model.proj_out.weight)
    if model.config.open_gates:
        _open_gates(model)


def _open_gates(model: Network) -> None:
    """Start every gate near 1: the rows of `linear_2` that make the shared gate are set to answer 1 to the middle noise level,
    and noise levels look much alike to the sinusoid. (All zero, a gate lets its block learn only once it has opened.)"""
    dim, layers = model.config.width, model.time_embed.t_embedder
    middle = torch.zeros((), device=model.proj_out.weight.device)
    hidden = F.silu(layers["linear_1"](model.time_embed.sinusoid(middle)[None])[0])
    weight = dict(layers.named_parameters())["linear_2.weight"]
    weight[2 * dim :] = hidden / hidden.square().sum()
