"""The video networks against a plain twin: conv3d over channels-first video, einsum attention, one wavelet step at a
time, written from the description and sharing nothing with the code under test but the parameters."""

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wfm.models.fast_cpu import fast_cpu
from wfm.models.tokenizer import Tokenizer, TokenizerConfig

TOLERANCE = 1e-10  # of the largest value; worst measured 4e-15


class Plain:
    """Encoder and decoder as functions of a state dict; video `[B, C, T, H, W]`."""

    def __init__(self, state: Mapping[str, Tensor], config: TokenizerConfig) -> None:
        self.state, self.config = state, config

    def conv(self, x: Tensor, name: str, stride: tuple[int, int, int] = (1, 1, 1), pad: bool = True) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        front = weight.shape[2] - 1 + 1 - stride[0]
        x = torch.cat([x[:, :, :1]] * front + [x], dim=2)
        side = weight.shape[3] // 2 if pad else 0
        return F.conv3d(x, weight, bias, stride, (0, side, side))

    def pair(self, x: Tensor, name: str) -> Tensor:
        return self.conv(self.conv(x, f"{name}.conv_s"), f"{name}.conv_t")

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean = x.mean(dim=(1, 3, 4), keepdim=True)
        variance = x.var(dim=(1, 3, 4), keepdim=True, correction=0)
        gain, shift = (self.state[f"{name}.norm.{part}"][:, None, None, None] for part in ("weight", "bias"))
        return (x - mean) / (variance + 1e-6).sqrt() * gain + shift

    def block(self, x: Tensor, name: str) -> Tensor:
        y = self.pair(F.silu(self.norm(x, f"{name}.norm1")), f"{name}.conv1")
        y = self.pair(F.silu(self.norm(y, f"{name}.norm2")), f"{name}.conv2")
        wide = f"{name}.conv_shortcut"
        return y + (self.conv(x, wide) if f"{wide}.weight" in self.state else x)

    def attend(self, x: Tensor, name: str, over: str) -> Tensor:
        y = self.norm(x, f"{name}.norm")
        q, k, v = (self.conv(y, f"{name}.to_{each}") for each in "qkv")
        if over == "space":
            scores = torch.einsum("bcthw,bctij->bthwij", q, k) / x.shape[1] ** 0.5
            weights = scores.flatten(4).softmax(-1).unflatten(-1, scores.shape[-2:])
            mixed = torch.einsum("bthwij,bctij->bcthw", weights, v)
        else:
            scores = torch.einsum("bcthw,bcshw->bhwts", q, k) / x.shape[1] ** 0.5
            future = torch.ones(x.shape[2], x.shape[2], dtype=torch.bool).triu(1)
            mixed = torch.einsum("bhwts,bcshw->bcthw", scores.masked_fill(future, -torch.inf).softmax(-1), v)
        return x + self.conv(mixed, f"{name}.to_out.0")

    def middle(self, x: Tensor, name: str) -> Tensor:
        if self.config.mid_blocks:
            x = self.block(x, f"{name}.resnets.0")
        if self.config.mid_attention:
            x = self.attend(x, f"{name}.attentions.0", "space")
            x = self.attend(x, f"{name}.temp_attentions.0", "time")
        return self.block(x, f"{name}.resnets.1") if self.config.mid_blocks else x

    def encode(self, video: Tensor) -> Tensor:
        config, size = self.config, self.config.patch_size
        x = haar(torch.cat([video[:, :, :1]] * (size - 1) + [video], dim=2), size)
        x = self.pair(x, "encoder.conv_in")
        for level in range(len(config.channels) - 1):
            name = f"encoder.down_blocks.{level}"
            for index in range(config.encoder_blocks):
                x = self.block(x, f"{name}.resnets.{index}")
            x = self.down(x, f"{name}.downsamplers.0", *config.halved(level))
        x = F.silu(self.norm(self.middle(x, "encoder.mid_block"), "encoder.norm_out"))
        return self.conv(self.pair(x, "encoder.conv_out"), "quant_conv")

    def down(self, x: Tensor, name: str, space: bool, time: bool) -> Tensor:
        if space:
            x = F.pad(x, (0, 1, 0, 1))
            x = self.conv(x, f"{name}.conv1", (1, 2, 2), pad=False) + F.avg_pool3d(x, (1, 2, 2))
        if time:
            x = torch.cat([x[:, :, :1], x], dim=2)
            x = self.conv(x, f"{name}.conv2", (2, 1, 1)) + F.avg_pool3d(x, (2, 1, 1))
        return self.conv(x, f"{name}.conv3") if space or time else x

    def up(self, x: Tensor, name: str, space: bool, time: bool) -> Tensor:
        if time:
            x = x.repeat_interleave(2, dim=2)[:, :, 1:]
            x = x + self.conv(x, f"{name}.conv1")
        if space:
            x = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
            x = x + self.conv(x, f"{name}.conv2")
        return self.conv(x, f"{name}.conv3") if space or time else x

    def decode(self, latents: Tensor) -> Tensor:
        config, size = self.config, self.config.patch_size
        x = self.middle(self.pair(self.conv(latents, "post_quant_conv"), "decoder.conv_in"), "decoder.mid_block")
        for level in range(len(config.channels) - 1):
            name = f"decoder.up_blocks.{level}"
            for index in range(config.decoder_blocks):
                x = self.block(x, f"{name}.resnets.{index}")
            x = self.up(x, f"{name}.upsamplers.0", *config.doubled(level))
        x = self.pair(F.silu(self.norm(x, "decoder.norm_out")), "decoder.conv_out")
        return unhaar(x, size)[:, :, size - 1 :]


def haar(x: Tensor, size: int) -> Tensor:
    while size > 1:
        bands = [x]
        for axis in (2, 3, 4):
            pairs = [band.unfold(axis, 2, 2) for band in bands]
            bands = [(p[..., 0] + sign * p[..., 1]) / 2**0.5 for p in pairs for sign in (1, -1)]
        x = torch.cat(bands, dim=1) / 8**0.5
        size //= 2
    return x


def unhaar(x: Tensor, size: int) -> Tensor:
    while size > 1:
        bands = list((x * 8**0.5).chunk(8, dim=1))
        for axis in (4, 3, 2):
            pairs = zip(bands[::2], bands[1::2], strict=True)
            joined = [(torch.stack([low + high, low - high], dim=axis + 1) / 2**0.5) for low, high in pairs]
            bands = [both.flatten(axis, axis + 1) for both in joined]
        x = bands[0]
        size //= 2
    return x


SMALL = {"channels": [6, 8, 10, 12], "latent_channels": 5, "z_channels": 7}
CASES = {
    "8x8x8": ({}, (2, 3, 17, 24, 40)),
    "8x16x16": ({"spatial_compression": 16}, (1, 3, 9, 32, 48)),
    "4x8x8, patches of 2": ({"temporal_compression": 4, "patch_size": 2}, (1, 3, 9, 24, 16)),
    "one frame, five channels": ({"in_channels": 5}, (2, 5, 1, 16, 24)),
    "no middle, no attention": ({"mid_blocks": 0, "mid_attention": False}, (1, 3, 9, 16, 16)),
}


def make(values: dict) -> Tokenizer:
    torch.manual_seed(0)
    model = Tokenizer(TokenizerConfig.parse({**SMALL, **values})).double()
    for parameter in model.parameters():  # norms too: gains of 1 and shifts of 0 would hide their absence
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_forward_and_gradients(case, fast):
    values, shape = CASES[case]
    model = fast_cpu(make(values)) if fast else make(values)
    state = {name: value.detach().clone().requires_grad_() for name, value in model.state_dict().items()}
    plain = Plain(state, model.config)
    video = torch.rand(shape, dtype=torch.float64) * 2 - 1
    latents, wanted = model.encode(video), plain.encode(video)
    assert latents.shape == wanted.shape
    assert (latents - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    rebuilt, pixels = model.decode(latents), plain.decode(wanted)
    assert rebuilt.shape == pixels.shape == shape
    assert (rebuilt - pixels).abs().max() <= TOLERANCE * pixels.abs().max()

    target = torch.randn(shape, dtype=torch.float64)
    (rebuilt * target).mean().backward()
    (pixels * target).mean().backward()
    largest = max(float(value.grad.abs().max()) for value in state.values())
    for name, parameter in model.named_parameters():
        assert (parameter.grad - state[name].grad).abs().max() <= TOLERANCE * largest, name
