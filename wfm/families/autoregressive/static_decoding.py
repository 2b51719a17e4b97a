"""Decoding in steps of fixed shapes: what a compiled decode needs, on CUDA with graphs of its own.

A plain step (`decoding`) reads as much of the cache as is filled, so every step has other shapes. Here the keys and values
of all positions lie in tensors of full length, the position is a tensor, and what is not there yet is masked: one graph
serves every step. That costs attention to the whole length, which on a GPU is less than what launching kernel by kernel
costs (gpt-fast, which Cosmos follows, does the same). On a CPU use `decoding`. Not run on CUDA.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from wfm.errors import ConfigError
from wfm.families.autoregressive.decoding import Choose, require_context
from wfm.models.autoregressive.blocks import Block, ContextKeys
from wfm.models.autoregressive.network import AutoregressiveTransformer
from wfm.models.finite import require_finite
from wfm.models.rotary import Rope


class StaticStep(nn.Module):
    """One step of raster order for videos of B sequences and one length: ids `[B, 1, slots]` at a position -> logits
    `[B, 1, slots, width]`."""

    keys: Tensor
    values: Tensor

    def __init__(
        self,
        model: AutoregressiveTransformer,
        batch: int,
        frames: int,
        size: tuple[int, int],
        contexts: tuple[dict[str, ContextKeys], ...] | None = None,
    ) -> None:
        super().__init__()
        config, weight = model.config, next(model.parameters())
        if config.order != "raster" or config.extrapolate:
            raise ConfigError(
                f"order={config.order!r}, extrapolate={config.extrapolate}: static decoding is for raster order without an "
                "extrapolated past; use continue_tokens"
            )
        rows, columns = model.grid(*size)
        self.model, self.contexts, self.capacity = model, contexts, frames * rows * columns
        shape = (config.layers, batch, self.capacity, config.kv_heads, config.head_dim)
        self.register_buffer("keys", torch.zeros(shape, dtype=weight.dtype, device=weight.device), persistent=False)
        self.register_buffer("values", torch.zeros_like(self.keys), persistent=False)
        positions = torch.arange(self.capacity, device=weight.device)
        place = model._places(positions - int(config.begin_token), columns, rows * columns)
        self.rope = model._rope(place, weight.dtype)
        self.fixed = model._fixed(place, weight.dtype) if config.absolute_embedding else None
        self.positions = positions

    def forward(self, ids: Tensor, position: Tensor, condition: Tensor) -> Tensor:
        """ids int64 `[B, 1, slots]`; position int64 `[1]`; condition `[B, 1, dim]`: what the action adds to this step."""
        x = self.model.embed(ids) + condition
        rope = Rope(*(part.index_select(0, position) for part in self.rope))
        visible = self.positions <= position  # [capacity]
        for index, block in enumerate(self.model.layers):
            assert isinstance(block, Block)
            if self.fixed is not None:
                x = x + self.fixed.index_select(0, position)
            q, k, v = block.attention.project(block.attention_norm(x), rope=rope)
            keys, values = self.keys[index], self.values[index]
            keys.index_copy_(1, position, k.to(keys.dtype))  # autocast has others
            values.index_copy_(1, position, v.to(values.dtype))
            x = x + block.attention.attend_visible(q, keys, values, visible)
            for name, context in ({} if self.contexts is None else self.contexts[index]).items():
                norm, cross = block.cross(name)
                x = x + cross.attend(
                    cross.project_queries(norm(x)), context.keys, context.values, kv_segments=context.lengths
                )
            x = x + block.feed_forward(block.ffn_norm(x))
        return self.model.logits(self.model.norm(x), ids)


@torch.no_grad()
def continue_tokens_static(
    model: AutoregressiveTransformer,
    tensors: Mapping[str, Tensor],
    *,
    frames: int,
    choose: Choose,
    compiled: Callable[[nn.Module], Callable[..., Tensor]] | None = None,
) -> Tensor:
    """`decoding.continue_tokens` in steps of fixed shapes. compiled: what makes a step of a `StaticStep`, such as
    `lambda step: torch.compile(step, mode="reduce-overhead", fullgraph=True)`; None: the step as it is."""
    past = tensors["past"]
    batch, given, height, width = past.shape
    if not 1 <= given < frames:
        raise ConfigError(f"{given} latent frames given, {frames} wanted: at least 1 must be given and 1 predicted")
    require_context(model, frames, (height, width))
    model.vocabulary.symbols(past)  # looks whether the ids are this vocabulary's, which no compiled step does
    contexts = model.prepare_contexts(tensors, batch=batch)
    step = StaticStep(model, batch, frames, (height, width), contexts)
    run = step if compiled is None else compiled(step)
    condition = model.condition(tensors, batch, frames)
    patches, places, begin = model.vocabulary.begun(model.patchify(past)), height * width, int(model.config.begin_token)
    for at in range(step.capacity - 1 + begin):
        position = torch.tensor([at], device=past.device)
        logits = run(patches[:, at : at + 1].contiguous(), position, condition[:, [(at + 1 - begin) // places]])
        if at + 1 >= patches.shape[1]:
            require_finite(logits, "logits")
            symbols = torch.stack([choose(block) for block in model.vocabulary.split(logits)], dim=-1)
            patches = torch.cat([patches, model.vocabulary.ids(symbols)], dim=1)
    return model.unpatchify(patches[:, begin:], height, width)
