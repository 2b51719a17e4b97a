"""A loss told apart by noise level and kind is the plain loop's, and no step of it waits for a device."""

import math

import pytest
import torch

from wfm.models.binned import EDGES, by_kind, by_level, labels
from wfm.models.loss import Mean


def plainly(each, level):
    """The twin: one sample after the other."""
    found = {label: [] for label in labels("loss")}
    for value, noise in zip(each.tolist(), level.tolist(), strict=True):
        place = sum(noise >= edge for edge in EDGES)
        found[labels("loss")[place]].append(value)
    return {label: (math.fsum(values), len(values)) for label, values in found.items()}


def test_by_level_is_the_plain_loops():
    generator = torch.Generator().manual_seed(1)
    each = torch.randn(200, generator=generator, dtype=torch.float64)
    level = torch.exp(2 * torch.randn(200, generator=generator, dtype=torch.float64))
    level[:3] = torch.tensor(EDGES, dtype=torch.float64)  # an edge belongs to the bin above it
    found = by_level("loss", each.clone().requires_grad_(), level)
    for label, (total, count) in plainly(each, level).items():
        assert count > 10
        assert float(found[label].count) == count
        assert float(found[label].total) == pytest.approx(total, abs=1e-12)
        assert not found[label].total.requires_grad
    assert sum(float(one.total) for one in found.values()) == pytest.approx(float(each.sum()), abs=1e-12)


def test_frames_with_levels_of_their_own_and_frames_that_share_one():
    each = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    own = by_level("mse", each, torch.tensor([[0.1, 0.5], [2.0, 9.0]]))
    assert [float(one.total) for one in own.values()] == [1, 2, 3, 4]
    shared = by_level("mse", each, torch.tensor([0.1, 9.0]))
    assert {name: one.number() for name, one in shared.items() if one.count} == {
        "mse_noise_below_0.25": 1.5, "mse_noise_above_4": 3.5,
    }  # fmt: skip


def test_a_sample_that_is_no_number_spoils_its_own_level_alone():
    found = by_level("loss", torch.tensor([math.nan, 1.0]), torch.tensor([0.1, 2.0]))
    assert math.isnan(float(found["loss_noise_below_0.25"].total))
    assert found["loss_noise_1_to_4"].number() == 1.0


def test_by_kind():
    assert by_kind("loss", torch.tensor([1.0, 2.0]), 1)["loss_image"].number() == 1.5
    assert by_kind("loss", torch.tensor([1.0, 2.0]), 5)["loss_video"].number() == 1.5


def test_nothing_is_read_from_a_device(monkeypatch):
    def read(*_):
        raise AssertionError("it waits for the device")

    for name in ("item", "__float__", "__bool__", "tolist", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, read)
    found = by_level("loss", torch.ones(4), torch.ones(4)) | by_kind("loss", torch.ones(4), 3)
    assert all(isinstance(one, Mean) for one in found.values())
