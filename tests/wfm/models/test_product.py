"""The product of linear layers: the same numbers and gradients as torch's, whichever library computes them."""

import pytest
import torch
import torch.nn.functional as F

from wfm.models.product import product


@pytest.fixture
def _always_onednn(monkeypatch):
    """Products of any size take the way of large ones."""
    monkeypatch.setattr("wfm.models.product.FEW", 0)
    monkeypatch.setattr("wfm.models.product.FEW_OF_FEW_ROWS", 0)
    monkeypatch.setattr("wfm.models.product.FEW_OF_ONE_ROW", 0)
    monkeypatch.setattr("wfm.models.product.FEW_LEARNING", 0)


@pytest.mark.usefixtures("_always_onednn")
@pytest.mark.parametrize("shape", [(3, 500), (64, 500), (2, 50, 500), (2, 3, 50, 500)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_product_and_gradients_equal_torch(shape, dtype):
    torch.manual_seed(0)
    found, wanted = [], []
    for compute, results in ((product, found), (F.linear, wanted)):
        torch.manual_seed(1)
        x = torch.randn(shape).to(dtype).requires_grad_()
        weight = torch.randn(48, 500).to(dtype).requires_grad_()
        out = compute(x, weight)
        out.square().sum().backward()
        results += [out.detach(), x.grad, weight.grad]
        results.append(compute(x.detach(), weight.detach()))
    tolerance = {torch.float32: 5e-6, torch.float64: 1e-14, torch.bfloat16: 1e-2}[dtype]  # worst measured 1e-6, 0, 0
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert (one - other).abs().max() <= tolerance * other.abs().max()


@pytest.mark.usefixtures("_always_onednn")
def test_views_and_second_derivatives():
    wide = torch.randn(100, 80)
    weight = torch.randn(24, 40)
    assert torch.allclose(product(wide[:, ::2], weight), F.linear(wide[:, ::2], weight), atol=1e-4)
    assert torch.allclose(product(wide.t()[:40].t(), weight), F.linear(wide[:, :40], weight), atol=1e-4)
    x = torch.randn(100, 40, requires_grad=True)
    w = weight.clone().requires_grad_()
    seconds = []
    for compute in (product, F.linear):
        (first,) = torch.autograd.grad(compute(x, w).pow(3).sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), w)[0])
    assert (seconds[0] - seconds[1]).abs().max() <= 1e-5 * seconds[1].abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_row_is_a_product_of_matrix_and_vector(dtype):
    torch.manual_seed(0)
    row, weight = torch.randn(1, 1, 192, dtype=dtype), torch.randn(512, 192, dtype=dtype)
    wanted = row.double() @ weight.double().t()
    bound = 2e-6 if dtype == torch.float32 else 1e-13  # worst seen, fp32: 3e-7 of the largest
    with torch.no_grad():
        found = product(row, weight)
    assert found.shape == (1, 1, 512)
    assert (found - wanted).abs().max() <= bound * wanted.abs().max()
    row.requires_grad_()
    product(row, weight).sum().backward()  # with gradients: the ordinary product
    assert torch.allclose(row.grad.double(), weight.double().sum(0), atol=1e-4)
