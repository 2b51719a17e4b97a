"""Finite scalar quantisation against its definition."""

import math

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


HALF = (torch.bfloat16, torch.float16)
ODD = [LEVELS, (2, 2, 2), (7, 5, 5), (2, 3), (255,), (1000,), (4001,), (1000, 1000, 1000, 1000)]


def latents(levels: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(1, len(levels), 8, 16, 16, generator=generator) * 2).to(dtype)


def holds(dtype: torch.dtype, levels: tuple[int, ...]) -> bool:
    """Whether `dtype` rounds every level to less than half a step away."""
    codes = [torch.arange(n).double().sub(n // 2).div(n // 2) for n in levels]
    return all(((c.to(dtype).double() - c).abs() * (n // 2) < 0.5).all() for c, n in zip(codes, levels, strict=True))


@pytest.mark.parametrize("levels", ODD, ids=str)
def test_half_precision_keeps_its_type_and_the_tokens_of_fp32(levels):
    """Before: codes in fp32 whatever the latents; other ids in bf16 for 0.7 % of (8, 8, 8, 5, 5, 5), one id of eight for
    levels of 2, whose shift was infinite."""
    quantizer = FiniteScalarQuantizer(levels)
    for dtype in HALF:
        z = latents(levels, dtype)
        codes, wanted = quantizer(z), quantizer.tokens(quantizer(z.float()))
        assert codes.dtype == dtype
        assert codes.isfinite().all()
        assert codes.abs().max() <= 1
        assert torch.equal(quantizer.latent_tokens(z), wanted)
        assert torch.equal(quantizer.tokens(codes), wanted) == holds(dtype, levels)
        assert len(wanted.unique()) > 4
        assert torch.equal(quantizer.codes(wanted).to(dtype), codes)
    assert holds(torch.bfloat16, levels) == (max(levels) < 500)  # so that both cases were seen


@pytest.mark.parametrize("levels", ODD, ids=str)
def test_fp32_is_as_before_and_no_id_leaves_the_vocabulary(levels):
    """Before: 4,001 levels gave digits from -2 to 4,002, and so ids of other tokens."""
    quantizer, z = FiniteScalarQuantizer(levels), torch.linspace(-30, 30, 6001).expand(1, len(levels), -1)
    ids = quantizer.latent_tokens(z)
    assert torch.equal(ids, quantizer.tokens(quantizer(z)))
    basis = [math.prod(levels[:i]) for i in range(len(levels))]
    digits = [(ids // b) % n for b, n in zip(basis, levels, strict=True)]
    assert sum(d * b for d, b in zip(digits, basis, strict=True)).equal(ids)
    assert (int(ids.min()), int(ids.max())) == (0, math.prod(levels) - 1)
    assert all((d.diff() >= 0).all() for d in digits)  # monotone: nothing wrapped around
    if max(levels) <= 1000:
        bounded = quantizer.bound(z)
        assert torch.equal(quantizer(z), bounded.round() / torch.tensor([n // 2 for n in levels])[:, None])


def test_half_precision_passes_the_gradient_of_fp32():
    """Before: zeros, for every channel of this one."""
    quantizer = FiniteScalarQuantizer((2, 8, 5))
    z = latents((2, 8, 5), torch.bfloat16).requires_grad_()
    quantizer(z).float().square().sum().backward()
    twin = z.detach().float().requires_grad_()
    quantizer(twin).square().sum().backward()
    assert z.grad.dtype == torch.bfloat16
    assert (z.grad.float() - twin.grad).abs().max() < 0.02 * twin.grad.abs().max()  # measured 0.005
