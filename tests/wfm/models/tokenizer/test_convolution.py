"""Causal layers against conv3d, whole and group by group."""

import pytest
import torch
import torch.nn.functional as F

from wfm.models.fast_cpu import fast_cpu, plain
from wfm.models.tokenizer.blocks import CausalAttention, Downsample, ResidualBlock, Upsample, causal_mask
from wfm.models.tokenizer.convolution import FactorisedConv, SpatialConv, Stream, TemporalConv


def channels_last(frames: int = 7, channels: int = 6) -> torch.Tensor:
    return torch.randn(2, frames, 4, 6, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_spatial_is_conv3d():
    layer, x = SpatialConv(6, 5).double(), channels_last()
    wanted = F.conv3d(x.permute(0, 4, 1, 2, 3), layer.weight, layer.bias, padding=(0, 1, 1)).permute(0, 2, 3, 4, 1)
    assert torch.allclose(layer(x), wanted, rtol=0, atol=1e-12)


def test_temporal_is_conv3d_behind_the_first_frame_repeated():
    layer, x = TemporalConv(6).double(), channels_last()
    padded = torch.cat([x[:, :1], x[:, :1], x], dim=1).permute(0, 4, 1, 2, 3)
    wanted = F.conv3d(padded, layer.weight, layer.bias).permute(0, 2, 3, 4, 1)
    assert torch.allclose(layer(x), wanted, rtol=0, atol=1e-12)


LAYERS = {
    "factorised": lambda: FactorisedConv(6, 6),
    "block": lambda: ResidualBlock(6, 6),
    "attention": lambda: CausalAttention(6),
    "halving": lambda: Downsample(6, space=True, time=True),
    "doubling": lambda: Upsample(6, space=True, time=True),
    "doubling time": lambda: Upsample(6, space=False, time=True),
}


@pytest.mark.parametrize("groups", [(1, 2, 2, 2), (3, 4), (5, 2), (7,)])
@pytest.mark.parametrize("way", ["plain", "fast", "in turn"])
@pytest.mark.parametrize("name", LAYERS)
def test_group_by_group_is_the_whole(name, way, groups):
    torch.manual_seed(0)
    layer, x, stream = LAYERS[name]().double(), channels_last(), Stream()
    wanted = layer(x)
    found = []
    for index, group in enumerate(x.split(groups, dim=1)):
        if way == "fast" or (way == "in turn" and index % 2):  # what one leaves in the stream, the other goes on from
            fast_cpu(layer)
        found.append(layer(group, stream))
        plain(layer)
        stream.advance()
    assert torch.allclose(torch.cat(found, dim=1), wanted, rtol=0, atol=1e-12)
    assert stream.bytes > 0
    assert not stream.opening


def test_attention_window_forgets():
    torch.manual_seed(0)
    layer, x = CausalAttention(6).double(), channels_last()
    for window in (0, 3):
        stream = Stream(attention_frames=window)
        for frame in x.split(1, dim=1):
            last = layer(frame, stream)
        kept = stream.recall(layer)
        assert kept[0].shape[1] == (window - 1 if window else x.shape[1])  # what the next frame may see
    # the last frame saw itself and the two before
    assert torch.allclose(last, layer(x[:, -3:])[:, -1:], rtol=0, atol=1e-12)


def test_mask_of_queries_at_the_end_of_the_keys():
    assert causal_mask(2, 4, 0, torch.device("cpu")).int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert causal_mask(2, 4, 2, torch.device("cpu")).int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]
