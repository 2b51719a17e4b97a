"""The tokenizer: causality, shapes, the closed-form start, and that training can only improve on it."""

import pytest
import torch

from wfm.errors import ConfigError
from wfm.models.tokenizer import Tokenizer, TokenizerConfig

SMALL = {"temporal_compression": 4, "spatial_compression": 4, "hidden": 12, "encoder_blocks": 1, "decoder_blocks": 1}


def make(**more) -> Tokenizer:
    torch.manual_seed(0)
    model = Tokenizer(TokenizerConfig.parse({**SMALL, "latent_channels": 5, **more}))
    for parameter in model.parameters():  # the last layers start at zero, which would hide a leak
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def video(frames: int = 13, seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, frames, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("frames", [1, 5, 13])
def test_shapes(frames):
    model = make()
    latents = model.encode(video(frames))
    assert latents.shape == (2, 5, 1 + (frames - 1) // 4, 2, 2)
    assert model.decode(latents).shape == (2, 3, frames, 8, 8)


@pytest.mark.parametrize("frames", [2, 4, 12])
def test_other_lengths_are_refused(frames):
    with pytest.raises(ConfigError, match=r"1 \+ 4n"):
        make().encode(video(frames))
    with pytest.raises(ValueError, match="takes 1"):
        make().config.latent_frames(frames)


def test_latents_never_look_ahead():
    model, source = make(), video().requires_grad_()
    latents = model.encode(source)
    for index in range(latents.shape[2]):
        (gradient,) = torch.autograd.grad(latents[:, :, index].sum(), source, retain_graph=True)
        reach = gradient.abs().amax(dim=(0, 1, 3, 4)).nonzero().flatten()
        assert int(reach.max()) == 4 * index  # up to its own last frame, and that one does count


def test_frames_never_look_ahead():
    model = make()
    latents = model.encode(video()).detach().requires_grad_()
    rebuilt = model.decode(latents)
    for frame in range(rebuilt.shape[2]):
        (gradient,) = torch.autograd.grad(rebuilt[:, :, frame].sum(), latents, retain_graph=True)
        assert int(gradient.abs().amax(dim=(0, 1, 3, 4)).nonzero().max()) == -(-frame // 4)


def test_start_is_the_best_linear_code():
    """With as many components as the data has dimensions the start is exact; with fewer it beats any random
    projection."""
    torch.manual_seed(0)
    basis = torch.randn(5, 3 * 4 * 4 * 4)
    patches = torch.randn(2 * 3 * 2 * 2, 5) @ basis  # 5-dimensional patches
    from wfm.models.tokenizer.patches import join

    later = patches.view(2, 3, 2, 2, -1)
    clip = join(later[:, :1, ..., :48], later, 4, 4)
    model = Tokenizer(TokenizerConfig.parse({**SMALL, "latent_channels": 5}))
    model.start([clip])
    with torch.no_grad():
        assert torch.allclose(model(clip)[:, :, 1:], clip[:, :, 1:], atol=1e-3)


def test_start_orders_components_and_is_repeatable():
    states = []
    for _ in range(2):
        model = Tokenizer(TokenizerConfig.parse({**SMALL, "latent_channels": 5}))
        model.start([video(13, seed) for seed in range(4)])
        states.append(model.later_code.encoder.weight.clone())
        clips = torch.cat([video(13, seed) for seed in range(4)])
        spread = model.encode(clips).detach()[:, :, 1:].var(dim=(0, 2, 3, 4))
        assert spread[0] > spread[-1]
    assert torch.equal(*states)


def test_start_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="no patches"):
        make().start([])


def test_networks_start_as_no_ops():
    model = Tokenizer(TokenizerConfig.parse({**SMALL, "latent_channels": 5}))
    bare = Tokenizer(TokenizerConfig.parse({**SMALL, "latent_channels": 5, "encoder_blocks": 0, "decoder_blocks": 0}))
    clips = [video(13, seed) for seed in range(2)]
    model.start(clips)
    bare.start(clips)
    assert torch.equal(model(clips[0]), bare(clips[0]))


def test_discrete_round_trip_through_tokens():
    model = make(latent_channels=3, levels=[8, 5, 5])
    model.start([video(13, seed) for seed in range(4)])
    ids = model.tokens(video())
    assert ids.dtype == torch.int64
    assert ids.shape == (2, 4, 2, 2)
    assert 0 <= int(ids.min()) <= int(ids.max()) < model.vocabulary_size == 200
    assert torch.allclose(model.decode_tokens(ids), model(video()), atol=1e-5)


def test_continuous_tokenizer_has_no_tokens():
    model = make()
    assert model.vocabulary_size == 0
    with pytest.raises(ConfigError, match="continuous"):
        model.tokens(video())


def test_levels_must_fit_the_channels():
    with pytest.raises(ConfigError, match="latent_channels"):
        TokenizerConfig.parse({"latent_channels": 4, "levels": [8, 8]})
