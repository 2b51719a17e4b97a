"""The image networks against a plain twin written from the published structure, and their published sizes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wfm.errors import ConfigError
from wfm.models.tokenizer import Tokenizer, TokenizerConfig

TOLERANCE = 1e-10  # of the largest value; worst measured 2.3e-15
IMAGE = {"dimensions": 2, "temporal_compression": 1}
SMALL = {**IMAGE, "channels": [32, 64, 96, 96], "latent_channels": 5, "z_channels": 7}
FSQ = {"latent_channels": 6, "levels": [8, 8, 8, 5, 5, 5]}
PUBLISHED = {  # counted from the published layers
    "CI8x8": ({"spatial_compression": 8}, 76_789_472),
    "CI16x16": ({"spatial_compression": 16}, 81_509_088),
    "DI8x8": ({"spatial_compression": 8, "z_channels": 256, **FSQ}, 79_004_342),
    "DI16x16": ({"spatial_compression": 16, "z_channels": 256, **FSQ}, 83_723_958),
}


class Plain:
    """Encoder and decoder of images `[B, C, H, W]` as functions of a state dict."""

    def __init__(self, model: Tokenizer) -> None:
        self.state, self.config = dict(model.state_dict()), model.config

    def conv(self, x: Tensor, name: str, stride: int = 1, pad: int | None = None) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state[f"{name}.bias"], stride, weight.shape[-1] // 2 if pad is None else pad)

    def norm(self, x: Tensor, name: str) -> Tensor:
        grouped = x.unflatten(1, (32, -1))
        mean = grouped.mean(dim=(2, 3, 4), keepdim=True)
        variance = grouped.var(dim=(2, 3, 4), keepdim=True, correction=0)
        y = ((grouped - mean) / (variance + 1e-6).sqrt()).flatten(1, 2)
        return y * self.state[f"{name}.weight"][:, None, None] + self.state[f"{name}.bias"][:, None, None]

    def block(self, x: Tensor, name: str) -> Tensor:
        y = self.conv(F.silu(self.norm(x, f"{name}.norm1")), f"{name}.conv1")
        y = self.conv(F.silu(self.norm(y, f"{name}.norm2")), f"{name}.conv2")
        return y + (self.conv(x, f"{name}.conv_shortcut") if f"{name}.conv_shortcut.weight" in self.state else x)

    def middle(self, x: Tensor, name: str) -> Tensor:
        x = self.block(x, f"{name}.resnets.0")
        y = self.norm(x, f"{name}.attentions.0.norm")
        q, k, v = (self.conv(y, f"{name}.attentions.0.to_{each}").flatten(2) for each in "qkv")  # [B, C, H W]
        weights = (torch.einsum("bci,bcj->bij", q, k) / x.shape[1] ** 0.5).softmax(-1)
        mixed = torch.einsum("bij,bcj->bci", weights, v).view_as(x)
        return self.block(x + self.conv(mixed, f"{name}.attentions.0.to_out.0"), f"{name}.resnets.1")

    def encode(self, x: Tensor) -> Tensor:
        x = self.conv(haar(x, self.config.patch_size), "encoder.conv_in")
        for level in range(3):
            name = f"encoder.down_blocks.{level}"
            for index in range(self.config.encoder_blocks):
                x = self.block(x, f"{name}.resnets.{index}")
            if f"{name}.downsamplers.0.conv.weight" in self.state:
                x = self.conv(F.pad(x, (0, 1, 0, 1)), f"{name}.downsamplers.0.conv", stride=2, pad=0)
        x = self.norm(self.middle(x, "encoder.mid_block"), "encoder.norm_out")
        return self.conv(self.conv(F.silu(x), "encoder.conv_out"), "quant_conv")

    def decode(self, x: Tensor) -> Tensor:
        x = self.middle(self.conv(self.conv(x, "post_quant_conv"), "decoder.conv_in"), "decoder.mid_block")
        for level in range(3):
            name = f"decoder.up_blocks.{level}"
            for index in range(self.config.decoder_blocks):
                x = self.block(x, f"{name}.resnets.{index}")
            if f"{name}.upsamplers.0.conv.weight" in self.state:
                x = self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), f"{name}.upsamplers.0.conv")
        x = self.conv(F.silu(self.norm(x, "decoder.norm_out")), "decoder.conv_out")
        return unhaar(x, self.config.patch_size)


def haar(x: Tensor, size: int) -> Tensor:
    while size > 1:
        bands = [x]
        for axis in (3, 2):  # width, then height
            pairs = [band.unfold(axis, 2, 2) for band in bands]
            bands = [(p[..., 0] + sign * p[..., 1]) / 2**0.5 for p in pairs for sign in (1, -1)]
        x = torch.cat(bands, dim=1) / 2
        size //= 2
    return x


def unhaar(x: Tensor, size: int) -> Tensor:
    while size > 1:
        bands = list((x * 2).chunk(4, dim=1))
        for axis in (2, 3):
            pairs = zip(bands[::2], bands[1::2], strict=True)
            joined = [torch.stack([low + high, low - high], dim=axis + 1) / 2**0.5 for low, high in pairs]
            bands = [both.flatten(axis, axis + 1) for both in joined]
        x = bands[0]
        size //= 2
    return x


def make(**more) -> Tokenizer:
    torch.manual_seed(0)
    model = Tokenizer(TokenizerConfig.parse({**SMALL, **more})).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ({"spatial_compression": 8}, (2, 3, 1, 24, 40)),
        ({"spatial_compression": 16}, (1, 3, 2, 32, 48)),
        ({"spatial_compression": 8, "patch_size": 2, "in_channels": 4}, (1, 4, 3, 16, 24)),
    ],
)
@torch.no_grad()
def test_forward(values, shape):
    model = make(**values)
    plain, video = Plain(model), torch.rand(shape, dtype=torch.float64) * 2 - 1
    latents = model.encode(video)
    wanted = torch.stack([plain.encode(frame) for frame in video.unbind(2)], dim=2)
    assert latents.shape == wanted.shape
    assert (latents - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    rebuilt = model.decode(latents)
    pixels = torch.stack([plain.decode(frame) for frame in wanted.unbind(2)], dim=2)
    assert rebuilt.shape == shape
    assert (rebuilt - pixels).abs().max() <= TOLERANCE * pixels.abs().max()


@torch.no_grad()
def test_frames_do_not_know_of_each_other():
    model, video = make(), torch.rand(1, 3, 3, 16, 16, dtype=torch.float64)
    alone = torch.cat([model(frame) for frame in video.split(1, dim=2)], dim=2)
    assert torch.allclose(model(video), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    values, wanted = PUBLISHED[name]
    with torch.device("meta"):
        model = Tokenizer(TokenizerConfig.parse({**IMAGE, **values}))
    assert sum(parameter.numel() for parameter in model.parameters()) == wanted


def test_discrete_images():
    model = make(levels=[8, 5, 5], latent_channels=3)
    video = torch.rand(1, 3, 2, 16, 24, dtype=torch.float64)
    ids = model.tokens(video)
    assert ids.shape == (1, 2, 2, 3)
    assert torch.allclose(model.decode_tokens(ids), model(video), atol=1e-9)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"temporal_compression": 8}, "images"),
        ({"channels": [32, 48, 64, 64]}, "32 groups"),
        ({"linear_code": True}, "for video"),
        ({"spatial_compression": 64}, "levels"),
    ],
)
def test_configurations_that_cannot_be_are_refused(values, says):
    with pytest.raises(ConfigError, match=says):
        TokenizerConfig.parse({**SMALL, **values})
