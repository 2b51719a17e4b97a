"""Latent statistics: the table's columns, images, and what lies past the table."""

import pytest
import torch

from wfm.errors import ConfigError
from wfm.models.diffusion.statistics import LatentStatistics


def table(frames: int, image: bool = False) -> LatentStatistics:
    generator = torch.Generator().manual_seed(0)
    statistics = LatentStatistics(3, frames, 0.5, image=image)
    mean, std = torch.randn(3, frames, generator=generator), torch.rand(3, frames, generator=generator) + 0.5
    rows = {"image_mean": torch.full((3,), 7.0), "image_std": torch.full((3,), 2.0)} if image else {}
    statistics.set(mean, std, **rows)
    return statistics


@pytest.mark.parametrize(("frames", "length"), [(2, 1), (2, 5), (16, 16), (16, 20)])
def test_there_and_back(frames, length):
    statistics = table(frames).double()
    latents = torch.randn(2, 3, length, 4, 4, dtype=torch.float64)
    units = statistics.normalise(latents)
    assert torch.allclose(statistics.denormalise(units), latents, atol=1e-14)
    for i in range(length):  # past the table its last column
        column = min(i, frames - 1)
        wanted = (latents[:, 1, i] - statistics.mean[1, column]) / statistics.std[1, column] * 0.5
        assert torch.allclose(units[:, 1, i], wanted)


def test_one_deviation():
    torch.manual_seed(0)
    latents = torch.randn(400, 3, 4, 6, 6) * torch.tensor([1.0, 2.0, 5.0]).view(1, 3, 1, 1, 1) + 3
    statistics = LatentStatistics(3, 4, 0.5)
    statistics.set(latents.mean((0, 3, 4)), latents.std((0, 3, 4)))
    units = statistics.normalise(latents)
    assert units.mean().abs() < 1e-5
    assert torch.allclose(units.std((0, 3, 4)), torch.full((3, 4), 0.5), atol=1e-4)


def test_images_have_a_row_of_their_own_and_first_frames_of_videos_do_not_use_it():
    statistics, picture = table(4, image=True), torch.full((1, 3, 1, 2, 2), 9.0)
    assert torch.equal(statistics.normalise(picture), torch.full_like(picture, 0.5))  # (9 - 7) / 2 * 0.5
    first = statistics.normalise(picture, video=True)
    assert torch.allclose(first[0, :, 0, 0, 0], (9 - statistics.mean[:, 0]) / statistics.std[:, 0] * 0.5)
    assert torch.equal(statistics.denormalise(statistics.normalise(picture)), picture)
    plain = table(4)
    assert torch.equal(plain.normalise(picture), plain.normalise(picture, video=True))  # no row: the first column


def test_a_short_table_fills_a_long_one():
    statistics = LatentStatistics(2, 16, 0.5)
    mean, std = torch.tensor([[1.0, 2.0]] * 2), torch.tensor([[3.0, 4.0]] * 2)
    statistics.set(mean, std)
    assert statistics.mean[0].tolist() == [1.0] + [2.0] * 15
    assert statistics.std[1].tolist() == [3.0] + [4.0] * 15


def test_they_are_saved():
    assert set(table(4, image=True).state_dict()) == {"mean", "std", "image_mean", "image_std"}
    assert set(table(4).state_dict()) == {"mean", "std"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": torch.zeros(3, 9)}, "statistics_frames"),
        ({"mean": torch.zeros(2, 2)}, r"wanted \[3, 1 to 4\]"),
        ({"std": torch.tensor([[1.0, 0.0]] * 3)}, "not positive"),
        ({"image_mean": torch.zeros(3)}, "image_statistics is False"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    values = {"mean": torch.zeros(3, 2), "std": torch.ones(3, 2), **change}
    with pytest.raises(ConfigError, match=words):
        LatentStatistics(3, 4, 0.5).set(values.pop("mean"), values.pop("std"), **values)
    with pytest.raises(ConfigError, match=r"wanted \[B, 3, T, H, W\]"):
        table(2).normalise(torch.zeros(1, 4, 2, 2, 2))
