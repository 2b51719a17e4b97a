"""Every network, a few hundred weights each, in fp64, with no weight at a special value: a closed gate or a gain of 1 would
hide what stands behind it. By name: how to make one, and a batch of two for its `forward`."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wfm.models.autoregressive import AutoregressiveConfig, AutoregressiveTransformer
from wfm.models.diffusion import DiffusionConfig, DiffusionTransformer
from wfm.models.tokenizer import Tokenizer, TokenizerConfig


def drawn(model: nn.Module) -> nn.Module:
    """In fp64 with random weights."""
    torch.manual_seed(0)
    model = model.double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def dit() -> nn.Module:
    """The diffusion transformer, with text and learned positions."""
    return drawn(
        DiffusionTransformer(
            DiffusionConfig(
                in_channels=4, num_layers=2, num_attention_heads=2, attention_head_dim=12, adaln_lora_dim=8,
                text_embed_dim=10, max_size=(4, 8, 8), patch_size=(1, 2, 2),
            )
        )
    )  # fmt: skip


def dit_inputs() -> list[Tensor]:
    """Latents, noise levels, text."""
    return [draw(2, 4, 3, 8, 8), draw(2), draw(2, 5, 10)]


def causal(order: str) -> Callable[[], nn.Module]:
    """The autoregressive transformer with grouped heads."""

    def make() -> nn.Module:
        config = AutoregressiveConfig(
            levels=(4, 4), dim=24, layers=2, heads=4, kv_heads=2, head_dim=12, ffn_dim=40, patch=1, order=order,
            vocabulary="flat",
        )  # fmt: skip
        return drawn(AutoregressiveTransformer(config))

    return make


def tokenizer() -> nn.Module:
    """The video tokenizer with a linear code beside it."""
    config = TokenizerConfig(channels=(6, 8, 10, 12), latent_channels=5, z_channels=7, linear_code=True)
    return drawn(Tokenizer(config))


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """What is spread, checkpointed or compiled one by one: the largest parts that repeat."""
    if isinstance(model, Tokenizer):
        encoder, decoder = model.encoder, model.decoder
        return [*encoder.down_blocks, encoder.mid_block, decoder.mid_block, *decoder.up_blocks]
    return list(model.transformer_blocks if isinstance(model, DiffusionTransformer) else model.layers)


def draw(*shape: int) -> Tensor:
    """fp64, the same each time."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def tokens() -> list[Tensor]:
    """Ids `[2, 3, 4, 6]`."""
    return [torch.randint(0, 16, (2, 3, 4, 6), generator=torch.Generator().manual_seed(1))]


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], list[Tensor]]]] = {
    "dit": (dit, dit_inputs),
    "raster": (causal("raster"), tokens),
    "frame": (causal("frame"), tokens),
    "tokenizer": (tokenizer, lambda: [draw(2, 3, 9, 16, 16).tanh()]),
}
