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
from wfm.models.slots import SlotConfig

VECTOR = {"depth": {"slot": "vector", "width": 3, "tensors": ["depth"]}}
CONTEXT = {"story": {"slot": "context", "width": 5, "tensors": ["story", "story_lengths"]}}
CHANNELS = {"flow": {"slot": "channels", "width": 2, "tensors": ["flow"]}}
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
    "flow": drawn(B, 2, FRAMES, 4, 4), "actions": drawn(B, 13, 2), "camera": drawn(B, 13, 2, seed=3), "text": drawn(B, 6, 7),
    "text_lengths": torch.tensor([3, 6]), "guess": drawn(B, 3, FRAMES, 4, 4),
}  # fmt: skip


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

    def run(tensors: dict[str, Tensor], present: dict[str, Tensor] | None = None) -> Tensor:
        with torch.no_grad():
            told = Conditions(past=drawn(B, 3, FRAMES, 4, 4, seed=5), given=1, tensors=tensors, present=present or {})
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
            found: Tensor = model(tokens, tensors=tensors, present=present)
            return found

    return run


CASES = [
    (diffusion, "depth", {"conditions": VECTOR}),
    (diffusion, "story", {"conditions": CONTEXT}),
    (diffusion, "text", {"network": {"text_embed_dim": 7}}),
    (diffusion, "action", {"action_width": 2}),
    (diffusion, "camera", {"conditions": CAMERA}),
    (autoregressive, "depth", {"conditions": VECTOR}),
    (autoregressive, "story", {"conditions": CONTEXT}),
    (autoregressive, "text", {"text_embed_dim": 7}),
    (autoregressive, "action", {"action_width": 2}),
    (autoregressive, "camera", {"conditions": CAMERA}),
]


@pytest.mark.parametrize(("family", "name", "more"), CASES)
def test_absent_is_bit_for_bit_the_model_without_it(family, name, more) -> None:
    """Whatever its weights; where it is there it matters, and in a sample that has none it does not."""
    plain, model = family(), family(**more)
    mine = {tensor: x for tensor, x in TENSORS.items() if tensor.startswith(name)}
    without = plain({})
    assert torch.equal(model({}), without)
    some = model(mine, {name: torch.tensor([True, False])})
    assert not torch.allclose(some[0], without[0])
    assert torch.equal(some[1], without[1])
    assert not torch.allclose(model(mine)[1], without[1]), "and that sees a difference"


@pytest.mark.parametrize("family", [diffusion, autoregressive])
def test_no_action_is_known_and_nothing_moves_are_two_things(family) -> None:
    model = family(action_width=2)
    assert not torch.allclose(model({"actions": torch.zeros_like(TENSORS["actions"])}), model({}))


def test_channels_that_are_absent_are_zeros() -> None:
    model = diffusion(conditions=CHANNELS)
    flow, absent = {"flow": TENSORS["flow"]}, model({})
    assert torch.equal(model({"flow": torch.zeros_like(flow["flow"])}), absent)
    some = model(flow, {"flow": torch.tensor([True, False])})
    assert torch.equal(some[1], absent[1])
    assert not torch.allclose(some[0], absent[0])
