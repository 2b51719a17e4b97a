"""`fast_cpu`: the same numbers and gradients as the plain modules, names of weights untouched, nothing left behind."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.wfm.models.tiny import MODELS
from wfm.models.fast_cpu import FastLinear, fast_cpu, packed_weights, plain
from wfm.models.layers import Attention, DotProductAttention, Linear
from wfm.models.rotary import grid_positions, rope_3d


def outcome(model: nn.Module, given: list[Tensor]) -> list[Tensor]:
    """Output, and gradients of floating inputs and of parameters."""
    inputs = [x.clone().requires_grad_() if x.is_floating_point() else x for x in given]
    out = model(*inputs)
    model.zero_grad()
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    held = [x for x in (*inputs, *model.parameters()) if x.grad is not None]
    return [out.detach(), *(x.grad.clone() for x in held)]


@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients_are_those_of_the_plain_model(name):
    make, inputs = MODELS[name]
    model, given = make(), inputs()
    names, wanted = list(model.state_dict()), outcome(model, given)
    assert not any(isinstance(part, FastLinear) for part in model.modules())
    fast = fast_cpu(model)
    assert fast is model
    assert any(type(part).__name__.startswith("Fast") for part in model.modules())
    assert not any(type(part) is Linear for part in model.modules())
    found = outcome(model, given)
    assert list(model.state_dict()) == names
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-11 * wanted[0].abs().max().clamp(min=1), (
            name
        )  # worst measured below 1e-13
    assert not all(
        torch.equal(one, other) for one, other in zip(found, wanted, strict=True)
    )  # it does compute otherwise
    with torch.no_grad():
        assert torch.allclose(model(*given), wanted[0], rtol=1e-11, atol=1e-11)
        with packed_weights(model):
            assert torch.allclose(model(*given), wanted[0], rtol=1e-11, atol=1e-11)
    again = outcome(plain(model), given)
    assert all(torch.equal(one, other) for one, other in zip(again, wanted, strict=True))


def test_weights_load_either_way_and_copies_are_their_own():
    make, inputs = MODELS["dit"]
    model, given, other = make(), inputs(), make()
    wanted = model(*given)
    fast_cpu(other).load_state_dict({name: value + 0 for name, value in model.state_dict().items()}, strict=True)
    assert torch.allclose(other(*given), wanted, rtol=1e-11, atol=1e-11)
    back = make()
    back.load_state_dict(other.state_dict(), strict=True)
    assert torch.equal(back(*given), wanted)
    twin = copy.deepcopy(other)
    plain(other)
    assert any(isinstance(part, FastLinear) for part in twin.modules())
    assert not any(isinstance(part, FastLinear) for part in other.modules())


def test_an_attention_that_was_put_in_is_used_by_twins_too():
    class Counting(DotProductAttention):
        calls = 0

        def forward(self, *arguments, **more):
            self.calls += 1
            return super().forward(*arguments, **more)

    layer = fast_cpu(Attention(24, 2))
    layer.core = Counting()
    layer(torch.randn(3, 1, 24))  # one query a row has a call of its own, which is for the module that was there
    assert layer.core.calls == 1


def test_a_model_elsewhere_stays_plain():
    with torch.device("meta"):
        layer = Attention(24, 2)
    assert type(fast_cpu(layer).to_q) is Linear


def test_autocast_is_respected():
    layer, x = fast_cpu(Linear(40, 24)), torch.randn(9000, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with torch.no_grad(), packed_weights(layer):
        assert layer(x).dtype == torch.float32
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16


def test_half_precision_is_left_to_the_plain_forms():
    torch.manual_seed(0)
    layer, x = Attention(24, 2).bfloat16(), torch.randn(2, 12, 24).bfloat16()
    rope = rope_3d(grid_positions((2, 2, 3)), 12)
    wanted = layer(x, rope=rope)
    assert torch.equal(fast_cpu(layer)(x, rope=rope), wanted)
    exact = plain(layer).double()(x.double(), rope=rope)
    assert (wanted.double() - exact).abs().max() <= 2e-2 * exact.abs().max()  # roundings of 2^-9


@torch.no_grad()
def test_packed_weights_change_no_bit_and_leave_nothing_behind():
    torch.manual_seed(0)
    net = nn.Sequential(Linear(40, 48), Linear(48, 40))
    both = nn.ModuleList([net, Attention(24, 2)])
    attention = both[1]
    rope = rope_3d(grid_positions((4, 5, 6)), 12)
    few, many, tokens = torch.randn(3, 40), torch.randn(9000, 40), torch.randn(50, 120, 24)
    calls = [lambda: net(few), lambda: net(many), lambda: attention(tokens), lambda: attention(tokens, rope=rope)]
    names = set(net.state_dict())
    with packed_weights(both):
        assert net[0].kept is not None
    assert type(net[0]) is Linear  # a plain model is plain again
    fast_cpu(both)
    wanted = [call() for call in calls]
    with packed_weights(both):
        for _ in range(2):  # made, then used
            assert all(torch.equal(call(), before) for call, before in zip(calls, wanted, strict=True))
        assert set(net.state_dict()) == names
        with torch.enable_grad():
            net(many).sum().backward()
        assert net[0].weight.grad is not None
    assert net[0].kept is None
    net[0].weight.add_(1)
    assert not torch.equal(net(many), wanted[1])


class Wrapped(nn.Module):
    """A layer around another, as an adapter is, with no `weight` of its own."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, *arguments, **more):
        self.calls += 1
        return 1.5 * self.inner(*arguments, **more)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("how", ["wrapped", "subclass", "hooked"])
def test_a_layer_that_somebody_has_put_in_or_listens_to_is_never_read_past(name, how):
    make, inputs = MODELS[name]
    model, given = make(), inputs()
    seen: list[nn.Module] = []

    def change(part: nn.Module, child: str, layer: nn.Module) -> None:
        if how == "wrapped":
            made = Wrapped(layer)
            seen.append(made)
            if isinstance(part, nn.ModuleList | nn.Sequential):
                part[int(child)] = made
            else:
                setattr(part, child, made)
        elif how == "subclass":
            kind = type(layer)
            layer.__class__ = type("Adapted", (kind,), {"forward": lambda self, x: 1.5 * kind.forward(self, x)})
        else:
            layer.register_forward_hook(lambda layer, given, out: 1.5 * out)

    for part in list(model.modules()):
        for child, layer in list(part.named_children()):
            if type(layer) in (Linear, nn.Linear):
                change(part, child, layer)
    with torch.no_grad():
        wanted = model(*given)
        assert not torch.allclose(wanted, make()(*given))
        before = [one.calls for one in seen]
        assert all(before)
        assert torch.allclose(fast_cpu(model)(*given), wanted, rtol=1e-11, atol=1e-11)
        assert [one.calls for one in seen] == [2 * calls for calls in before]
        with packed_weights(model):
            assert torch.allclose(model(*given), wanted, rtol=1e-11, atol=1e-11)
