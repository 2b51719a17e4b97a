"""Patches and their moments."""

import pytest
import torch

from wfm.errors import ConfigError
from wfm.models.tokenizer.patches import LinearCode, Moments, cut, join, patch_moments


def test_cut_and_join_are_inverse():
    video = torch.randn(2, 3, 9, 8, 12)
    first, later = cut(video, 4, 4)
    assert first.shape == (2, 1, 2, 3, 48)
    assert later.shape == (2, 2, 2, 3, 192)
    assert torch.equal(join(first, later, 4, 4), video)


def test_frames_that_continue_a_video_have_no_first_patches():
    video = torch.randn(2, 5, 8, 8, 12)
    first, later = cut(video, 4, 4, opening=False)
    assert first.shape[1] == 0
    assert torch.equal(later, cut(torch.cat([video[:, :, :1], video], dim=2), 4, 4)[1])
    assert torch.equal(join(first, later, 4, 4), video)


def test_a_single_frame_has_no_later_patches():
    video = torch.randn(1, 3, 1, 8, 8)
    first, later = cut(video, 4, 4)
    assert later.shape[1] == 0
    assert torch.equal(join(first, later, 4, 4), video)


def test_patches_hold_their_own_pixels():
    video = torch.zeros(1, 3, 5, 8, 8)
    video[:, :, 1:, 4:, :4] = 1
    _, later = cut(video, 4, 4)
    assert later[0, 0].sum(-1).tolist() == [[0, 0], [192, 0]]


@pytest.mark.parametrize("shape", [(4, 8, 8), (5, 6, 8), (5, 8, 6)])
def test_sizes_that_do_not_fit_are_refused(shape):
    with pytest.raises(ConfigError, match="multiples of 4"):
        cut(torch.zeros(1, 3, *shape), 4, 4)


def test_moments_equal_torch():
    rows = torch.randn(50, 6)
    moments = Moments(6)
    for part in rows.split(20):
        moments.add(part)
    assert torch.allclose(moments.mean().float(), rows.mean(0), atol=1e-6)
    assert torch.allclose(moments.covariance().float(), rows.T.cov(correction=0), atol=1e-5)


def test_every_group_start_counts_as_a_first_frame():
    first, later = patch_moments([torch.randn(2, 3, 9, 8, 8)], 3, 4, 4)
    assert first.count == 2 * 4 * (1 + 2)
    assert later.count == 2 * 4 * 2


def test_refitted_decoder_is_least_squares():
    torch.manual_seed(0)
    codes, wanted = torch.randn(200, 3), torch.randn(3, 7)
    code = LinearCode(7, 3)
    code.refit_decoder(codes, codes @ wanted + 2)
    assert torch.allclose(code.decoder.weight.T, wanted, atol=1e-4)
    assert torch.allclose(code.decoder.bias, torch.full((7,), 2.0), atol=1e-4)


def test_whitening_gives_unit_deviation():
    rows = torch.randn(4000, 6) * torch.tensor([5.0, 3, 2, 1, 1, 1])
    moments = Moments(6)
    moments.add(rows)
    code = LinearCode(6, 3)
    for whiten, wanted in ((True, [1.0, 1.0, 1.0]), (False, [5.0, 3.0, 2.0])):
        code.start(moments.mean(), moments.covariance(), whiten=whiten)
        assert torch.allclose(code.encode(rows).std(0), torch.tensor(wanted), rtol=0.06)
