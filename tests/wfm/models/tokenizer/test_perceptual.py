"""Feature nets and the distances on them: against plain formulas in fp64, and against torchvision's layout as published."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from wfm.errors import ConfigError, DataError
from wfm.models.tokenizer.perceptual import (
    COSMOS_LAYER_WEIGHTS,
    ENERGY_FLOOR,
    ORIENTATIONS,
    GaborNet,
    feature_net,
    gabor_bank,
    gram,
    gram_distance,
    load_vgg,
    perceptual_distance,
)

# torchvision's `features` convolutions: index, inputs, outputs. Typed from its published configurations D and E.
VGG16 = [(0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256),
         (17, 256, 512), (19, 512, 512), (21, 512, 512), (24, 512, 512), (26, 512, 512), (28, 512, 512)]  # fmt: skip
VGG19 = [(0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256),
         (16, 256, 256), (19, 256, 512), (21, 512, 512), (23, 512, 512), (25, 512, 512), (28, 512, 512), (30, 512, 512),
         (32, 512, 512), (34, 512, 512)]  # fmt: skip
POOLS = {"vgg16": (4, 9, 16, 23), "vgg19": (4, 9, 18, 27)}
TAPS = {"vgg16": (3, 8, 15, 22, 29), "vgg19": (3, 8, 13, 22, 31)}
LAYOUTS = {"vgg16": VGG16, "vgg19": VGG19}


def state_dict(name: str) -> dict[str, torch.Tensor]:
    """Random convolutions of a net, and a classifier (of one column: its shape is of no concern here)."""
    generator = torch.Generator().manual_seed(1)
    found = {f"classifier.{number}.weight": torch.zeros(1, 1) for number in (0, 3, 6)}
    for index, inputs, outputs in LAYOUTS[name]:
        scale = (2 / (9 * inputs)) ** 0.5
        found[f"features.{index}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) * scale
        found[f"features.{index}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vgg")
    for name in LAYOUTS:
        save_file(state_dict(name), folder / f"{name}.safetensors")
    return folder


def plain_vgg(name: str, frames: torch.Tensor) -> list[torch.Tensor]:
    """The net written out: normalise, then layer by layer by index."""
    weights = {key: value.to(frames) for key, value in state_dict(name).items()}
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((frames + 1) / 2 - mean.to(frames)[:, None, None]) / std.to(frames)[:, None, None]
    maps, convolutions = [], {index for index, _, _ in LAYOUTS[name]}
    for index in range(TAPS[name][-1] + 1):
        if index in convolutions:
            x = F.conv2d(x, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1)
        elif index in POOLS[name]:
            x = F.max_pool2d(x, 2, 2)
        else:
            x = x.clamp(min=0)
        if index in TAPS[name]:
            maps.append(x)
    return maps


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_vgg_takes_torchvisions_file_and_reads_the_right_layers(files, name):
    net = feature_net(name, files / f"{name}.safetensors").double()
    frames = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    ours, plain = net(frames), plain_vgg(name, frames)
    assert [tuple(m.shape) for m in ours] == [(2, c, 32 // s, 48 // s) for c, s in
                                              ((64, 1), (128, 2), (256, 4), (512, 8), (512, 16))]  # fmt: skip
    for one, other in zip(ours, plain, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-6 * other.abs().max().item())  # the buffers are fp32: 6e-8
    assert not any(p.requires_grad for p in net.parameters())
    assert not net.training


def changed(**values) -> dict[str, torch.Tensor]:
    found = {**state_dict("vgg16"), **{key.replace("_", ".", 2): value for key, value in values.items()}}
    return {key: value for key, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"features_10_weight": None}, "missing features.10.weight"),
        ({"features_10_weight": torch.zeros(256, 128, 1, 1)}, "wanted \\[256, 128, 3, 3\\]"),
        ({"features_31_weight": torch.zeros(1)}, "unexpected features.31.weight"),
        ({"net_slice1_weight": torch.zeros(1)}, "unexpected net.slice1.weight"),
    ],
)
def test_another_file_is_refused(tmp_path, values, message):
    save_file(changed(**values), tmp_path / "f.safetensors")
    with pytest.raises(DataError, match=message):
        load_vgg("vgg16", tmp_path / "f.safetensors")


def test_the_other_net_a_broken_file_and_no_file_are_refused(files, tmp_path):
    with pytest.raises(DataError, match="not torchvision's vgg16"):
        load_vgg("vgg16", files / "vgg19.safetensors")
    with pytest.raises(DataError, match="not torchvision's vgg19"):
        load_vgg("vgg19", files / "vgg16.safetensors")
    whole = (files / "vgg16.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    for path in (tmp_path / "cut.safetensors", tmp_path / "none.safetensors"):
        with pytest.raises(DataError, match="feature_file"):
            load_vgg("vgg16", path)
    with pytest.raises(ConfigError, match="offline-gabor"):
        feature_net("vgg16")


def test_vgg_needs_three_channels_and_sixteen_pixels(files):
    net = load_vgg("vgg16", files / "vgg16.safetensors")
    for shape in ((1, 1, 32, 32), (1, 3, 8, 32)):
        with pytest.raises(ConfigError, match="offline-gabor"):
            net(torch.zeros(shape))


def test_cosmos_layer_weights():
    assert COSMOS_LAYER_WEIGHTS == (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)


def test_the_offline_net_sees_structure_and_not_brightness():
    net = GaborNet().double()
    frames = torch.rand(2, 4, 20, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)  # four channels
    maps = net(frames)
    assert [tuple(m.shape) for m in maps] == [(2, 16, h, w) for h, w in
                                              ((20, 24), (10, 12), (5, 6), (3, 3), (2, 2))]  # fmt: skip
    for one, other in zip(maps, net(frames + 0.3), strict=True):
        assert torch.allclose(one, other, atol=1e-5)  # filters have no answer to a constant
    for flat in net(torch.full_like(frames, 0.5)):
        assert torch.allclose(flat, torch.full_like(flat, ENERGY_FLOOR**0.5), atol=1e-5)
    # a vertical edge excites other maps than a horizontal one, and only those of its own channel
    edge = torch.zeros(1, 2, 16, 16, dtype=torch.float64)
    edge[:, 0, :, 8:] = 1
    across, down = net(edge)[0].mean((2, 3))[0], net(edge.mT)[0].mean((2, 3))[0]
    assert across.argmax() != down.argmax()
    assert torch.allclose(across[1::2], torch.full((ORIENTATIONS,), ENERGY_FLOOR**0.5).double(), atol=1e-5)


def test_the_offline_net_is_its_formula():
    """Energy of one place, by hand."""
    net, bank = GaborNet().double(), gabor_bank().double()[:, 0]
    frames = torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    patch = frames[0, :, 2:9, 4:11]  # around (5, 7)
    answers = torch.einsum("fhw,chw->fc", bank, patch)
    energy = (answers[:ORIENTATIONS] ** 2 + answers[ORIENTATIONS:] ** 2 + ENERGY_FLOOR).sqrt()
    assert torch.allclose(net(frames)[0][0, :, 5, 7], energy.flatten(), atol=1e-12)


def test_blur_is_worse_than_a_small_shift():
    net, frames = GaborNet(), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    frames = F.interpolate(frames[..., ::2, ::2], scale_factor=2, mode="bilinear")
    blurred = F.avg_pool2d(frames, 5, stride=1, padding=2, count_include_pad=False)
    shifted = frames.roll(2, -1)
    distance = [float(perceptual_distance(net(frames), net(other), net.layer_weights)) for other in (blurred, shifted)]
    error = [float((frames - other).abs().mean()) for other in (blurred, shifted)]
    assert distance[0] > 1.2 * distance[1]  # measured 1.35
    assert error[0] < 0.8 * error[1]  # which the pixel error has the other way round: 0.58


def test_features_do_not_depend_on_the_other_frames_of_a_batch():
    net = GaborNet()
    frames = torch.rand(3, 3, 16, 16)
    for together, alone in zip(net(frames), net(frames[1:2]), strict=True):
        assert torch.allclose(together[1:2], alone, atol=1e-6)


def maps(seed: int, videos: int = 2, frames: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((4, 6, 5), (5, 3, 4), (2, 2, 2))
    return [torch.randn(videos * frames, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


def test_perceptual_distance_is_its_formula():
    one, other, weights = maps(0), maps(1), (0.5, 2.0, 3.0)
    expected = 0.0
    for weight, a, b in zip(weights, one, other, strict=True):
        values = [abs(x - y) for x, y in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)]
        expected += weight * sum(values) / len(values)
    assert perceptual_distance(one, other, weights).item() == pytest.approx(expected, rel=1e-12)
    assert perceptual_distance(one, one, weights).item() == 0


def test_gram_distance_is_its_formula():
    videos, frames = 2, 3
    one, other, weights = maps(0), maps(1), (0.5, 2.0, 3.0)
    expected = 0.0
    for weight, a, b in zip(weights, one, other, strict=True):
        squares = []
        for video in range(videos):
            rows = slice(video * frames, (video + 1) * frames)
            left, right = (torch.einsum("tchw,tdhw->cd", m[rows], m[rows]) / m[rows][:, 0].numel() for m in (a, b))
            squares.append(((left - right) ** 2).mean())
        expected += weight * sum(squares) / videos
    assert gram_distance(one, other, weights, videos=videos).item() == pytest.approx(float(expected), rel=1e-12)
    assert gram_distance(one, one, weights, videos=videos).item() == 0


def test_gram_forgets_the_place():
    one = maps(0)[0]
    moved = one.roll((1, 2), (2, 3))
    assert torch.allclose(gram(one, 2), gram(moved, 2), atol=1e-12)
    assert gram_distance([one], [moved], (1.0,), videos=2) < 1e-20
    assert perceptual_distance([one], [moved], (1.0,)) > 0.5
