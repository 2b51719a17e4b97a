"""The second player: its verdicts, its losses against their formulas, and that it learns."""

import pytest
import torch
import torch.nn.functional as F

from wfm.models.tokenizer.discriminator import (
    PatchDiscriminator,
    accuracy,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)
from wfm.models.tokenizer.loss_config import AdversarialConfig

SMALL = AdversarialConfig(channels=8, levels=2)


@pytest.mark.parametrize(("shape", "patches"), [((2, 3, 9, 32, 24), (5, 8, 6)), ((2, 3, 1, 16, 16), (1, 4, 4))])
def test_one_verdict_a_patch(shape, patches):
    torch.manual_seed(0)
    assert PatchDiscriminator(SMALL)(torch.randn(shape)).shape == (2, 1, *patches)
    deeper = PatchDiscriminator(AdversarialConfig(channels=8, levels=3), in_channels=5)
    assert deeper(torch.randn(1, 5, 9, 32, 32)).shape == (1, 1, 3, 4, 4)


def test_a_verdict_does_not_depend_on_the_other_videos():
    torch.manual_seed(0)
    net, video = PatchDiscriminator(SMALL).double(), torch.randn(3, 3, 5, 16, 16, dtype=torch.float64)
    assert torch.allclose(net(video)[1:2], net(video[1:2]), atol=1e-12)


def test_losses_are_their_formulas():
    real, false = torch.tensor([2.0, 0.5, -1.0]).double(), torch.tensor([-3.0, 0.25, -0.5]).double()
    wanted = ((0 + 0.5 + 2.0) / 3 + (0 + 1.25 + 0.5) / 3) / 2
    assert discriminator_loss(real, false).item() == pytest.approx(wanted, rel=1e-12)
    assert generator_loss(false).item() == pytest.approx(3.25 / 3, rel=1e-12)
    assert accuracy(real, false) == pytest.approx(2 / 3)
    assert accuracy(torch.zeros(4), torch.zeros(4)) == 0.5


def test_r1_is_half_the_squared_slope():
    weights = torch.randn(3, 2, 4, 4, dtype=torch.float64)

    class Quadratic(torch.nn.Module):
        def forward(self, video):
            return (weights * video).flatten(1).sum(1) ** 2

    video = torch.randn(5, 3, 2, 4, 4, dtype=torch.float64)
    slopes = [2 * float((weights * v).sum()) * weights for v in video]
    wanted = sum(float((s**2).sum()) for s in slopes) / 5 / 2
    assert r1_penalty(Quadratic(), video).item() == pytest.approx(wanted, rel=1e-12)


def test_r1_is_the_same_for_any_size():
    """A net that judges each frame by itself, on a video and on the same video three times over."""
    torch.manual_seed(0)
    net = torch.nn.Conv3d(3, 1, (1, 4, 4), stride=(1, 4, 4)).double()
    video = torch.randn(2, 3, 2, 8, 8, dtype=torch.float64)
    assert r1_penalty(net, video.repeat(1, 1, 3, 2, 1)).item() == pytest.approx(
        r1_penalty(net, video).item(), rel=1e-12
    )


def test_r1_can_be_minimised():
    torch.manual_seed(0)
    net, video = PatchDiscriminator(SMALL), torch.randn(2, 3, 5, 16, 16)
    r1_penalty(net, video).backward()
    gradients = [p.grad for name, p in net.named_parameters() if "weight" in name]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert gradients[0].abs().max() > 0
    assert video.grad is None


def test_alone_it_learns_to_tell_blurred_videos():
    torch.manual_seed(0)
    net = PatchDiscriminator(SMALL)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, betas=(0.5, 0.999))

    def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        sharp = torch.rand(8, 3, 5, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        return sharp, F.avg_pool3d(sharp, (1, 3, 3), stride=1, padding=(0, 1, 1))

    def seen(seed: int) -> float:
        with torch.no_grad():
            sharp, blurred = batch(seed)
            return accuracy(net(sharp), net(blurred))

    before = seen(999)
    for step in range(40):
        sharp, blurred = batch(step)
        discriminator_loss(net(sharp), net(blurred)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert before < 0.7
    assert seen(999) > 0.95
