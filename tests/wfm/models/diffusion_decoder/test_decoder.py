"""The diffusion decoder: what it is told, its prior, its loss, windows of long videos, and what is refused."""

import pytest
import torch

from wfm.errors import ConfigError
from wfm.families.diffusion_decoder.draw import decode_to_latents, decode_tokens, windows
from wfm.generation.sampler_config import SamplerConfig
from wfm.models.diffusion.config import EDMConfig
from wfm.models.diffusion_decoder.config import DecoderConfig
from wfm.models.diffusion_decoder.network import DiffusionDecoder, on_grid
from wfm.models.diffusion_decoder.objective import DecoderObjective
from wfm.models.diffusion_decoder.prior import TokenPrior
from wfm.models.folder import load_model, save_model
from wfm.models.tokenizer import Tokenizer, TokenizerConfig
from wfm.models.tokenizer.quantizer import FiniteScalarQuantizer

SMALL = {
    "levels": (4, 3), "token_channels": 5,
    "denoiser": {
        "statistics_frames": 2,
        "network": {
            "in_channels": 3, "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "text_embed_dim": 0,
            "adaln_lora_dim": 4, "concat_padding_mask": False, "max_size": (16, 16, 16),
        },
    },
}  # fmt: skip
FORMS = [{}, {"embedding": "codes"}, {"mark_first": True, "linear_prior": True}]


def build(**more) -> DiffusionDecoder:
    torch.manual_seed(0)
    model = DiffusionDecoder(DecoderConfig.parse({**SMALL, **more}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if model.token_prior is not None:
        torch.nn.init.normal_(model.token_prior.weight, std=0.1)
        model.token_prior.deviation.fill_(0.2)
    return model.eval()


def pair(frames: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [2, frames, 2, 2] and latents [2, 3, frames, 4, 4] of twice their grid."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 12, (2, frames, 2, 2), generator=generator)
    return tokens, torch.randn(2, 3, frames, 4, 4, generator=generator)


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_tokens_are_channels_beside_the_latents(form):
    """By hand, in fp64: F of the scaled latents with the embedding (and the mark) concatenated, around the prior's mean."""
    model = build(**form).double()
    tokens, noisy = pair()
    noisy, sigma = noisy.double(), 0.7
    ready = model.conditioned(tokens, noisy)
    beside = [on_grid(model.embedding(tokens), noisy)]
    if "mark_first" in form:
        mark = torch.zeros(2, 1, 4, 4, 4, dtype=torch.float64)
        mark[:, :, 0] = 1
        beside.append(mark)
    deviation, mean = 0.5, torch.zeros_like(noisy)
    if model.token_prior is not None:
        codes = on_grid(model.embedding.quantizer.codes(tokens).double(), noisy)
        mean, found = model.token_prior(codes, torch.tensor([True, False, False, False]))
        deviation = float(found.unique())
    total = (sigma**2 + deviation**2) ** 0.5
    inputs = torch.cat([(noisy - mean) / total, *beside], dim=1)
    raw = model.network(inputs, torch.full((1,), sigma, dtype=torch.float64).log() / 4)
    wanted = mean + deviation**2 / total**2 * (noisy - mean) + sigma * deviation / total * raw
    assert (model.denoise(noisy, sigma, ready) - wanted).abs().max() < 1e-10


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_told_nothing_says_the_same_of_any_tokens(form):
    model = build(**form)
    tokens, noisy = pair()
    none = torch.zeros(2, dtype=torch.bool)
    one, other = (model.denoise(noisy, 1.0, model.conditioned(ids, noisy, keep=none)) for ids in (tokens, 11 - tokens))
    assert torch.equal(one, other)
    assert not torch.equal(model.denoise(noisy, 1.0, model.conditioned(tokens, noisy)), one)
    mixed = model.denoise(noisy, 1.0, model.conditioned(tokens, noisy, keep=torch.tensor([True, False])))
    assert torch.allclose(mixed[1], one[1], atol=1e-6)


def test_the_prior_finds_a_linear_code():
    """Latents that are linear in the codes around, but for noise: found to within it, frames of each kind by their own."""
    quantizer = FiniteScalarQuantizer((4, 3))
    generator = torch.Generator().manual_seed(2)
    codes = quantizer.codes(torch.randint(0, 12, (200, 3, 4, 4), generator=generator))
    noise = 0.05 * torch.randn(200, 1, 3, 4, 4, generator=generator)
    latents = 0.5 * codes[:, :1] - 0.25 * codes[:, 1:].roll(1, dims=2) + noise  # the frame before
    latents[:, :, 0] = codes[:, 1, :1].squeeze(1)[:, None] + noise[:, :, 0]
    prior = TokenPrior(2, 1, 0.5)
    prior.fit([(codes, latents)])
    mean, deviation = prior(codes, torch.tensor([True, False, False]))
    assert (mean - (latents - noise)).abs().mean() < 0.01
    assert deviation[0, 0, :, 0, 0].tolist() == pytest.approx([0.05] * 3, rel=0.05)


def test_the_share_that_is_told_nothing_comes_from_the_seeds():
    model, (tokens, latents) = build(), pair()
    objective = DecoderObjective(EDMConfig(condition_latents=(0,), text_dropout=0.2))
    drawn = objective.draw(model, torch.arange(2000), latents.shape)["keep_text"]
    assert 0.17 < 1 - float(drawn.float().mean()) < 0.23
    batch = {"tokens": tokens, "latents": latents, "seeds": torch.tensor([5, 6])}
    alone = {name: value[1:] for name, value in batch.items()}
    both = [float(objective.loss(model, batch, 0)[0].detach()) for _ in range(2)]
    assert both[0] == both[1]
    first = float(objective.loss(model, {name: value[:1] for name, value in batch.items()}, 0)[0].detach())
    second = float(objective.loss(model, alone, 0)[0].detach())
    assert both[0] == pytest.approx((first + second) / 2, rel=1e-5)


def test_every_second_step_sees_a_window_from_further_on():
    model, (tokens, latents) = build(mark_first=True), pair(frames=5)
    objective = DecoderObjective(EDMConfig(condition_latents=(0,), pixel_share=1.0))
    batch = {"tokens": tokens, "latents": latents, "seeds": torch.tensor([5, 6])}
    starts = []
    for step in range(8):
        loss, values = objective.loss(model, batch, step)
        assert torch.isfinite(loss)
        assert values["mse"] > 0
        starts.append(objective.start)
    assert starts == [0, 1, 0, 2, 0, 3, 0, 1]


@pytest.mark.parametrize(
    ("frames", "window", "overlap"), [(9, 4, 1), (9, 4, 2), (12, 5, 3), (5, 4, 2), (4, 4, 2), (30, 8, 2)]
)
def test_windows_cover_and_sum_to_one(frames, window, overlap):
    spans, shares = windows(frames, window, overlap)
    total = torch.zeros(frames)
    for (start, end), share in zip(spans, shares, strict=True):
        assert end - start == len(share) == min(window, frames)
        assert (share > 0).all()
        total[start:end] += share
    assert torch.allclose(total, torch.ones(frames))
    assert spans[0][0] == 0
    assert spans[-1][1] == frames


SAMPLING = SamplerConfig(sampler="euler", steps=3, sigma_max=8.0)


def test_a_window_as_long_as_the_video_is_the_whole():
    model, (tokens, _) = build(linear_prior=True), pair(frames=6)
    wholes = [
        decode_to_latents(model, tokens, (4, 4), seeds=[1, 2], sampling=SAMPLING, window=window) for window in (0, 6, 9)
    ]
    assert torch.equal(wholes[0], wholes[1])
    assert torch.equal(wholes[0], wholes[2])
    cut = decode_to_latents(model, tokens, (4, 4), seeds=[1, 2], sampling=SAMPLING, window=4, overlap=2)
    assert cut.shape == wholes[0].shape
    first = decode_to_latents(model, tokens[:, :4], (4, 4), seeds=[1, 2], sampling=SAMPLING)
    assert cut[:, :, 0].isfinite().all()
    assert first.shape[2] == 4
    alone = decode_to_latents(model, tokens[1:], (4, 4), seeds=[2], sampling=SAMPLING)
    assert torch.allclose(alone[0], wholes[0][1], atol=1e-5)  # of its own seed, whoever stands beside it


def test_guidance_moves_away_from_what_is_told_nothing():
    model, (tokens, _) = build(), pair()
    how = {"seeds": [1, 2], "mode": "mean"}
    plain = decode_to_latents(model, tokens, (4, 4), sampling=SAMPLING, **how)
    guided = SAMPLING.model_copy(update={"guidance": SAMPLING.guidance.model_copy(update={"scale": 3.0})})
    assert torch.equal(decode_to_latents(model, tokens, (4, 4), sampling=guided, **how), plain)  # a mean has none
    how["mode"] = "sample"
    sampled, moved = (decode_to_latents(model, tokens, (4, 4), sampling=s, **how) for s in (SAMPLING, guided))
    assert not torch.allclose(sampled, moved)


def test_a_folder_brings_it_back(tmp_path):
    model, (tokens, noisy) = build(mark_first=True, linear_prior=True), pair()
    save_model(model, model.decoder_config, tmp_path)
    again, card = load_model(tmp_path)
    assert card.family == "diffusion_decoder"
    with torch.no_grad():
        wanted, found = (m.denoise(noisy, 1.0, m.conditioned(tokens, noisy)) for m in (model, again))
    assert torch.equal(wanted, found)


def test_the_released_one_has_the_parameters_that_its_channels_make():
    """The 7B network with 32 more channels in its patches: 4096 x 32 x 4 weights more than `diffusion-7b`."""
    with torch.device("meta"):
        model = DiffusionDecoder(DecoderConfig.released())
    assert sum(p.numel() for p in model.network.parameters()) == 7_236_192_256 + 4096 * 32 * 4
    assert model.embedding.table.weight.shape == (64_000, 32)


def test_what_does_not_fit_is_refused():
    model, (tokens, noisy) = build(), pair()
    for given, says in (
        (tokens + 1, "token ids from .* to 12: this decoder's are 0 to 11"),
        (tokens[:, :3], "do not fit latents"),
        (torch.zeros(2, 4, 3, 2, dtype=torch.int64), "sides that divide"),
        (tokens.float(), "wanted integers"),
    ):
        with pytest.raises(ConfigError, match=says):
            model.conditioned(given, noisy)
    with pytest.raises(ConfigError, match="overlap is 4; windows of 4"):
        decode_to_latents(model, pair(9)[0], (4, 4), seeds=[1, 2], sampling=SAMPLING, window=4, overlap=4)
    other = Tokenizer(TokenizerConfig(latent_channels=4, channels=(8, 8, 8, 8)))
    with pytest.raises(ConfigError, match="latents of 3 channels; this tokenizer has 4"):
        decode_tokens(model, other, tokens, (32, 32), seeds=[1, 2], sampling=SAMPLING)
    with pytest.raises(ConfigError, match=r"condition_latents is \(1,\)"):
        DecoderObjective(EDMConfig(condition_latents=(1,))).loss(model, {"latents": noisy, "seeds": torch.arange(2)}, 0)
    with pytest.raises(ConfigError, match="given tokens alone"):
        DecoderConfig.parse({**SMALL, "denoiser": {**SMALL["denoiser"], "action_width": 2}})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@torch.no_grad()
def test_a_decoder_in_half_answers_a_state_in_fp32(dtype):
    # As samplers ask; before: "expected scalar type Float but found BFloat16".
    tokens, noisy = pair()
    model = build(linear_prior=True)
    wanted = model.denoise(noisy, 1.0, model.conditioned(tokens, noisy))
    model = model.to(dtype)
    found = model.denoise(noisy, 1.0, model.conditioned(tokens, noisy))
    assert found.dtype == torch.float32
    assert (found - wanted).norm() < 0.05 * wanted.norm()
