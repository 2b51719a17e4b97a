"""The flow estimator knows motion that is known, can be differentiated, and its loss is its formula."""

import pytest
import torch
import torch.nn.functional as F

from wfm.models.tokenizer.optical_flow import LucasKanade, both_flows, flow_distance, warp

SIZE = 64


def texture(seed: int = 0, size: int = SIZE + 32, channels: int = 3) -> torch.Tensor:
    """A smooth random pattern `[1, C, size, size]` in about [-1, 1]."""
    noise = torch.randn(
        1, channels, size // 4, size // 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return F.interpolate(noise, (size, size), mode="bicubic", align_corners=False).clamp(-2, 2) / 2


def shifted(x: float, y: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Two views of a texture whose content moves by (x, y) px; the borders come from outside the picture."""
    whole = texture()
    flow = torch.tensor([-x, -y], dtype=whole.dtype).view(1, 2, 1, 1).expand(1, 2, *whole.shape[-2:])
    moved = warp(whole, flow)
    inside = slice(16, 16 + SIZE)
    return whole[..., inside, inside], moved[..., inside, inside]


@pytest.mark.parametrize("motion", [(0.0, 0.0), (0.5, -0.25), (2.0, 1.0), (-4.0, 3.0), (6.0, 0.0)])
def test_a_known_shift_is_found(motion):
    flow = LucasKanade().double()(*shifted(*motion))
    error = (flow - torch.tensor(motion, dtype=flow.dtype).view(1, 2, 1, 1)).norm(dim=1)
    inner = error[..., 8:-8, 8:-8]
    assert inner.median() < 0.1  # measured worst: 0.080
    assert inner.mean() < 0.15  # measured worst: 0.112


def test_a_plain_surface_does_not_move():
    plain = torch.full((1, 3, 32, 32), 0.3)
    assert LucasKanade()(plain, plain + 0.2).abs().max() == 0


def test_warp_reads_where_the_flow_points():
    picture = torch.arange(20.0, dtype=torch.float64).view(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5, dtype=torch.float64)
    assert torch.allclose(warp(picture, flow), picture, atol=1e-12)
    flow[:, 0] = 1  # one to the right, the edge repeated
    assert torch.allclose(warp(picture, flow), torch.cat([picture[..., 1:], picture[..., -1:]], -1), atol=1e-12)
    flow[:, 0], flow[:, 1] = 0, 0.5
    assert warp(picture, flow)[0, 0, 0, 0] == 2.5


def test_the_gradient_is_the_slope_of_the_loss():
    """Against central differences along random directions, in fp64."""
    torch.manual_seed(0)
    estimator = LucasKanade().double()
    one, two = shifted(1.0, 0.5)
    video = torch.stack([one, two, shifted(2.0, 1.0)[1]], dim=2)  # [1, C, 3, H, W]
    rebuilt = (0.9 * video + 0.02 * torch.randn_like(video)).requires_grad_(True)
    loss = flow_distance(estimator, rebuilt, video, 2)
    (gradient,) = torch.autograd.grad(loss, rebuilt)
    assert gradient.norm() > 0
    for seed in range(3):
        direction = torch.randn(video.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        h = 1e-7
        ahead, behind = (flow_distance(estimator, rebuilt.detach() + s * h * direction, video, 2) for s in (1, -1))
        assert float((gradient * direction).sum()) == pytest.approx(float(ahead - behind) / (2 * h), rel=2e-3)


@pytest.mark.parametrize("scale", [1, 2])
def test_flow_distance_is_its_formula(scale):
    estimator = LucasKanade().double()
    video = torch.cat([torch.stack([shifted(k * 1.0, 0.5 * k)[1] for k in range(3)], dim=2),
                       torch.stack([shifted(0.0, 1.5 * k)[1] for k in range(3)], dim=2)])  # fmt: skip
    rebuilt = video + 0.05 * torch.randn(video.shape, generator=torch.Generator().manual_seed(2), dtype=video.dtype)

    def small(frame: torch.Tensor) -> torch.Tensor:
        blocks = frame.unfold(1, scale, scale).unfold(2, scale, scale)
        return blocks.mean(dim=(3, 4))[None]

    differences = []
    for clip in range(2):
        for t in range(2):
            for a, b in ((t, t + 1), (t + 1, t)):  # forward and backward
                flows = [scale * estimator(small(v[clip, :, a]), small(v[clip, :, b])) for v in (rebuilt, video)]
                differences += (flows[0] - flows[1]).abs().flatten().tolist()
    expected = sum(differences) / len(differences)
    assert flow_distance(estimator, rebuilt, video, scale).item() == pytest.approx(expected, rel=1e-9)
    assert flow_distance(estimator, video, video, scale) == 0


def test_the_flow_of_a_shrunk_video_is_in_its_own_pixels():
    video = torch.stack(shifted(2.0, 0.0), dim=2)
    forward, backward = both_flows(LucasKanade().double(), video, 2)[:, :, 8:-8, 8:-8].mean((2, 3))
    assert torch.allclose(forward, torch.tensor([2.0, 0.0], dtype=forward.dtype), atol=0.25)
    assert torch.allclose(backward, torch.tensor([-2.0, 0.0], dtype=forward.dtype), atol=0.25)


def test_images_have_no_flow():
    video = torch.randn(1, 3, 1, 16, 16, requires_grad=True)
    assert flow_distance(LucasKanade(), video, video.detach(), 2) == 0


@pytest.mark.parametrize("shape", [(1, 1, 2, 8, 8), (2, 5, 2, 33, 17)])
def test_any_size_and_number_of_channels(shape):
    video = torch.randn(shape)
    assert torch.isfinite(flow_distance(LucasKanade(), video, torch.randn(shape), 2))
