import pytest
import torch

from wfm.errors import ConfigError
from wfm.families.diffusion.build import denoiser
from wfm.families.diffusion.draw import draw_latents
from wfm.families.diffusion.guidance import guided, stacked
from wfm.generation.sampler_config import GuidanceConfig, SamplerConfig
from wfm.models.diffusion import Conditions, Denoiser, DenoiserConfig

NETWORK = {
    "in_channels": 3, "condition_mask": True, "concat_padding_mask": False, "text_embed_dim": 6,
    "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "adaln_lora_dim": 4, "max_size": (8, 16, 16),
}  # fmt: skip
LIKE = torch.zeros(2, 3, 4, 4, 6)


def model() -> Denoiser:
    torch.manual_seed(0)
    values = {"network": NETWORK, "action_width": 2, "temporal_compression": 4, "repeat_last": True}
    made = denoiser(DenoiserConfig.parse(values))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made.eval()


def conditions(**change: object) -> Conditions:
    generator = torch.Generator().manual_seed(1)
    values = {
        "past": torch.randn(2, 3, 4, 4, 6, generator=generator),
        "given": torch.tensor([2, 1]),
        "text": torch.randn(2, 5, 6, generator=generator),
        "actions": torch.randn(2, 13, 2, generator=generator),
    }
    return told_by(**{**values, **change})


def told_by(**tensors: object) -> Conditions:
    """Conditions of these tensors; None is absent."""
    return Conditions({k: v for k, v in tensors.items() if v is not None})  # type: ignore[misc]


def noisy() -> torch.Tensor:
    return torch.randn(2, 3, 4, 4, 6, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def predictions(network: Denoiser, **negative: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    told = conditions()
    twin = told_by(past=told.tensors["past"], given=told.tensors["given"], **negative)
    return network.denoise(noisy(), 0.8, told), network.denoise(noisy(), 0.8, twin)


@pytest.mark.parametrize(
    ("scale", "convention"), [(8.0, "standard"), (7.0, "cosmos"), (0.5, "standard"), (0.0, "standard")]
)
@torch.no_grad()
def test_both_conventions_in_one_batch(scale: float, convention: str) -> None:
    network = model()
    cond, uncond = predictions(network)
    guidance = GuidanceConfig(scale=scale, convention=convention)  # type: ignore[arg-type]
    made = guided(network, conditions(), LIKE, guidance)(noisy(), 0.8)
    wanted = uncond + scale * (cond - uncond) if convention == "standard" else cond + scale * (cond - uncond)
    assert torch.allclose(made, wanted, atol=1e-4)
    assert not torch.allclose(made, cond, atol=1e-3)


def test_cosmos_seven_is_eight() -> None:
    assert GuidanceConfig(scale=7, convention="cosmos").standard_scale == GuidanceConfig(scale=8).standard_scale == 8
    assert GuidanceConfig().standard_scale == 1


@torch.no_grad()
def test_given_frames_are_left_alone() -> None:
    made = guided(model(), conditions(), LIKE, GuidanceConfig(scale=8))(noisy(), 0.8)
    past = model().normalise(conditions().tensors["past"])
    assert torch.equal(made[0, :, :2], past[0, :, :2])
    assert torch.equal(made[1, :, :1], past[1, :, :1])


@torch.no_grad()
def test_what_is_dropped_can_be_chosen() -> None:
    network, told = model(), conditions()
    for drop, twin in (
        (("text",), conditions(text=None)),
        (("action",), conditions(actions=None)),
        (("text", "action"), conditions(text=None, actions=None)),
    ):
        made = guided(network, told, LIKE, GuidanceConfig(scale=3, drop=drop))(noisy(), 0.8)
        cond, uncond = network.denoise(noisy(), 0.8, told), network.denoise(noisy(), 0.8, twin)
        assert torch.allclose(made, uncond + 3 * (cond - uncond), atol=1e-4)


@torch.no_grad()
def test_a_negative_prompt_takes_the_place_of_the_empty_text() -> None:
    network = model()
    negative = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(7))
    cond, uncond = predictions(network, text=negative)
    made = guided(network, conditions(), LIKE, GuidanceConfig(scale=4), negative={"text": negative})(noisy(), 0.8)
    assert torch.allclose(made, uncond + 4 * (cond - uncond), atol=1e-4)


@torch.no_grad()
def test_the_network_runs_once_a_call_and_is_prepared_once() -> None:
    network, calls = model(), []
    network.network.register_forward_hook(lambda module, inputs, out: calls.append(inputs[0].shape[0]))
    prepared = []
    plain_prepare = network.network.prepare_context
    network.network.prepare_context = lambda *a: prepared.append(1) or plain_prepare(*a)  # type: ignore[method-assign]
    denoise = guided(network, conditions(), LIKE, GuidanceConfig(scale=8))
    for sigma in (5.0, 1.0, 0.2):
        denoise(noisy(), sigma)
    assert (calls, len(prepared)) == ([4, 4, 4], 1)
    calls.clear()
    guided(network, conditions(), LIKE, GuidanceConfig())(noisy(), 1.0)
    assert calls == [2]


def test_stacked_conditions_keep_each_half_as_it_was() -> None:
    one, two = conditions(text_lengths=torch.tensor([5, 2])), conditions(text=torch.ones(1, 3, 6), actions=None)
    both = stacked(model().config.slots, one, two, 2)
    assert both.tensors["text"].shape == (4, 5, 6)
    assert both.tensors["text_lengths"].tolist() == [5, 2, 3, 3]
    assert both.tensors["actions"].shape == (4, 13, 2)
    assert both.present["action"].tolist() == [True, True, False, False]
    assert both.tensors["given"].tolist() == [2, 1, 2, 1]


@torch.no_grad()
def test_a_text_without_tokens_is_the_empty_text() -> None:
    # Before: "text_lengths: (0, 0, 1, 1) must lie in 1 ... 1", of lengths that nobody gave.
    network, none, guidance = model(), torch.zeros(2, 0, 6), GuidanceConfig(scale=4)
    wanted = guided(network, conditions(text=None), LIKE, guidance)(noisy(), 0.8)
    for lengths in (None, torch.tensor([0, 0])):
        found = guided(network, conditions(text=none, text_lengths=lengths), LIKE, guidance)(noisy(), 0.8)
        assert torch.allclose(found, wanted, atol=1e-5)
    wanted = guided(network, conditions(), LIKE, guidance)(noisy(), 0.8)
    found = guided(network, conditions(), LIKE, guidance, negative={"text": none[:1]})(noisy(), 0.8)
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("sampler", ["res_2ab", "flow_euler"])
def test_guided_samples_are_drawn_per_seed_and_text_to_world_needs_no_past(sampler: str) -> None:
    network = model()
    text = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    sampling = SamplerConfig(sampler=sampler, steps=4, guidance=GuidanceConfig(scale=2))  # type: ignore[arg-type]

    def draw(seeds: list[int], told: torch.Tensor, mode: str = "sample") -> torch.Tensor:
        return draw_latents(network, told_by(text=told), (3, 4, 4, 6), seeds=seeds, mode=mode, sampling=sampling)

    first = draw([3, 4], text)
    assert first.shape == (2, 3, 4, 4, 6)
    assert torch.equal(first, draw([3, 4], text))
    assert not torch.allclose(first[0], draw([5, 4], text)[0])
    assert torch.allclose(first[1], draw([5, 4], text)[1], atol=1e-5)
    assert not torch.allclose(first, draw([3, 4], text + 1))
    mean = draw([3, 4], text, mode="mean")  # guidance leads away from the mean and is left out of it
    plain = draw_latents(
        network, told_by(text=text), (3, 4, 4, 6), seeds=[3, 4], mode="mean",
        sampling=sampling.model_copy(update={"guidance": GuidanceConfig()}),
    )  # fmt: skip
    assert torch.equal(mean, plain)


def test_noise_on_the_given_frames_is_drawn_from_the_seed() -> None:
    network, told = model(), conditions()

    def draw(sigma: float, sigma_min: float = 0.02) -> torch.Tensor:
        sampling = SamplerConfig(sampler="euler", steps=4, augment_sigma=sigma, sigma_min=sigma_min)
        return draw_latents(network, told, (3, 4, 4, 6), seeds=[3, 4], mode="sample", sampling=sampling)

    clean, noised = draw(0.0), draw(0.01)
    assert torch.equal(noised, draw(0.01))
    assert not torch.equal(clean, noised)
    past = told.tensors["past"]
    assert torch.allclose(noised[0, :, :2], past[0, :, :2], atol=1e-5)  # held to the last level, 0.02
    released = draw(0.05)
    assert not torch.allclose(released[0, :, :2], past[0, :, :2], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("sigma", [torch.tensor([0.5, 2.0]), torch.tensor([[0.5, 1.0, 2.0, 4.0]] * 2)])
def test_levels_of_each_sample_serve_its_twin_too(sigma: torch.Tensor) -> None:
    network = model()
    told = conditions()
    found = guided(network, told, LIKE, GuidanceConfig(scale=3.0))(noisy(), sigma)
    cond, uncond = (
        network.denoise(noisy(), sigma, c) for c in (told, told.without(network.config.slots, "text", "action"))
    )
    torch.testing.assert_close(found, torch.lerp(uncond, cond, 3.0), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_where_nothing_is_dropped_the_network_runs_on_one_batch() -> None:
    network, sizes = model(), []
    network.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    for told, drop in ((conditions(text=None, actions=None), ("text", "action")), (conditions(text=None), ("text",))):
        found = guided(network, told, LIKE, GuidanceConfig(scale=3.0, drop=drop))(noisy(), 0.8)
        assert torch.equal(found, network.denoise(noisy(), 0.8, told))
    assert set(sizes) == {2}


def test_a_negative_prompt_that_would_not_be_read_is_refused() -> None:
    network = model()
    for kept in (GuidanceConfig(scale=3.0, drop=("action",)), GuidanceConfig()):
        with pytest.raises(ConfigError, match="negative_text needs guidance that drops the text"):
            guided(network, conditions(), LIKE, kept, negative={"text": torch.zeros(1, 2, 6)})
    with pytest.raises(ConfigError, match="drop"):
        GuidanceConfig.parse({"drop": ()})
