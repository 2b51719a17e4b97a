"""The tokenizer: published sizes, causality, frame counts, the linear start, tokens."""

import pytest
import torch

from wfm.errors import ConfigError, DataError
from wfm.models.tokenizer import Stream, Tokenizer, TokenizerConfig
from wfm.models.tokenizer.patches import join
from wfm.models.tokenizer.streaming import StreamingDecoder, StreamingEncoder
from wfm.models.tokenizer.tiling import encode_tiled

SMALL = {"channels": [8, 8, 12, 12], "latent_channels": 5, "z_channels": 6, "encoder_blocks": 1, "decoder_blocks": 1}
LINEAR = {  # the demo's kind: one level at the latents' resolution beside a linear code
    "temporal_compression": 4, "spatial_compression": 4, "patch_size": 4, "channels": [12, 12], "mid_blocks": 0,
    "mid_attention": False, "end_kernel": 1, "linear_code": True,
}  # fmt: skip
KINDS = {
    "8x8x8": {},
    "8x16x16": {"spatial_compression": 16},
    "4x8x8, patches of 2": {"temporal_compression": 4, "patch_size": 2},
    "linear": LINEAR,
}
FSQ = {"levels": [8, 8, 8, 5, 5, 5], "latent_channels": 6}
PUBLISHED = {  # parameters, from the published checkpoints
    "CV8x8x8": ({}, 105_653_696),
    "CV8x16x16": ({"spatial_compression": 16}, 110_898_624),
    "CV4x8x8": ({"temporal_compression": 4}, 104_669_888),
    "CV4x8x8-360p": ({"temporal_compression": 4, "patch_size": 2}, 110_208_816),
    "DV8x16x16": ({"spatial_compression": 16, **FSQ}, 110_898_294),
    "DV4x8x8-360p": ({"temporal_compression": 4, "patch_size": 2, "z_channels": 256, **FSQ}, 112_619_766),
}


def make(**more) -> Tokenizer:
    torch.manual_seed(0)
    model = Tokenizer(TokenizerConfig.parse({**SMALL, **more}))
    for parameter in model.parameters():  # the last layers of the linear kind start at zero, which would hide a leak
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def video(frames: int = 17, seed: int = 0, side: int = 16, channels: int = 3) -> torch.Tensor:
    return torch.rand(2, channels, frames, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    values, wanted = PUBLISHED[name]
    with torch.device("meta"):
        model = Tokenizer(TokenizerConfig.parse(values))
    assert sum(parameter.numel() for parameter in model.parameters()) == wanted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [0, 1, 3])
def test_shapes(kind, groups):
    model = make(**KINDS[kind], in_channels=2)
    c, s = model.config.temporal_compression, model.config.spatial_compression
    clip = video(1 + groups * c, channels=2)
    latents = model.encode(clip)
    assert latents.shape == (2, 5, 1 + groups, 16 // s, 16 // s)
    assert model.decode(latents).shape == clip.shape
    assert model.config.latent_frames(clip.shape[2]) == 1 + groups


@pytest.mark.parametrize("kind", KINDS)
def test_latents_never_look_ahead(kind):
    model, c = make(**KINDS[kind]).double(), TokenizerConfig.parse({**SMALL, **KINDS[kind]}).temporal_compression
    source = video(1 + 3 * c).double().requires_grad_()
    latents = model.encode(source)
    weights = torch.randn(latents.shape[-2:], dtype=torch.float64)  # a plain sum would be blind to normed frames
    for index in range(latents.shape[2]):
        (gradient,) = torch.autograd.grad((latents[:, :, index] * weights).sum(), source, retain_graph=True)
        reach = gradient.abs().amax(dim=(0, 1, 3, 4)).nonzero().flatten()
        assert int(reach.max()) == c * index  # up to its own last frame, and that one does count


@pytest.mark.parametrize("kind", KINDS)
def test_frames_never_look_ahead(kind):
    model = make(**KINDS[kind]).double()
    c = model.config.temporal_compression
    latents = model.encode(video(1 + 3 * c).double()).detach().requires_grad_()
    rebuilt = model.decode(latents)
    weights = torch.randn(rebuilt.shape[-2:], dtype=torch.float64)
    for frame in range(rebuilt.shape[2]):
        (gradient,) = torch.autograd.grad((rebuilt[:, :, frame] * weights).sum(), latents, retain_graph=True)
        assert int(gradient.abs().amax(dim=(0, 1, 3, 4)).nonzero().max()) == -(-frame // c)


@pytest.mark.parametrize("kind", KINDS)
def test_group_by_group_is_the_whole(kind):
    model = make(**KINDS[kind]).double()
    c = model.config.temporal_compression
    clip = video(1 + 4 * c).double()
    with torch.no_grad():
        latents = model.encode(clip)
        into, out = Stream(), Stream()
        parts = [model.encode(group, stream=into) for group in clip.split([1, c, 3 * c], dim=2)]
        frames = [model.decode(group, stream=out) for group in latents.split([1, 1, 3], dim=2)]
        rebuilt = model.decode(latents)
    assert torch.allclose(torch.cat(parts, dim=2), latents, rtol=0, atol=1e-12 * float(latents.abs().max()))
    assert torch.allclose(torch.cat(frames, dim=2), rebuilt, rtol=0, atol=1e-12 * float(rebuilt.abs().max()))


@pytest.mark.parametrize(("frames", "nearest"), [(2, "1 or 9"), (8, "1 or 9"), (12, "9 or 17"), (0, "nearest are 1")])
def test_other_lengths_are_refused_with_the_nearest_that_fit(frames, nearest):
    with pytest.raises(ConfigError, match=nearest):
        make().encode(video(frames))
    with pytest.raises(ValueError, match=nearest):
        make().config.latent_frames(frames)


def test_padding_repeats_the_last_frame():
    model = make()
    clip = video(12)
    padded = torch.cat([clip, *[clip[:, :, -1:]] * 5], dim=2)
    assert torch.equal(model.encode(clip, pad=True), model.encode(padded))
    assert torch.equal(model.encode(clip[:, :, :9], pad=True), model.encode(clip[:, :, :9]))


@pytest.mark.parametrize(
    ("clip", "says"),
    [
        (torch.zeros(1, 4, 9, 16, 16), r"\[B, 3, T, H, W\]"),
        (torch.zeros(3, 9, 16, 16), r"\[B, 3, T, H, W\]"),
        (torch.zeros(1, 3, 9, 16, 16, dtype=torch.uint8), "uint8"),
        (torch.zeros(1, 3, 9, 16, 16, dtype=torch.float64), r"float64 given to a tokenizer in torch\.float32"),
        (torch.zeros(1, 3, 9, 16, 20), "width 20: .* nearest: 16 or 24"),
        (torch.zeros(1, 3, 9, 4, 16), "height 4: .* nearest: 8"),
    ],
)
def test_what_is_no_video_is_refused(clip, says):
    with pytest.raises(ConfigError, match=says):
        make().encode(clip)


@pytest.mark.parametrize(
    ("latents", "says"),
    [
        (torch.zeros(1, 4, 2, 2, 2), r"\[B, 5, t, h, w\]"),
        (torch.zeros(1, 5, 0, 2, 2), r"\[B, 5, t, h, w\]"),
        (torch.zeros(1, 5, 2, 2, 2, dtype=torch.int64), "int64 given to a tokenizer"),
    ],
)
def test_what_is_no_latents_is_refused(latents, says):
    with pytest.raises(ConfigError, match=says):
        make().decode(latents)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"spatial_compression": 12}, "power of two"),
        ({"patch_size": 16}, "exceeds"),
        ({"temporal_compression": 32}, "use more levels"),
        ({"channels": [8]}, "at least one level"),
        ({"encoder_blocks": 0}, "nothing changes the width"),
        ({"mid_blocks": 0}, "mid_attention"),
        ({"levels": [8, 8]}, "latent_channels"),
        ({"levels": [8, 8, 8, 8, 1 << 21]}, "at most 1,048,576"),
        ({"levels": [10_000] * 5}, "ids end at 2"),
        ({"dimensions": 2}, "temporal_compression"),
        ({"dimensions": 2, "temporal_compression": 1}, "32 groups"),
    ],
)
def test_configurations_that_cannot_be_are_refused(values, says):
    with pytest.raises(ConfigError, match=says):
        TokenizerConfig.parse({**SMALL, **values})


def test_bf16_stays_near():
    model, clip = make(), video(9)
    with torch.no_grad():
        exact, rough = model(clip), model.bfloat16()(clip.bfloat16()).float()
    assert (rough - exact).norm() <= 0.02 * exact.norm()  # measured 0.0054


def test_start_is_the_best_linear_code():
    """With as many components as the data has dimensions the start is exact."""
    torch.manual_seed(0)
    basis = torch.randn(5, 3 * 4 * 4 * 4)
    patches = torch.randn(2 * 3 * 2 * 2, 5) @ basis  # 5-dimensional patches
    later = patches.view(2, 3, 2, 2, -1)
    clip = join(later[:, :1, ..., :48], later, 4, 4)
    model = Tokenizer(TokenizerConfig.parse({**SMALL, **LINEAR}))
    model.start([clip])
    with torch.no_grad():
        assert torch.allclose(model(clip)[:, :, 1:], clip[:, :, 1:], atol=1e-3)


def test_start_orders_components_and_is_repeatable():
    states = []
    clips = [video(13, seed, side=8) for seed in range(4)]
    for _ in range(2):
        model = Tokenizer(TokenizerConfig.parse({**SMALL, **LINEAR}))
        model.start(clips)
        states.append(model.later_code.encoder.weight.clone())
        spread = model.encode(torch.cat(clips)).detach()[:, :, 1:].var(dim=(0, 2, 3, 4))
        assert spread[0] > spread[-1]
    assert torch.equal(*states)


def test_start_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="no patches"):
        make(**LINEAR).start([])
    make().start([])  # without a linear code there is nothing to start


@pytest.mark.parametrize("more", [{}, FSQ])
def test_networks_beside_a_linear_code_start_as_no_ops_and_learn(more):
    model = Tokenizer(TokenizerConfig.parse({**SMALL, **LINEAR, **more}))
    clips = [video(13, seed) for seed in range(2)]
    model.start(clips)
    before = model(clips[0])
    with torch.no_grad():  # whatever the networks compute, nothing of it comes out
        for network in (model.encoder, model.decoder):
            for name, parameter in network.named_parameters():
                if not name.startswith("conv_out"):
                    parameter.mul_(1.5)
    assert torch.equal(model(clips[0]), before)
    (model(clips[0]) - clips[0]).square().mean().backward()
    assert model.quant_conv.weight.grad.abs().max() > 0
    assert model.decoder.conv_out.last.weight.grad.abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_discrete_round_trip_through_tokens(kind):
    model = make(**KINDS[kind], latent_channels=3, levels=[8, 5, 5])
    clip = video(1 + 2 * model.config.temporal_compression)
    ids = model.tokens(clip)
    assert ids.dtype == torch.int64
    assert ids.shape == model.encode(clip).shape[:1] + model.encode(clip).shape[2:]
    assert 0 <= int(ids.min()) <= int(ids.max()) < model.vocabulary_size == 200
    assert torch.allclose(model.decode_tokens(ids), model(clip), atol=1e-5)


@pytest.mark.parametrize("levels", [(2, 5, 8), (1000, 7, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_discrete_tokenizer_works_in_half_precision(levels, dtype):
    """Before: the decoder refused the fp32 codes of a half tokenizer, so that nothing ran. Ids come from the latents: with
    1,000 levels codes in bf16 give others."""
    model = make(latent_channels=3, levels=list(levels))
    model.quant_conv.bias.data[0] += 1.0  # where bf16 is coarse
    model, clip = model.to(dtype), video(17).to(dtype)
    codes, latents = model.encode(clip), model.encode(clip, quantise=False)
    ids, rebuilt = model.tokens(clip), model(clip)
    assert codes.dtype == latents.dtype == rebuilt.dtype == dtype
    assert torch.equal(ids, model.quantizer.tokens(model.quantizer(latents.float())))
    assert torch.equal(model.decode(codes), rebuilt)
    assert torch.equal(model.decode_tokens(ids), rebuilt)
    assert torch.equal(model.quantizer.tokens(codes), ids) == (dtype == torch.float16 or max(levels) < 500)
    encoder, decoder = StreamingEncoder(model), StreamingDecoder(model)
    groups = (clip[:, :, :1], clip[:, :, 1:9], clip[:, :, 9:])
    streamed = torch.cat([encoder.push_tokens(group) for group in groups], dim=1)
    assert streamed.shape == ids.shape
    frames = torch.cat([decoder.push(part) for part in codes.split(1, dim=2)], dim=2)
    assert frames.dtype == dtype
    assert (frames - rebuilt).norm() <= 0.02 * rebuilt.norm()  # measured 0.006
    tiled = encode_tiled(model, clip, tile=(8, 8), overlap=0, quantise=False)
    assert model.quantizer.latent_tokens(tiled).shape == ids.shape
    (rebuilt - clip).float().square().mean().backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g.dtype == dtype and g.isfinite().all() for g in gradients)
    assert model.encoder.conv_in.conv_s.weight.grad.abs().max() > 0  # it passes the rounding


def test_ids_beyond_32_bits():
    model = make(latent_channels=4, levels=[1000, 1000, 1000, 1000])
    ids = model.tokens(video(9))
    assert int(ids.max()) > 2**31
    assert torch.equal(model.quantizer.tokens(model.quantizer.codes(ids)), ids)
    assert torch.allclose(model.decode_tokens(ids), model(video(9)), atol=1e-5)


def test_latents_that_are_nan_are_no_tokens():
    """Before: whatever integer the processor makes of NaN."""
    model = make(latent_channels=3, levels=[8, 5, 5])
    model.quant_conv.bias.data[1] = torch.nan
    with pytest.raises(DataError, match="NaN, which is no token"):
        model.tokens(video(9))


def test_continuous_tokenizer_has_no_tokens():
    model = make()
    assert model.vocabulary_size == 0
    with pytest.raises(ConfigError, match="continuous"):
        model.tokens(video())


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (torch.full((1, 3, 2, 2), 64_000), "64000.*0 to 63999"),
        (torch.full((1, 3, 2, 2), -1), "-1 to -1"),
        (torch.full((1, 3, 2, 2), 3.7), "float32"),
        (torch.zeros(1, 2, 2, dtype=torch.int64), r"\[1, 2, 2\]"),
    ],
)
def test_ids_that_are_no_tokens_are_refused(ids, words):
    with pytest.raises(ConfigError, match=words):
        make(**FSQ).decode_tokens(ids)
