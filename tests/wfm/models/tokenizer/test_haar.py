"""Haar patches: what a block becomes, that nothing is lost, and that folding into weights is the same transform."""

import pytest
import torch

from wfm.models.tokenizer.haar import cut_blocks, fold_analysis, fold_synthesis, join_blocks


def coefficients(video: torch.Tensor, size: int) -> torch.Tensor:
    """The transform alone: folding it into an identity gives its matrix."""
    blocks = cut_blocks(video, size)
    identity = torch.eye(blocks.shape[-1], dtype=video.dtype)
    return blocks @ fold_analysis(identity, size).T


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_perfect_reconstruction(size):
    torch.manual_seed(0)
    video = torch.rand(2, 3, 1 + 2 * size, 3 * size, 2 * size, dtype=torch.float64)
    bands = coefficients(video, size)
    assert bands.shape == (2, 3, 3, 2, 3 * size**3)
    identity = torch.eye(bands.shape[-1], dtype=torch.float64)
    again = join_blocks(bands @ fold_synthesis(identity, size).T, size)
    assert again.shape == video.shape
    assert (again - video).abs().max() <= 1e-14  # worst measured 3e-15


def test_constant_keeps_its_value_in_the_low_band_alone():
    bands = coefficients(torch.full((1, 2, 5, 4, 4), 0.7, dtype=torch.float64), 4)
    assert torch.allclose(bands[..., :2], torch.tensor(0.7, dtype=torch.float64))
    assert bands[..., 2:].abs().max() < 1e-15


@pytest.mark.parametrize(("axis", "band"), [(2, 4), (3, 2), (4, 1)])  # time, height, width
def test_bands_of_the_first_level_are_in_the_order_time_height_width(axis, band):
    video = torch.ones(1, 1, 4, 4, 4, dtype=torch.float64)
    video.select(axis, 1).neg_()
    video.select(axis, 3).neg_()  # alternates along one axis
    blocks = cut_blocks(video, 2, opening=False)
    bands = blocks @ fold_analysis(torch.eye(8, dtype=torch.float64), 2).T
    assert bands[..., band].abs().min() == 1
    assert bands.abs().sum(-1).max() == 1


def test_bands_are_band_major_and_last_level_first():
    """A pair of pixels apart by 2 is a matter of the second level; channels are innermost."""
    video = torch.ones(1, 2, 4, 4, 4, dtype=torch.float64)
    video[:, 1, :, :, 2:] = -1  # channel 1 alone changes sign between the halves of the block
    blocks = cut_blocks(video, 4, opening=False)
    bands = blocks @ fold_analysis(torch.eye(128, dtype=torch.float64), 4).T
    second_level_width, first_level_low = 1, 0
    assert bands[0, 0, 0, 0].nonzero().flatten().tolist() == [0, (second_level_width * 8 + first_level_low) * 2 + 1]


def test_first_frame_is_a_block_of_its_own():
    video = torch.rand(1, 1, 5, 4, 4)
    first, later = cut_blocks(video, 4)[:, 0], cut_blocks(video[:, :, 1:], 4, opening=False)
    assert torch.equal(first.view(4, 4, 4), video[0, 0, :1].expand(4, -1, -1))
    assert torch.equal(later, cut_blocks(video, 4)[:, 1:])
    assert torch.equal(join_blocks(later, 4, opening=False), video[:, :, 1:])


def test_folding_into_a_kernel_and_a_bias():
    torch.manual_seed(0)
    video = torch.rand(1, 3, 4, 8, 8, dtype=torch.float64)
    weight, bias = torch.randn(5, 24, 3, 3, dtype=torch.float64), torch.randn(24, dtype=torch.float64)
    blocks = cut_blocks(video, 2, opening=False)[0]
    matrix = fold_analysis(torch.eye(24, dtype=torch.float64), 2)
    wanted = torch.nn.functional.conv2d((blocks @ matrix.T).permute(0, 3, 1, 2), weight, padding=1)
    found = torch.nn.functional.conv2d(blocks.permute(0, 3, 1, 2), fold_analysis(weight, 2), padding=1)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-13)
    inverse = fold_synthesis(torch.eye(24, dtype=torch.float64), 2)
    assert torch.allclose(inverse @ bias, fold_synthesis(bias, 2), rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [2, 4])
def test_images_have_width_before_height(size):
    identity = torch.eye(size**2, dtype=torch.float64)
    matrix = fold_analysis(identity, size, dimensions=2)
    rows = torch.tensor([1.0, -1.0] * (size // 2), dtype=torch.float64)[:, None].expand(size, size).flatten()
    assert (matrix @ rows).nonzero().flatten().tolist() == [1]  # first level, height: the lowest bit
    assert torch.allclose(fold_synthesis(identity, size, dimensions=2) @ matrix, identity)
