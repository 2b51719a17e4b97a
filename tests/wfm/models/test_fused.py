"""The fused passes against their plain forms, and their gradients against finite differences."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wfm.models import fused
from wfm.models.fused import bring_pairs_together, gated_sum, gelu, head_norm, modulated_norm
from wfm.models.rotary import apply_rope, grid_positions, rope_3d

ROPE = rope_3d(grid_positions((2, 2, 3)), 12, dtype=torch.float64)
TURN = torch.complex(*ROPE)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_head_norm(x: Tensor, gain: Tensor, rope: bool) -> Tensor:
    y = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain
    return apply_rope(y, ROPE) if rope else y


@pytest.mark.parametrize("rope", [False, True])
def test_head_norm_equals_its_plain_form_in_the_order_of_pairs(rope):
    x, gain = draw(2, 12, 3, 12), draw(3, 12, seed=1)
    wanted = plain_head_norm(x, gain, rope)
    if rope:
        wanted = bring_pairs_together(wanted)
    order = bring_pairs_together if rope else (lambda y: y)
    found = head_norm(order(x).clone(), order(gain), 1e-6, TURN if rope else None)
    assert torch.allclose(found, wanted, atol=1e-14)
    learning = head_norm(order(x).requires_grad_(), order(gain), 1e-6, TURN if rope else None)
    assert torch.allclose(learning, wanted, atol=1e-14)


@pytest.mark.parametrize("rope", [False, True])
def test_gradients_of_head_norm(rope):
    x, gain = draw(2, 12, 3, 12).requires_grad_(), draw(3, 12, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, gain: head_norm(x, gain, 1e-6, TURN if rope else None), (x, gain))


@pytest.mark.parametrize("groups", [1, 3, fused.MANY_GROUPS + 1])
def test_modulated_norm(groups):
    x, shift, scale = (draw(*shape, seed=i) for i, shape in enumerate([(groups, 5, 8), (groups, 8), (groups, 8)]))
    centred = x - x.mean(-1, keepdim=True)
    wanted = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + scale[:, None]) + shift[:, None]
    assert torch.allclose(modulated_norm(x, shift, scale), wanted, atol=1e-13)
    inputs = [y.clone().requires_grad_() for y in (x, shift, scale)]
    assert torch.allclose(modulated_norm(*inputs), wanted, atol=1e-13)
    assert torch.autograd.gradcheck(modulated_norm, inputs)


def test_gated_sum_and_gelu():
    x, gate, y = draw(3, 5, 8), draw(3, 8, seed=1), draw(3, 5, 8, seed=2)
    wanted = x + gate[:, None] * y
    assert torch.allclose(gated_sum(x, gate, y.clone()), wanted, atol=1e-15)
    assert torch.allclose(gated_sum(x.requires_grad_(), gate, y), wanted, atol=1e-15)
    assert torch.equal(gelu(y.clone()), F.gelu(y))
    z = y.clone().requires_grad_()
    assert torch.equal(gelu(z), F.gelu(y))
    assert torch.equal(z, y)  # nothing that has a gradient is overwritten
