"""Finite scalar quantisation against its definition."""

import pytest
import torch

from wfm.models.tokenizer import FiniteScalarQuantizer

LEVELS = (8, 8, 8, 5, 5, 5)


def test_every_token_has_its_own_code():
    quantizer = FiniteScalarQuantizer((4, 3, 5))
    ids = torch.arange(60)[None]  # [B = 1, 60]
    codes = quantizer.codes(ids)
    assert torch.equal(quantizer.tokens(codes), ids)
    assert len(codes[0].T.unique(dim=0)) == 60
    assert codes.min() == -1
    assert codes.max() <= 1


@pytest.mark.parametrize("level", [5, 8])
def test_bound_reaches_every_level_and_no_other(level):
    quantizer = FiniteScalarQuantizer((level,))
    values = quantizer(torch.linspace(-20, 20, 4001)[None, None])
    assert len(values.unique()) == level


def test_zero_is_near_the_middle():
    codes = FiniteScalarQuantizer(LEVELS)(torch.zeros(1, 6, 1))
    assert codes.abs().max() == 0


def test_gradient_passes_the_rounding():
    z = torch.randn(2, 6, 4).requires_grad_()
    FiniteScalarQuantizer(LEVELS)(z).sum().backward()
    assert (z.grad > 0).all()


def test_tokens_are_mixed_radix_lowest_first():
    quantizer = FiniteScalarQuantizer((4, 3))
    top = quantizer(torch.tensor([[100.0, -100.0]])[..., None])  # digits 3 and 0
    assert int(quantizer.tokens(top)) == 3
    top = quantizer(torch.tensor([[-100.0, 100.0]])[..., None])  # digits 0 and 2
    assert int(quantizer.tokens(top)) == 8


def test_token_is_the_nearest_of_all_codes():
    quantizer = FiniteScalarQuantizer(LEVELS)
    z = torch.randn(1, 6, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    half = torch.tensor([level // 2 for level in LEVELS], dtype=torch.float64)[:, None]
    bounded = (quantizer.bound(z)[0] / half).T  # [50, 6], before rounding
    book = quantizer.codes(torch.arange(64000)[None])[0].double().T  # [64000, 6]
    nearest = torch.cdist(bounded * half.T, book * half.T).argmin(dim=1)  # in units of a level
    assert torch.equal(quantizer.tokens(quantizer(z))[0], nearest)
