"""Absent is exactly the model without it, bit for bit, in both families; and what each condition does where it is there."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from wfm.families.autoregressive.build import transformer
from wfm.families.diffusion.build import denoiser
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.diffusion.conditioning import Conditions
from wfm.models.diffusion.config import DenoiserConfig
from wfm.models.diffusion.prior import LinearPrior
from wfm.models.slots import SlotConfig

VECTOR = {"depth": {"slot": "vector", "width": 3, "tensors": ["depth"]}}
CONTEXT = {"story": {"slot": "context", "width": 5, "tensors": ["story", "story_lengths"]}}
# Wide enough that in one product with the latents the sums would run in another order
CHANNELS = {"flow": {"slot": "channels", "width": 64, "tensors": ["flow"]}}
CAMERA = {"camera": {"slot": "vector", "width": 2 * (7 + 4), "tensors": ["camera"]}}
NETWORK = {
    "in_channels": 3, "condition_mask": True, "concat_padding_mask": False, "text_embed_dim": 0,
    "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "adaln_lora_dim": 4, "max_size": [8, 16, 16],
}  # fmt: skip
SMALL = {
    "levels": (4, 3, 2), "dim": 24, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 12, "ffn_dim": 32,
    "context_positions": 256, "temporal_compression": 4, "order": "frame", "vocabulary": "digits", "patch": 2,
}  # fmt: skip
B, FRAMES = 2, 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TENSORS = {
    "depth": drawn(B, FRAMES, 3), "story": drawn(B, 6, 5), "story_lengths": torch.tensor([6, 2]),
    "flow": drawn(B, 64, FRAMES, 4, 4), "actions": drawn(B, 13, 2), "camera": drawn(B, 13, 2, seed=3), "text": drawn(B, 6, 7),
    "text_lengths": torch.tensor([3, 6]), "extrapolated": drawn(B, 3, FRAMES, 4, 4),
}  # fmt: skip
PAST = {"past": drawn(B, 3, FRAMES, 4, 4, seed=5), "given": torch.tensor([1, 1])}


@pytest.fixture(autouse=True)
def without_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """The three planted conditions are no registered ones: their tensors enter as they are."""
    from wfm.conditions import condition

    class Plain:
        name = ""

        @staticmethod
        def encoder_of(slot: SlotConfig, geometry: object) -> None:
            return None

    known = condition.condition_class
    planted = ("depth", "story", "flow")
    monkeypatch.setattr(condition, "condition_class", lambda name: Plain if name in planted else known(name))


def shaken(model: nn.Module, names: set[str]) -> nn.Module:
    """Every parameter something: zero-initialised layers would hide every effect. What has a name in `names` alone is drawn
    apart, so that all the rest is alike in a model without."""
    for i, (name, parameter) in enumerate(sorted(model.named_parameters())):
        seed = sum(map(ord, name)) + 7 * len(name) + (1000 + i if name not in names else 0)
        with torch.no_grad():
            parameter.copy_(0.2 * drawn(*parameter.shape, seed=seed))
    return model.eval()


def diffusion(**more: object) -> Callable[..., Tensor]:
    network = {**NETWORK, **more.pop("network", {})}  # type: ignore[dict-item]
    torch.manual_seed(0)
    model = denoiser(DenoiserConfig.parse({"network": network, "temporal_compression": 4, **more}))
    shaken(model, set(model.state_dict()))
    model.statistics.set(drawn(3, 2), 1 + drawn(3, 2).square())
    for name, prior in model.named_modules():
        if isinstance(prior, LinearPrior):  # buffers, which `shaken` leaves alone
            for k, table in enumerate((prior.weight, prior.bias)):
                table.copy_(0.1 * drawn(*table.shape, seed=k + len(name)))
            prior.deviation.copy_(0.1 + drawn(*prior.deviation.shape, seed=len(name)).square())

    def run(tensors: dict[str, Tensor], present: dict[str, Tensor] | None = None, *, past: bool = True) -> Tensor:
        with torch.no_grad():
            told = Conditions((PAST if past else {}) | tensors, present or {})
            levels = torch.full((B, FRAMES), 0.8)  # as many rows of modulation whatever is there: the same products
            return model.denoise(drawn(B, 3, FRAMES, 4, 4, seed=6), levels, told)

    return run


def autoregressive(**more: object) -> Callable[..., Tensor]:
    torch.manual_seed(0)
    model = transformer(AutoregressiveConfig.parse({**SMALL, **more}))
    shaken(model, set(model.state_dict()))
    tokens = torch.randint(0, 24, (B, FRAMES, 4, 4), generator=torch.Generator().manual_seed(1))

    def run(tensors: dict[str, Tensor], present: dict[str, Tensor] | None = None) -> Tensor:
        with torch.no_grad():
            found: Tensor = model(tokens, tensors, present)
            return found

    return run


PRIOR = {"linear_prior": True, "repeat_last": True}
CASES = [
    (diffusion, "depth", {}, {"conditions": VECTOR}),
    (diffusion, "story", {}, {"conditions": CONTEXT}),
    (diffusion, "flow", {}, {"conditions": CHANNELS}),
    (diffusion, "text", {}, {"network": {"text_embed_dim": 7}}),
    (diffusion, "action", {}, {"action_width": 2}),
    (diffusion, "camera", {}, {"conditions": CAMERA}),
    (diffusion, "extrapolation", {}, {"extrapolate": True}),
    (diffusion, "extrapolation", PRIOR, {**PRIOR, "extrapolate": True}),
    (diffusion, "extrapolation", {"conditions": CHANNELS}, {"conditions": CHANNELS, "extrapolate": True}),
    (autoregressive, "depth", {}, {"conditions": VECTOR}),
    (autoregressive, "story", {}, {"conditions": CONTEXT}),
    (autoregressive, "text", {}, {"text_embed_dim": 7}),
    (autoregressive, "action", {}, {"action_width": 2}),
    (autoregressive, "camera", {}, {"conditions": CAMERA}),
    (autoregressive, "extrapolation", {"copy_bias": True}, {"copy_bias": True, "extrapolate": True}),
    (autoregressive, "extrapolation", {"vocabulary": "flat"}, {"vocabulary": "flat", "extrapolate": True}),
]


def told_of(family: object, name: str) -> dict[str, Tensor]:
    """The tensors of a condition."""
    beginning = {"extrapolation": "extrapolated"}.get(name, name)
    found = {tensor: x for tensor, x in TENSORS.items() if tensor.startswith(beginning)}
    if name == "extrapolation" and family is autoregressive:
        found["extrapolated"] = torch.randint(0, 24, (B, FRAMES, 4, 4), generator=torch.Generator().manual_seed(7))
    return found


@pytest.mark.parametrize(("family", "name", "less", "more"), CASES)
def test_absent_is_bit_for_bit_the_model_without_it(family, name, less, more) -> None:
    """Whatever its weights; where it is there it matters, and in a sample that has none it does not."""
    plain, model = family(**less), family(**more)
    mine = told_of(family, name)
    without = plain({})
    assert torch.equal(model({}), without)
    some = model(mine, {name: torch.tensor([True, False])})
    assert not torch.allclose(some[0], without[0])
    assert torch.equal(some[1], without[1])
    assert not torch.allclose(model(mine)[1], without[1]), "and that sees a difference"


@pytest.mark.parametrize("more", [{}, {"repeat_last": True}, PRIOR, {**PRIOR, "extrapolate": True}])
def test_without_a_past_a_model_is_bit_for_bit_one_that_knows_none(more) -> None:
    """Text2world: its mask, what it shows of the last frame and its prior add nothing; so too in one sample of a batch."""
    plain, model = diffusion(network={"condition_mask": False}), diffusion(**more)
    without = plain({}, past=False)
    assert torch.equal(model({}, past=False), without)
    assert not torch.allclose(model({})[0], without[0])
    for tensors, present in (({"given": torch.tensor([1, 0])}, {}), ({}, {"past": torch.tensor([True, False])})):
        some = model(tensors, present)
        assert torch.equal(some[1], without[1])
        assert not torch.allclose(some[0], without[0])


def test_in_one_product_with_the_latents_zeros_would_not_be_nothing() -> None:
    """The broken twin: channels of zeros behind those of the latents, whose sums then run in another order."""
    latents, weight = drawn(3, 65), drawn(24, 65, seed=1)
    for more in (7, 256):
        wide = torch.cat([weight, drawn(24, more, seed=2)], dim=1)
        together = torch.cat([latents, torch.zeros(3, more)], dim=1) @ wide.T
        assert torch.allclose(together, latents @ weight.T, atol=1e-5)
        if not torch.equal(together, latents @ weight.T):
            return
    pytest.fail("every order of summation gave the same bits")


@pytest.mark.parametrize("family", [diffusion, autoregressive])
def test_no_action_is_known_and_nothing_moves_are_two_things(family) -> None:
    model = family(action_width=2)
    assert not torch.allclose(model({"actions": torch.zeros_like(TENSORS["actions"])}), model({}))
