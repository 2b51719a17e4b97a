"""The video tokenizer against diffusers' AutoencoderKLCosmos: same weights, same numbers.

The peer is a pinned development dependency; without it these tests fail, they do not skip. Its wavelet taps are fp32
constants, so that fp64 agrees to about 1e-7 only; our own fp64 is held to 1e-10 by `test_plain_twin`.
"""

import pytest
import torch
from diffusers import AutoencoderKLCosmos

from wfm.models.fast_cpu import fast_cpu
from wfm.models.tokenizer import Tokenizer, TokenizerConfig

FORWARD = {torch.float32: 1e-5, torch.float64: 1e-6}  # of the norm; worst measured 4.4e-7 and 1.03e-7
GRADIENT = {torch.float32: 1e-5, torch.float64: 1e-6}  # of the largest gradient; worst measured 1.8e-6 and 2.1e-7

SMALL = {"channels": (8, 16, 24, 24), "latent_channels": 4, "z_channels": 4}
CASES = {
    "8x8x8, not square": ({}, (2, 3, 17, 32, 48)),
    "8x16x16, not a power of two": ({"spatial_compression": 16}, (1, 3, 25, 48, 80)),
    "4x8x8": ({"temporal_compression": 4}, (1, 3, 13, 24, 40)),
    "4x8x8, patches of 2": ({"temporal_compression": 4, "patch_size": 2}, (1, 3, 9, 24, 40)),
    "one frame": ({}, (2, 3, 1, 24, 16)),
    "five channels": ({"in_channels": 5}, (1, 5, 9, 16, 24)),
    "more blocks": ({"encoder_blocks": 3, "decoder_blocks": 4}, (1, 3, 9, 16, 16)),
}


def pair(values: dict, dtype: torch.dtype) -> tuple[Tokenizer, AutoencoderKLCosmos]:
    """Both networks with the same random weights; norms' gains and shifts and all biases random too."""
    config = TokenizerConfig(**{**SMALL, **values})
    torch.manual_seed(0)
    peer = AutoencoderKLCosmos(
        in_channels=config.in_channels,
        out_channels=config.in_channels,
        latent_channels=config.latent_channels,
        encoder_block_out_channels=config.channels,
        decode_block_out_channels=(*config.channels[1:], config.channels[-1]),
        num_layers=config.encoder_blocks,
        patch_size=config.patch_size,
        spatial_compression_ratio=config.spatial_compression,
        temporal_compression_ratio=config.temporal_compression,
    )
    for name, parameter in peer.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.3)
    ours = Tokenizer(config)
    ours.load_state_dict(peer.state_dict())  # strict: the same names and shapes
    return ours.to(dtype), peer.to(dtype)


def video(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=dtype) * 2 - 1


@pytest.mark.parametrize("dtype", FORWARD)
@pytest.mark.parametrize("case", CASES)
def test_forward(case, dtype, way):
    values, shape = CASES[case]
    ours, peer = pair(values, dtype)
    ours = way(ours)
    clip = video(shape, dtype)
    with torch.no_grad():
        wanted = peer.encode(clip).latent_dist.mode()
        latents = ours.encode(clip)
        pixels = peer.decode(wanted).sample
        rebuilt = ours.decode(wanted)
    assert latents.shape == wanted.shape
    assert rebuilt.shape == pixels.shape == shape
    assert (latents - wanted).norm() <= FORWARD[dtype] * wanted.norm()
    assert (rebuilt - pixels).norm() <= FORWARD[dtype] * pixels.norm()


@pytest.mark.parametrize("dtype", GRADIENT)
@pytest.mark.parametrize("case", CASES)
def test_gradients(case, dtype, way):
    values, shape = CASES[case]
    ours, peer = pair(values, dtype)
    ours = way(ours)
    clip, target = video(shape, dtype), torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=dtype)
    inputs = [clip.clone().requires_grad_() for _ in range(2)]
    (ours(inputs[0]) * target).sum().backward()
    (peer(inputs[1]).sample * target).sum().backward()
    wanted = {name: parameter.grad for name, parameter in peer.named_parameters()}
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, parameter in ours.named_parameters():
        assert (parameter.grad - wanted[name]).abs().max() <= GRADIENT[dtype] * largest, name
    assert (inputs[0].grad - inputs[1].grad).norm() <= GRADIENT[dtype] * inputs[1].grad.norm()


def test_inference_and_training_paths_agree():
    """Without gradients some steps of the pass work in place; that must not change a number."""
    ours = fast_cpu(pair({}, torch.float32)[0])
    clip = video((1, 3, 9, 16, 24), torch.float32)
    with torch.no_grad():
        plain = ours(clip)
    assert torch.allclose(ours(clip), plain, rtol=0, atol=1e-6 * float(plain.abs().max()))
