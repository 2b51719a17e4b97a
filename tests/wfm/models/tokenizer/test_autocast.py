"""Tokenizers under `torch.autocast`, the usual way of mixed precision: every published structure and ours, both half types.

Before, none with patches of 4 ran: the Haar matrix met products of another type ("both inputs should have same dtype")."""

import pytest
import torch

from wfm.models.presets import PRESETS
from wfm.models.tokenizer import Tokenizer, TokenizerConfig
from wfm.models.tokenizer.haar import fold_analysis, fold_synthesis
from wfm.models.tokenizer.streaming import StreamingDecoder, StreamingEncoder
from wfm.models.tokenizer.tiling import decode_tiled, encode_tiled

HALF = [torch.bfloat16, torch.float16]
LINEAR = {
    "temporal_compression": 4, "spatial_compression": 4, "patch_size": 4, "channels": [12, 12], "mid_blocks": 0,
    "mid_attention": False, "linear_code": True, "latent_channels": 3, "z_channels": 6, "decoder_blocks": 1,
}  # fmt: skip
KINDS = {name: preset.config.resolved() for name, preset in PRESETS.items() if preset.family == "tokenizer"}
KINDS |= {"linear": LINEAR, "linear, discrete": {**LINEAR, "levels": [8, 5, 5], "end_kernel": 1}}
CLOSE = {torch.bfloat16: 0.06, torch.float16: 0.01}  # measured worst: 0.028, 0.0034


def make(kind: str) -> Tokenizer:
    """Of the published structure, narrow and one block a level."""
    torch.manual_seed(0)
    values = {**KINDS[kind], "encoder_blocks": 1, "decoder_blocks": 1}
    if "linear" not in kind:
        values |= {"channels": [32 if values["dimensions"] == 2 else 8] * 4, "z_channels": 6}
    return Tokenizer(TokenizerConfig.parse(values))


def clip(frames: int = 9, side: int = 32) -> torch.Tensor:
    return torch.rand(1, 3, frames, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def assert_near(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    assert (found.float() - wanted).norm() <= CLOSE[dtype] * wanted.norm()


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_structure_runs_and_learns(kind, dtype):
    model, video = make(kind), clip(side=64 if "16x16" in kind else 32)  # norms of few places amplify rounding
    with torch.no_grad():
        latents = model.encode(video, quantise=False)
        frames = model.decode(model.encode(video))
    with torch.autocast("cpu", dtype=dtype):
        assert_near(model.encode(video, quantise=False), latents, dtype)
        rebuilt = model(video)
        if model.quantizer is None:  # else a code that rounds otherwise is another picture
            assert_near(rebuilt, frames, dtype)
        loss = (rebuilt - video).square().mean()
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients.values())
    assert model.quant_conv.weight.grad.any()
    assert model.decoder.conv_out.last.bias.grad.any()
    with torch.autocast("cpu", dtype=dtype):  # backward within the region, as some loops do
        (model(video) - video).square().mean().backward()


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("kind", ["dv8x8x8", "linear, discrete", "ci8x8"])
def test_streams_tiles_and_tokens(kind, dtype):
    model, video = make(kind), clip(17)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        whole = model.encode(video, quantise=False)
        encoder, decoder = StreamingEncoder(model), StreamingDecoder(model)
        parts = [encoder.push(part) for part in (video[:, :, :1], video[:, :, 1:9], video[:, :, 9:])]
        frames = [decoder.push(part) for part in torch.cat(parts, dim=2).split(1, dim=2)]
        assert torch.cat(frames, dim=2).shape == video.shape
        tiled = encode_tiled(model, video, tile=(32, 32), overlap=0, quantise=False)
        assert (tiled - whole).norm() <= CLOSE[dtype] * whole.norm()  # one tile
        assert (
            decode_tiled(model, encode_tiled(model, video, tile=(16, 32), overlap=0), tile=(16, 32), overlap=0)
            .isfinite()
            .all()
        )
        if model.quantizer is not None:
            ids = model.tokens(video)
            assert torch.equal(ids, model.quantizer.tokens(model.quantizer(whole.float())))
            assert torch.equal(model.decode_tokens(ids), model(video))


def test_the_start_is_that_of_full_precision():
    wanted, found = make("linear, discrete"), make("linear, discrete")
    wanted.start([clip(9, 16)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found.start([clip(9, 16)])
    for one, other in zip(wanted.parameters(), found.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_folded_weights_are_those_of_full_precision(dimensions):
    weight = torch.randn(3 * 4**dimensions, 3 * 4**dimensions, 3, 3)
    for fold in (fold_analysis, fold_synthesis):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = fold(weight, 4, dimensions)
        assert torch.equal(found, fold(weight, 4, dimensions))
