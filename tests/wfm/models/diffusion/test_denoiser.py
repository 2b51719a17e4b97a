"""The denoiser: the given past as Cosmos has it, preconditioning of both objectives, noise levels, units, bad input."""

import pytest
import torch

from wfm.errors import ConfigError
from wfm.models.diffusion import Conditions, DenoiserConfig
from wfm.models.diffusion.conditioning import given_mask

TEXT = {"text_embed_dim": 6}


def latents(seed: int = 1, frames: int = 4) -> torch.Tensor:
    return torch.randn(2, 3, frames, 4, 6, generator=torch.Generator().manual_seed(seed))


ACTIONS = torch.randn(2, 13, 2, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def denoise(model, sigma=1.0, noisy=None, **conditions):
    """By the names of tensors; the past in normalised units, in which it comes back."""
    names = ("text", "text_lengths", "actions", "extrapolated")
    tensors = {name: conditions.pop(name) for name in names if name in conditions}
    past = conditions.pop("past", latents(2))
    told = {} if past is None else past_of(past, conditions.pop("given", 2))
    return model.denoise(latents() if noisy is None else noisy, sigma, Conditions(told | tensors, **conditions))


def past_of(past, given):
    """Tensors of a past in normalised units, whose deviation is 0.5."""
    return {"past": 2 * past, "given": torch.as_tensor(given)}


# The given past


def test_given_frames_come_back_as_they_are(denoiser):
    out = denoise(denoiser())
    assert out.shape == (2, 3, 4, 4, 6)
    assert torch.equal(out[:, :, :2], latents(2)[:, :, :2])
    assert not torch.equal(out[:, :, 2:], latents(2)[:, :, 2:])


def test_only_given_frames_of_the_past_are_read(denoiser):
    model, past = denoiser(repeat_last=True), latents(2)
    past[:, :, 2:] = 99.0
    assert torch.equal(denoise(model), denoise(model, past=past))


def test_the_past_matters_and_noise_on_given_frames_does_not(denoiser):
    model, past, noisy = denoiser(), latents(2), latents()
    past[:, :, 0] += 1
    assert not torch.allclose(denoise(model)[:, :, 2:], denoise(model, past=past)[:, :, 2:])
    noisy[:, :, 0] += 1
    assert torch.equal(denoise(model), denoise(model, noisy=noisy))


def test_video2world_is_what_cosmos_does(denoiser):
    """By hand: the past with its noise, times c_in(s_aug) / c_in(s), in place of the noisy frames, then everything times
    c_in(s); the mask channel; the past itself in place of the prediction."""
    model, past, noise = denoiser().double(), latents(2).double(), latents(5).double()
    sigma, augment = torch.tensor([3.0, 0.7]).double(), torch.tensor([0.2, 0.05]).double()
    s, a = (x[:, None, None, None, None] for x in (sigma, augment))

    def c_in(x):
        return 1 / (x**2 + 0.5**2).sqrt()

    mask = given_mask(torch.tensor([2, 1]), 4)
    mixed = torch.where(mask, (past + a * noise) * c_in(a) / c_in(s), latents().double())
    with torch.no_grad():
        shown = mask.double().expand(-1, -1, -1, 4, 6)
        raw = model.network(mixed * c_in(s), sigma.log() / 4, channels={"given": shown})
    plain = 0.25 / (s**2 + 0.25) * latents().double() + s * 0.5 * c_in(s) * raw
    wanted = torch.where(mask, past, plain)
    made = denoise(
        model, sigma, latents().double(), past=past, given=torch.tensor([2, 1]), augment_sigma=augment, augment_noise=noise
    )  # fmt: skip
    assert torch.allclose(made, wanted, atol=1e-12)


def test_given_frames_are_released_at_their_own_noise_level(denoiser):
    model = denoiser()
    release = {"augment_sigma": 0.3, "augment_noise": latents(5), "release_given": True}
    held, free = denoise(model, 0.31, **release), denoise(model, 0.3, **release)
    assert torch.equal(held[:, :, :2], latents(2)[:, :, :2])
    assert not torch.equal(free[:, :, :2], latents(2)[:, :, :2])
    other = latents()
    other[:, :, 0] += 1  # now the noisy frames are what is read
    assert torch.equal(denoise(model, 0.31, other, **release), held)
    assert not torch.equal(denoise(model, 0.3, other, **release), free)
    assert torch.equal(denoise(model, 0.3, **{**release, "release_given": False})[:, :, :2], latents(2)[:, :, :2])


def test_numbers_of_given_frames_differ_within_a_batch(denoiser):
    model = denoiser(repeat_last=True)
    mixed = denoise(model, given=torch.tensor([1, 3]))
    assert torch.allclose(mixed[0], denoise(model, given=1)[0], atol=1e-5)
    assert torch.allclose(mixed[1], denoise(model, given=3)[1], atol=1e-5)
    assert denoise(model, given=0).isfinite().all()


def test_nothing_given_is_the_same_as_no_past(denoiser):
    model = denoiser(repeat_last=True)
    assert torch.equal(denoise(model, given=0), denoise(model, past=None))


def test_a_past_without_its_number_is_given_whole(denoiser):
    model = denoiser(repeat_last=True)
    with torch.no_grad():
        made = model.denoise(latents(), 1.0, Conditions({"past": 2 * latents(2)[:, :, :2]}))
    assert torch.equal(made, denoise(model))


def test_the_mask_of_published_weights_stands_in_one_product_with_the_latents(denoiser):
    """The same model either way, up to rounding: columns of one matrix, or a matrix of their own."""
    apart, one = denoiser().double(), denoiser(published_mask=True).double()
    state = apart.state_dict()
    given = state.pop("network.patch_embed.proj_given.weight")
    state["network.patch_embed.proj.weight"] = torch.cat([state["network.patch_embed.proj.weight"], given], dim=1)
    one.load_state_dict(state)
    noisy, past = latents().double(), latents(2).double()
    for how in ({"given": 2}, {"given": torch.tensor([0, 3])}):
        assert torch.allclose(denoise(one, 1.0, noisy, past=past, **how), denoise(apart, 1.0, noisy, past=past, **how))
    assert torch.allclose(denoise(one, 1.0, noisy, past=None), denoise(apart, 1.0, noisy, past=None))


def test_options_change_what_they_claim_to(denoiser):
    assert denoiser().config.network_config.channels == {"given": 1}
    assert denoiser(repeat_last=True).config.network_config.channels == {"past": 3, "given": 1}
    both = {"repeat_last": True, "extrapolate": True, "published_mask": True}
    assert denoiser(**both).config.network_config.channels == {"past": 3, "extrapolation": 3}
    model, extrapolated = denoiser(extrapolate=True), latents(2)
    given, future = extrapolated.clone(), extrapolated.clone()
    given[:, :, :2] += 1
    future[:, :, 2:] += 1
    made, other, same = (denoise(model, extrapolated=shown) for shown in (extrapolated, future, given))
    assert not torch.equal(made, other)
    assert torch.equal(made, same), "where frames are given they are what is shown"


# Actions and text


def test_actions_matter_each_for_its_own_sample(denoiser):
    model, actions = denoiser(action_width=2), ACTIONS.clone()
    actions[0, 9] += 1
    before, after = denoise(model, actions=ACTIONS), denoise(model, actions=actions)
    assert not torch.allclose(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_unknown_actions_are_the_null_action(denoiser):
    model = denoiser(action_width=2)
    none = denoise(model)
    masked = denoise(model, actions=ACTIONS, present={"action": torch.tensor([False, True])})
    assert torch.allclose(none[0], masked[0], atol=1e-6)
    assert torch.allclose(masked[1], denoise(model, actions=ACTIONS)[1], atol=1e-6)
    assert not torch.allclose(none[1], masked[1])


def test_no_text_is_zeros(denoiser):
    model = denoiser(network=TEXT)
    text = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(4))
    assert torch.allclose(denoise(model), denoise(model, text=torch.zeros(2, 5, 6)), atol=1e-6)
    assert not torch.allclose(denoise(model), denoise(model, text=text))
    short = text.clone()
    short[:, 3:] = 9.0
    lengths = torch.tensor([3, 3])
    assert torch.equal(
        denoise(model, text=text, text_lengths=lengths), denoise(model, text=short, text_lengths=lengths)
    )


# Preconditioning and noise levels


@pytest.mark.parametrize("objective", ["edm", "flow"])
def test_scaling_keeps_unit_deviation(denoiser, objective):
    """What enters the network and what it should answer have deviation 1 at every noise level (EDM), and the flow's are
    y_t / sd and the velocity / sd."""
    model = denoiser(objective=objective, sigma_data=0.7)
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 100_000, dtype=torch.float64) * torch.tensor([[0.7], [1.0]])
    for sigma in (0.01, 0.4, 3.0, 80.0):
        s = torch.tensor(sigma, dtype=torch.float64)
        factors = model.scaling(s, 0.7)
        inputs = factors.inside * (clean + s * noise)
        target = (clean - factors.skip * (clean + s * noise)) / factors.out
        if objective == "edm":
            assert inputs.std() == pytest.approx(1, abs=0.01)
            assert target.std() == pytest.approx(1, abs=0.01)
            assert float(model.noise_feature(s)) == pytest.approx(float(s.log()) / 4)
        else:
            t = sigma / (sigma + 0.7)
            assert torch.allclose(inputs, ((1 - t) * clean + t * 0.7 * noise) / 0.7)
            assert torch.allclose(target, (0.7 * noise - clean) / 0.7)
            assert float(model.noise_feature(s)) == pytest.approx(t)


@pytest.mark.parametrize("objective", ["edm", "flow"])
def test_limits(denoiser, objective):
    model = denoiser(objective=objective)
    quiet = denoise(model, 1e-4)
    assert torch.allclose(quiet[:, :, 2:], latents()[:, :, 2:], atol=1e-2)  # nothing to remove
    loud = denoise(model, 80.0, latents() * 80)
    assert loud[:, :, 2:].std() < 5  # a guess in the units of data, not of noise


@pytest.mark.parametrize("objective", ["edm", "flow"])
@pytest.mark.parametrize("more", [{}, {"action_width": 2}, {"linear_prior": True}])
def test_a_level_for_each_frame_is_the_same_as_one_for_all_when_equal(denoiser, objective, more):
    model = denoiser(objective=objective, **more).double()
    noisy, past = latents().double(), latents(2).double()
    one = denoise(model, 0.8, noisy, past=past)
    for sigma in (torch.full((2,), 0.8), torch.full((2, 4), 0.8)):
        assert torch.allclose(denoise(model, sigma.double(), noisy, past=past), one, atol=1e-7)
    other = torch.full((2, 4), 0.8)
    other[0, 3] = 2.0
    changed = denoise(model, other.double(), noisy, past=past)
    assert not torch.allclose(changed[0], one[0])
    assert torch.allclose(changed[1], one[1], atol=1e-7)


def test_a_fresh_flow_predicts_no_velocity_and_edm_no_residual(denoiser):
    fresh = {"shaken": False, "network": {"zero_output": True}}
    sigma, out = 1.5, {}
    for objective in ("edm", "flow"):
        out[objective] = denoise(denoiser(objective=objective, **fresh), sigma)[:, :, 2:]
    noisy = latents()[:, :, 2:]
    assert torch.allclose(out["edm"], noisy * 0.25 / (0.25 + sigma**2))
    assert torch.allclose(out["flow"], noisy * 0.5 / (0.5 + sigma))


def test_prepared_once_is_the_same_as_every_time(denoiser):
    model = denoiser(network=TEXT, action_width=2, repeat_last=True, linear_prior=True)
    text = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(4))
    conditions = Conditions({**past_of(latents(2), 2), "text": text, "actions": ACTIONS}, fps=30.0)
    plain = model.denoise(latents(), 0.7, conditions)  # with gradients nothing is prepared
    with torch.no_grad():
        ready = model.prepare(conditions, latents())
        for sigma in (5.0, 0.7):
            made = model.denoise(latents(), sigma, ready)
    assert torch.allclose(made, plain, atol=1e-6)


def test_time_in_seconds_is_by_the_models_own_rate_unless_another_is_given(denoiser):
    seconds, counted = denoiser(fps_positions=True, fps=12.0), denoiser(fps=12.0)
    counted.load_state_dict(seconds.state_dict())
    assert torch.equal(denoise(seconds), denoise(counted, fps=12.0))
    assert torch.equal(denoise(seconds, fps=24.0), denoise(counted))  # 24 is the unit of time
    assert not torch.equal(denoise(seconds), denoise(counted))
    told = seconds.denoise(latents(), 1.0, Conditions(past_of(latents(2), 2)))  # with gradients nothing is prepared
    assert torch.allclose(told, denoise(seconds), atol=1e-6)


def test_half_precision_keeps_its_noise_levels(denoiser):
    model = denoiser()
    wanted = denoise(model, 0.013)
    made = denoise(model.bfloat16(), 0.013)  # latents and formulas in fp32 around a bf16 network
    assert made.dtype == torch.float32
    assert (made - wanted).abs().max() < 2e-3


def test_uncertainty_starts_at_nothing(denoiser):
    model = denoiser(shaken=False, uncertainty=128)
    assert model.uncertainty(torch.tensor([0.1, 5.0])).tolist() == [0, 0]
    assert {"logvar.0.freqs", "logvar.0.phases", "logvar.1.weight"} <= set(model.state_dict())
    assert model.logvar[1].weight.shape == (1, 128)
    assert denoiser().uncertainty(torch.tensor([0.1])) is None
    torch.nn.init.ones_(model.logvar[1].weight)
    found = model.uncertainty(torch.tensor([[0.1, 5.0]]))
    assert found.shape == (1, 2)
    assert found[0, 0] != found[0, 1]


# Bad input


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"actions": torch.zeros(2, 13, 3)}, r"wanted \[2, frames, 2\]"),
        ({"actions": torch.zeros(2, 11, 2)}, "12 needed"),
        ({"given": 5}, "use 0 to 4"),
        ({"given": -1}, "use 0 to 4"),
        ({"past": latents(frames=5)}, "past has shape"),
        ({"past": latents(frames=3)[:, :2], "given": 2}, "past has shape"),
        ({"past": latents(frames=3), "given": 4}, r"given is \[4, 4\] of 3 latent frames: use 0 to 3"),
        ({"noisy": torch.zeros(2, 4, 4, 4, 6)}, r"wanted \[B, 3, T, H, W\]"),
        ({"noisy": torch.zeros(2, 3, 4, 6)}, r"wanted \[B, 3, T, H, W\]"),
        ({"sigma": torch.ones(3)}, r"sigma has shape \[3\]"),
        ({"sigma": torch.ones(2, 3)}, r"\[2, 4\]"),
        ({"augment_sigma": 0.1}, "augment_noise"),
        ({"augment_sigma": 0.1, "augment_noise": latents(frames=3)}, "augment_noise has shape"),
        (
            {"text": torch.zeros(2, 5, 6)},
            r"text \[2, 5, 6\] given, and this model takes none; its conditions: past, action",
        ),
    ],
)
def test_wrong_input_is_refused(denoiser, change, words):
    with pytest.raises(ConfigError, match=words):
        denoise(denoiser(action_width=2), **change)


def test_frames_that_are_given_of_no_past_are_refused(denoiser):
    with pytest.raises(ConfigError, match=r"given is \[2\] and there is no `past`: give its latents"):
        denoiser().denoise(latents(), 1.0, Conditions({"given": torch.tensor([2])}))


def test_what_a_model_was_not_built_for_is_refused(denoiser):
    with pytest.raises(ConfigError, match="takes none"):
        denoise(denoiser(), actions=ACTIONS)
    with pytest.raises(ConfigError, match=r"past \[2, 3, 4, 4, 6\] given, and this model takes none"):
        denoise(denoiser(network={"condition_mask": False}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"repeat_last": True}, "condition_mask"),
        ({"network": {"extra_channels": 5}}, "network.extra_channels is 5"),
        ({"network": {"action_dim": 7}}, "network.action_dim is 7"),
        ({"objective": "score"}, "edm"),
        ({"sigma_data": 0.0}, "sigma_data"),
        ({"statistics_frames": 0}, "statistics_frames"),
    ],
)
def test_configs_that_contradict_themselves_are_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        DenoiserConfig.parse(values)


def test_the_feature_width_of_the_config_is_that_of_the_features(denoiser):
    model = denoiser(action_width=2)
    assert model.config.action_dim == 2 * (7 + model.config.temporal_compression)
    assert model.network.config.action_dim == model.config.action_dim


def test_given_mask():
    assert given_mask(torch.tensor([0, 2]), 3)[:, 0, :, 0, 0].tolist() == [[False] * 3, [True, True, False]]


@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_a_level_without_a_logarithm_is_refused(denoiser, sigma):
    model = denoiser()
    noisy = torch.zeros(1, model.config.network.in_channels, 2, 4, 4)
    with pytest.raises(ConfigError, match="sigma is"):
        model.denoise(noisy, sigma, Conditions())
