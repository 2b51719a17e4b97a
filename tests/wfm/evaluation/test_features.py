import numpy as np
import torch

from wfm.evaluation.features import (
    KERNEL,
    ORIENTATIONS,
    SCALES,
    WAVELENGTH,
    GaborPyramid,
    clip_descriptor,
    frames_to_tensor,
)


def grating(angle_degrees: float, size: int = 48) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    angle = torch.deg2rad(torch.tensor(angle_degrees))
    wave = torch.cos(2 * torch.pi * (x * torch.cos(angle) + y * torch.sin(angle)) / WAVELENGTH)
    return (0.5 + 0.4 * wave).expand(1, 3, size, size).contiguous()


def test_each_orientation_answers_its_own_grating_most():
    net = GaborPyramid()
    for index in range(ORIENTATIONS):
        finest = net(grating(180 * index / ORIENTATIONS))[0]
        brightness = finest[0, :ORIENTATIONS].mean((1, 2))
        assert int(brightness.argmax()) == index


def test_a_flat_picture_has_no_energy_and_keeps_its_colour():
    maps = GaborPyramid()(torch.full((1, 3, 32, 32), 0.5))
    assert len(maps) == SCALES + 1
    assert all(float(level.max()) < 2e-3 for level in maps[:-1])
    np.testing.assert_allclose(maps[-1][0, :, 0, 0], [0.5, 0.0, 0.0], atol=1e-6)


def test_energy_forgives_a_small_shift_that_pixels_do_not():
    net, inner = GaborPyramid(), slice(KERNEL, -KERNEL)
    picture = grating(0)
    moved = torch.roll(picture, 2, dims=3)
    before, after = net(picture)[0][..., inner, inner], net(moved)[0][..., inner, inner]
    energy = ((before - after).norm() / before.norm()).item()
    pixels = ((picture - moved).norm() / (picture - picture.mean()).norm()).item()
    assert energy < 0.25 < 1.0 < pixels


def test_the_net_is_the_same_each_time():
    picture = grating(30)
    for left, right in zip(GaborPyramid()(picture), GaborPyramid()(picture), strict=True):
        assert torch.equal(left, right)


def test_a_still_clip_is_told_from_a_moving_one():
    moving = torch.stack([torch.roll(grating(0)[0], 12 * t, dims=2) * (1 - 0.1 * t) for t in range(4)])
    still = moving[:1].expand(4, -1, -1, -1)
    net = GaborPyramid()
    a, b = clip_descriptor(net(moving), 1), clip_descriptor(net(still), 1)
    half = a.shape[1] // 2
    assert float(b[:, half:].abs().max()) == 0.0
    assert float(a[:, half:].abs().max()) > 0.01


def test_frames_become_channels_first_in_unit_range():
    video = np.zeros((2, 3, 4, 5, 3), np.uint8)
    video[1, 2, 3, 4] = (255, 51, 0)
    tensor = frames_to_tensor(video)
    assert tensor.shape == (6, 3, 4, 5)
    np.testing.assert_allclose(tensor[5, :, 3, 4], [1.0, 0.2, 0.0])
