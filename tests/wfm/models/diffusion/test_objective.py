"""The training objective: its randomness belongs to the sample, its options do what they say, its optimum is what it
claims, and a small model learns."""

import pytest
import torch

from wfm.errors import ConfigError
from wfm.models.diffusion import Conditions, DenoisingObjective, EDMConfig, FlowConfig
from wfm.models.diffusion.conditioning import given_mask
from wfm.models.diffusion.denoiser import spread

SHAPE = torch.Size((3, 3, 4, 4))
BOTH = {"edm": EDMConfig, "flow": FlowConfig}
ZERO = {"shaken": False, "network": {"zero_output": True}}


def batch(seeds=(1, 2, 3, 4)) -> dict:
    generator = torch.Generator().manual_seed(0)
    count = len(seeds)
    return {
        "latents": torch.randn(count, *SHAPE, generator=generator),
        "actions": torch.randn(count, 9, 1, generator=generator),
        "seeds": torch.tensor(seeds),
    }


def without_actions() -> dict:
    return {name: x for name, x in batch().items() if name != "actions"}


def draw(model, count: int = 1500, kind=EDMConfig, shape=(1, 1, 1, 1), **values) -> dict:
    return DenoisingObjective(kind(**values)).draw(model, torch.arange(count), torch.Size(shape))


def value(objective, model, one) -> float:
    return float(objective.loss(model, one, 0)[0].detach())


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("kind", BOTH.values())
def test_a_sample_draws_the_same_in_any_batch(denoiser, kind, per_frame):
    objective, model = DenoisingObjective(kind(per_frame=per_frame)), denoiser()
    alone, together = (objective.draw(model, torch.tensor(seeds), SHAPE) for seeds in ([7], [3, 7]))
    assert alone["sigma"].shape == ((1, 3) if per_frame else (1,))
    for name, found in alone.items():
        assert torch.equal(found[0], together[name][1])
        assert name in ("given", "keep_action", "keep_text") or not torch.equal(together[name][0], together[name][1])


def test_noise_is_drawn_from_the_whole_seed(denoiser):
    # Before: from its lowest 32 bits, and these two were alike.
    drawn = DenoisingObjective(EDMConfig()).draw(denoiser(), torch.tensor([7, 7 + 2**32]), torch.Size((2, 1, 2, 2)))
    assert not torch.equal(*drawn["noise"])
    assert drawn["sigma"][0] != drawn["sigma"][1]


@pytest.mark.parametrize("name", BOTH)
def test_loss_is_a_function_of_the_batch(denoiser, name):
    objective, model = DenoisingObjective(BOTH[name]()), denoiser(objective=name, action_width=1)
    torch.manual_seed(1)
    first = value(objective, model, batch())
    torch.manual_seed(2)
    assert value(objective, model, batch()) == first
    assert value(objective, model, batch((5, 6, 7, 8))) != first


@pytest.mark.parametrize(("name", "wanted"), [("edm", 1.0), ("flow", 2.0)])
def test_an_untrained_model_has_a_known_loss(denoiser, name, wanted):
    """F = 0. EDM predicts c_skip x, whose weighted error is the variance of the data over sd^2: 1 in expectation. The
    flow's is that of the velocity, of the noise and of the data: 2."""
    network, losses = denoiser(objective=name, action_width=1, **ZERO), []
    objective = DenoisingObjective(BOTH[name](condition_latents=(0,)))
    for start in range(0, 400, 4):
        one = batch(range(start, start + 4))
        one["latents"] = (one["latents"] - one["latents"].mean()) / one["latents"].std()
        losses.append(value(objective, network, one))
    assert sum(losses) / len(losses) == pytest.approx(wanted, rel=0.05)


def test_the_flow_loss_is_the_squared_error_of_the_velocity(denoiser):
    """Computed along the other way: the network's answer at y_t against (noise - data), both in units of sigma_data."""
    model = denoiser(objective="flow").double()
    objective = DenoisingObjective(FlowConfig(condition_latents=(1,), pure_noise_probability=0.0))
    one = {"latents": batch()["latents"].double(), "seeds": batch()["seeds"]}
    clean = model.normalise(one["latents"])
    found = objective.draw(model, one["seeds"], clean.shape)
    noise, augment, given = found["noise"].double(), found["augment"].double(), given_mask(found["given"], 3)
    time = found["sigma"].double() / (found["sigma"].double() + 0.5)
    t = spread(time)
    y = ((1 - t) * clean + t * 0.5 * noise) / 0.5
    past = (clean + spread(augment) * found["augment_noise"].double()) / (spread(augment) + 0.5)
    shown = given.double().expand(-1, -1, -1, *y.shape[3:])
    raw = model.network(torch.where(given, past, y), time, channels={"given": shown})
    error = (raw - (0.5 * noise - clean) / 0.5).square()[:, :, 1:]
    assert value(objective, model, one) == pytest.approx(float(error.detach().mean()), rel=1e-9)


DIRECTIONS = {
    "constant": lambda y, t: torch.ones_like(y), "linear": lambda y, t: y, "square": lambda y, t: y**2,
    "time": lambda y, t: t + 0 * y, "wave": lambda y, t: (3 * y).sin(),
}  # fmt: skip


class Velocity(torch.nn.Module):
    """In place of the network: the exact velocity of 0.3 N(-1, 0.2^2) + 0.7 N(0.5, 0.3^2) at y_t = `latents` (sd = 1),
    and some of each wrong direction, which must not pay."""

    dtype = torch.float64

    def __init__(self) -> None:
        super().__init__()
        self.amounts = torch.nn.Parameter(torch.zeros(len(DIRECTIONS), dtype=torch.float64))

    def forward(self, latents, time, **_):
        t = spread(time)
        mean, deviation, weight = (torch.tensor(v).double() for v in ([-1.0, 0.5], [0.2, 0.3], [0.3, 0.7]))
        variance = ((1 - t[..., None]) * deviation) ** 2 + t[..., None] ** 2
        off = latents[..., None] - (1 - t[..., None]) * mean
        each = mean + (1 - t[..., None]) * deviation**2 / variance * off
        share = (weight.log() - 0.5 * variance.log() - 0.5 * off**2 / variance).softmax(-1)
        wrong = sum(a * way(latents, t) for a, way in zip(self.amounts, DIRECTIONS.values(), strict=True))
        return (latents - (share * each).sum(-1)) / t + wrong


def test_the_optimum_of_the_flow_loss_is_the_exact_velocity(denoiser):
    """At a minimum the slope of the expected loss is zero in any direction: here it is within four standard errors of 0
    in each of five; half a step in a direction away from there it leads back, by more than eight."""
    model = denoiser(objective="flow", sigma_data=1.0).double()
    model.network = Velocity()
    torch.manual_seed(0)
    count = 8000
    data = torch.where(torch.rand(count) < 0.3, -1 + 0.2 * torch.randn(count), 0.5 + 0.3 * torch.randn(count)).double()
    latents = data.view(count, 1, 1, 1, 1).expand(-1, 3, -1, -1, -1)
    objective = DenoisingObjective(FlowConfig(condition_latents=(0,), pure_noise_probability=0.0))

    def slopes(amounts: torch.Tensor, samples: int) -> torch.Tensor:
        with torch.no_grad():
            model.network.amounts.copy_(amounts)
        parts = []
        for start in range(0, samples, 100):
            one = {"latents": latents[start : start + 100], "seeds": torch.arange(start, start + 100)}
            parts.append(torch.autograd.grad(objective.loss(model, one, 0)[0], model.network.amounts)[0])
        found = torch.stack(parts)
        return found.mean(0) / (found.std(0) / len(found) ** 0.5)  # in standard errors

    assert slopes(torch.zeros(5), count).abs().max() < 4
    for i in range(len(DIRECTIONS)):
        assert slopes(0.5 * torch.eye(5)[i], 1000)[i] > 8


@pytest.mark.parametrize("name", BOTH)
def test_given_frames_cost_nothing(denoiser, name):
    objective = DenoisingObjective(BOTH[name](condition_latents=(2,)))
    model = denoiser(objective=name, action_width=1)
    right = model.denoise

    def wrong_about_the_past(noisy, sigma, ready):
        clean = right(noisy, sigma, ready)
        return torch.cat([clean[:, :, :2] + 100, clean[:, :, 2:]], dim=2)

    plain = value(objective, model, batch())
    model.denoise = wrong_about_the_past
    assert value(objective, model, batch()) == plain


@pytest.mark.parametrize("name", BOTH)
def test_of_an_image_nothing_is_given(denoiser, name):
    objective = DenoisingObjective(BOTH[name](condition_latents=(0, 1, 2)))
    images = {key: x[:, :, :1] if key == "latents" else x for key, x in batch().items() if key != "extrapolated"}
    model = denoiser(objective=name, action_width=1)
    drawn = objective.draw(model, torch.arange(50), images["latents"].shape)
    assert (drawn["given"] == 0).all()
    assert value(objective, model, images) > 0
    both = objective.draw(model, torch.arange(50), (3, 2, 4, 4))["given"]
    assert set(both.tolist()) == {0, 1}  # one frame is always left to learn from


def test_options_do_what_they_say(denoiser):
    model = denoiser()
    assert (draw(model, pure_noise_probability=0.25)["sigma"] == 80).float().mean() == pytest.approx(0.25, abs=0.05)
    assert (draw(model, pure_noise_probability=1.0, sigma_max=20.0)["sigma"] == 20).all()
    quiet = draw(model, pure_noise_probability=0.0, noise_mean=-1.0, noise_std=0.5)["sigma"].log()
    assert float(quiet.mean()) == pytest.approx(-1.0, abs=0.06)
    assert float(quiet.std()) == pytest.approx(0.5, abs=0.05)
    assert (~draw(model, action_dropout=0.3)["keep_action"]).float().mean() == pytest.approx(0.3, abs=0.05)
    assert (~draw(model, text_dropout=0.4)["keep_text"]).float().mean() == pytest.approx(0.4, abs=0.05)
    counts = draw(model, condition_latents=(0, 2), shape=(1, 3, 1, 1))["given"]
    assert set(counts.tolist()) == {0, 2}
    assert (counts == 2).float().mean() == pytest.approx(0.5, abs=0.06)
    loud, soft = (draw(model, augment_mean=m)["augment"].log().mean() for m in (0.0, -4.0))
    assert loud - soft == pytest.approx(4.0, abs=1e-3)


def test_video_noise_is_larger_by_the_root_of_the_frames(denoiser):
    plain, more = (
        draw(denoiser(), 8, shape=(1, 16, 1, 1), pure_noise_probability=0.0, adjust_video_noise=adjust)["sigma"]
        for adjust in (False, True)
    )
    assert torch.allclose(more, 4 * plain)
    image = draw(denoiser(), 8, pure_noise_probability=0.0, adjust_video_noise=True)["sigma"]
    assert torch.equal(image, draw(denoiser(), 8, pure_noise_probability=0.0)["sigma"])


def test_flow_times_are_shifted_logit_normal(denoiser):
    model = denoiser(objective="flow", sigma_data=0.7)

    def times(**more):
        sigma = draw(model, kind=FlowConfig, pure_noise_probability=0.0, sigma_max=1e9, **more)["sigma"]
        return (sigma / (sigma + 0.7)).double()

    plain = times(time_mean=0.5, time_std=0.8)
    logit = (plain / (1 - plain)).log()
    assert float(logit.mean()) == pytest.approx(0.5, abs=0.08)
    assert float(logit.std()) == pytest.approx(0.8, abs=0.06)
    moved = times(time_mean=0.5, time_std=0.8, shift=3.0)
    assert torch.allclose(moved, 3 * plain / (1 + 2 * plain), atol=1e-5)


def test_frames_have_noise_levels_of_their_own(denoiser):
    sigma = draw(denoiser(), per_frame=True, shape=(1, 2, 1, 1), pure_noise_probability=0.0)["sigma"].log()
    assert sigma.shape == (1500, 2)
    assert abs(float(torch.corrcoef(sigma.T)[0, 1])) < 0.1
    model = denoiser(objective="edm")
    assert value(DenoisingObjective(EDMConfig(per_frame=True)), model, {**without_actions()}) > 0


def test_samples_without_actions_see_the_null_action(denoiser):
    model = denoiser(action_width=1)
    objective = DenoisingObjective(EDMConfig(action_dropout=0.0))
    one = {**batch(), "has_actions": torch.zeros(4, dtype=torch.bool)}
    other = {**one, "actions": one["actions"] + 5}
    assert value(objective, model, one) == value(objective, model, other)
    one["has_actions"] = other["has_actions"] = torch.ones(4, dtype=torch.bool)
    assert value(objective, model, one) != value(objective, model, other)


def test_text_is_dropped_as_often_as_said(denoiser):
    model = denoiser(network={"text_embed_dim": 6})
    text = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1))
    one = {**without_actions(), "text": text, "text_lengths": torch.tensor([5, 1, 3, 2])}
    other = {**one, "text": text + 1}
    always, never = (DenoisingObjective(EDMConfig(text_dropout=p)) for p in (1.0, 0.0))
    assert value(always, model, one) == value(always, model, other)
    assert value(never, model, one) != value(never, model, other)


@pytest.mark.parametrize("per_frame", [False, True])
def test_uncertainty_weighs_the_loss(denoiser, per_frame):
    """loss = exp(-u) error + u, frame by frame; with u = 0 it is the plain loss; learned, u tends to ln(error)."""
    plain, with_u = denoiser(), denoiser(uncertainty=16)
    with_u.load_state_dict(plain.state_dict(), strict=False)
    objective = DenoisingObjective(EDMConfig(per_frame=per_frame, loss_scale=10.0))
    one = {**without_actions()}
    torch.nn.init.zeros_(with_u.logvar[1].weight)
    assert value(objective, with_u, one) == pytest.approx(value(objective, plain, one), rel=1e-6)
    optimiser = torch.optim.Adam(with_u.logvar.parameters(), lr=0.2)
    for _ in range(120):
        loss, values = objective.loss(with_u, one, 0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert values["weighted"] == pytest.approx(value(objective, plain, one) / 10, rel=1e-5)
    assert float(loss.detach()) < value(objective, plain, one)
    if not per_frame:  # four levels and sixteen features: u reaches ln(error) of each, and the loss 1 + ln(error)
        each = [value(objective, plain, {k: v[i : i + 1] for k, v in one.items() if v is not None}) for i in range(4)]
        wanted = (1 + (torch.tensor(each) / 10).log()).mean() * 10
        assert float(loss.detach()) == pytest.approx(float(wanted), abs=0.05)


def test_errors_count_as_they_do_in_pixels(denoiser):
    model = denoiser()
    model.statistics.set(torch.zeros(3, 2), torch.tensor([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]))
    clean = torch.randn(2, 3, 3, 4, 4)
    with torch.no_grad():
        ready = model.prepare(Conditions({"past": clean / 0.5, "given": torch.tensor(1)}), clean)
    weights = [DenoisingObjective(EDMConfig(pixel_share=s)).emphasis(model, ready, clean) for s in (0.0, 0.5, 1.0)]
    assert weights[0] == 1
    assert torch.allclose(weights[1][0, :, 0, 0, 0], torch.tensor([1.0, 2.0, 4.0]) * 3 / 7)
    assert torch.allclose(weights[2][0, :, 0, 0, 0], torch.tensor([1.0, 4.0, 16.0]) * 3 / 21)


@pytest.mark.parametrize("name", BOTH)
def test_it_learns(denoiser, name):
    """A world that repeats its past: the loss at pure noise falls far below the loss of a blind guess (1; 1 + 1)."""
    model = denoiser(objective=name, repeat_last=True, **ZERO)
    objective = DenoisingObjective(BOTH[name](pure_noise_probability=1.0, condition_latents=(1,)))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    data = torch.randn(8, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 3, -1, -1) * 0.9
    first = 0.0
    for step in range(150):
        one = {"latents": data, "seeds": torch.arange(8) + 8 * step}
        loss = objective.loss(model, one, step)[0]
        first = first or float(loss.detach())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.3 * first


def test_what_does_not_fit_is_refused(denoiser):
    with pytest.raises(ConfigError, match="condition_latents"):
        EDMConfig.parse({"condition_latents": []})
    with pytest.raises(ConfigError, match="'flow' and EDMConfig"):
        DenoisingObjective(EDMConfig()).loss(denoiser(objective="flow"), batch(), 0)
    with pytest.raises(ConfigError, match="takes no past"):
        DenoisingObjective(EDMConfig()).loss(denoiser(network={"condition_mask": False}), batch(), 0)
    with pytest.raises(ConfigError, match="time_std"):
        FlowConfig.parse({"time_std": 0})


def test_the_values_of_cosmos():
    world, continued = EDMConfig.cosmos(video2world=False), EDMConfig.cosmos(video2world=True)
    assert (world.condition_latents, world.adjust_video_noise, world.noise_mean, world.noise_std) == ((0,), False, 0, 1)
    assert (continued.condition_latents, continued.adjust_video_noise) == ((0, 1, 2), True)
    assert (continued.augment_mean, continued.augment_std, continued.pure_noise_probability) == (-3, 2, 0)


def test_a_batch_of_none_is_refused(denoiser):
    # Before: IndexError, "list index out of range".
    with pytest.raises(ConfigError, match="no samples"):
        DenoisingObjective(EDMConfig()).loss(denoiser(), batch(()), 0)


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("name", BOTH)
def test_the_loss_is_told_apart_by_noise_level_and_kind(denoiser, name, per_frame):
    """Of a batch of videos, then of one of images: parts add up to the whole, each sample stands at its own level."""
    objective = DenoisingObjective(BOTH[name](condition_latents=(0,), per_frame=per_frame, loss_scale=2.0))
    model = denoiser(objective=name)
    one = {key: x for key, x in batch(tuple(range(40))).items() if key != "actions"}
    for kind, frames in (("video", 3), ("image", 1)):
        seen = {**one, "latents": one["latents"][:, :, :frames]}
        sums, values = objective.sums(model, seen, 0)
        whole = float(next(iter(sums.values())).detach())
        levels = [value for label, value in values.items() if label.startswith("loss_noise")]
        each = frames if per_frame else 1  # of a frame a level, each part is of frames
        assert sum(float(value.total) for value in levels) == pytest.approx(whole * each, rel=1e-5)
        assert sum(float(value.count) for value in levels) == 40 * each
        assert sum(float(value.count) > 0 for value in levels) >= 2
        assert float(values[f"loss_{kind}"].total) == pytest.approx(whole, rel=1e-6)
        assert values[f"loss_{kind}"].count == 40
        assert not [
            label for label in objective.loss(model, seen, 0)[1] if label.startswith("loss_")
        ]  # of curves alone
    drawn = objective.draw(model, seen["seeds"], torch.Size((3, 1, 4, 4)))["sigma"] / model.config.sigma_data
    assert float(values["loss_noise_below_0.25"].count) == int((drawn < 0.25).sum())
    assert float(values["loss_noise_above_4"].count) == int((drawn >= 4).sum())
