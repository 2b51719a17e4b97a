"""Distances between the features of two videos: perceptual (the features) and Gram (how they occur together).

    net = feature_net("vgg16", Path("vgg16.safetensors"))      # or feature_net("offline-gabor")
    maps = net(frames)                                         # [N, C, H, W] in [-1, 1] -> five maps, fine to coarse

As in Cosmos's training code: VGG16 after the last ReLU of each of its five stages, without trained layer heads, absolute
difference. That is NOT LPIPS. The paper says VGG19 and not which layers; here the second ReLU of each stage, for which
the layer weights were made (Chen and Koltun 2017). Either needs a file with published weights; "offline-gabor" needs
none. It is a fixed bank of oriented filters, and no value of it can be compared with one of a trained net.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfm.errors import ConfigError, DataError
from wfm.models.tokenizer.loss_config import LAYERS, FeatureNetName
from wfm.parallel.attention import without_autocast

COSMOS_LAYER_WEIGHTS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)

_STAGE_CHANNELS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_TAPPED = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 2, 2, 2)}
"""Convolutions of each stage after whose ReLU the features are read."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What torchvision's nets expect pictures in [0, 1] to be normalised by."""

KERNEL = 7
ORIENTATIONS = 4
WAVELENGTH = 4.0
GAIN = 16.0
"""Makes the energy of an ordinary picture about 1."""
ENERGY_FLOOR = 1e-2
"""Keeps the root's slope finite where a picture is flat."""


class Vgg(nn.Module):
    """The convolutions of VGG16 or VGG19 up to the last layer that is read, under torchvision's names
    (`features.<n>.weight`). Weights are not learned. Built on the meta device: `load_vgg` brings the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: FeatureNetName) -> None:
        super().__init__()
        self.name = name
        self.layer_weights: tuple[float, ...] = COSMOS_LAYER_WEIGHTS
        layers: list[nn.Module] = []
        self.taps: list[int] = []
        width = 3
        for channels, count, tapped in zip(_STAGE_CHANNELS, _CONVOLUTIONS[name], _TAPPED[name], strict=True):
            for number in range(1, count + 1):
                layers += [nn.Conv2d(width, channels, 3, padding=1, device="meta"), nn.ReLU()]
                width = channels
                if number == tapped:
                    self.taps.append(len(layers) - 1)
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[: self.taps[-1] + 1])
        # frames are in [-1, 1]
        self.register_buffer("mean", 2 * torch.tensor(_MEAN).view(3, 1, 1) - 1, persistent=False)
        self.register_buffer("std", 2 * torch.tensor(_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Frames `[N, 3, H, W]` in [-1, 1], sides at least 16 -> five maps `[N, C, H / 2^i, W / 2^i]`."""
        if frames.shape[1] != 3 or min(frames.shape[-2:]) < 16:
            raise ConfigError(
                f"loss.feature_net {self.name!r} sees 3 channels of at least 16x16 px, not {list(frames.shape[1:])}; "
                "use 'offline-gabor' for others"
            )
        x = (frames - self.mean) / self.std
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                maps.append(x)
        return maps


def load_vgg(name: FeatureNetName, path: Path) -> Vgg:
    """VGG with the weights of a safetensors file in torchvision's layout; its classifier and layers past the last one
    read are allowed and left alone. Raises DataError for any other key, a missing one or a wrong shape."""
    from safetensors import SafetensorError, safe_open

    net = Vgg(name)
    wanted = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    try:
        with safe_open(str(path), framework="pt") as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - not a dict
            problems = [f"missing {key}" for key in sorted(set(wanted) - set(found))]
            problems += [f"unexpected {key}" for key in sorted(set(found) - set(wanted) - _left_alone(name))]
            problems += [
                f"{key} is {list(found[key])}, wanted {list(wanted[key])}"
                for key in sorted(set(wanted) & set(found))
                if found[key] != wanted[key]
            ]
            if problems:
                raise DataError(f"{path}: not torchvision's {name}: {'; '.join(problems[:4])}")
            tensors = {key: file.get_tensor(key).float() for key in wanted}
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"loss.feature_file {str(path)!r} is not a readable safetensors file ({error}); save torchvision's {name} "
            "state dict with safetensors"
        ) from None
    net.load_state_dict(tensors, strict=True, assign=True)
    return net.requires_grad_(False).eval()


def _left_alone(name: FeatureNetName) -> set[str]:
    """Keys of torchvision's net that are not read here."""
    heads = {f"classifier.{number}.{kind}" for number in (0, 3, 6) for kind in ("weight", "bias")}
    later = {f"features.{number}.{kind}" for number in (32, 34) for kind in ("weight", "bias")}
    return heads | later if name == "vgg19" else heads


class GaborNet(nn.Module):
    """A fixed feature net without weights from outside: local energy, that is the length of an even and an odd filter's
    answers, of every channel in four orientations at five scales, each a factor 2 coarser. Blur lowers it, a small shift
    does not change it. Any number of channels."""

    bank: Tensor
    blur: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.name: FeatureNetName = "offline-gabor"
        self.layer_weights: tuple[float, ...] = (1.0,) * LAYERS
        self.register_buffer("bank", gabor_bank(), persistent=False)
        row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        self.register_buffer("blur", torch.outer(row, row)[None, None], persistent=False)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Frames `[N, C, H, W]` in [-1, 1] -> five maps `[N, 4 C, ceil(H / 2^i), ceil(W / 2^i)]`, orientation
        by orientation."""
        channels = frames.shape[1]
        # One dense convolution, though most of its weights are 0: several times faster on a CPU than one a channel.
        dense = torch.einsum("cd,fhw->fcdhw", torch.eye(channels).to(self.bank), self.bank[:, 0]).flatten(0, 1)
        x, maps = frames, []
        for scale in range(LAYERS):
            if scale:
                padded = F.pad(x, [2] * 4, mode="replicate")
                x = F.conv2d(padded, self.blur.expand(channels, 1, 5, 5), stride=2, groups=channels)
            even, odd = F.conv2d(F.pad(x, [KERNEL // 2] * 4, mode="replicate"), dense).chunk(2, dim=1)  # [N, 4 C, h, w]
            maps.append((even.square() + odd.square() + ENERGY_FLOOR).sqrt())
        return maps


def gabor_bank() -> Tensor:
    """Filters `[2 ORIENTATIONS, 1, KERNEL, KERNEL]`, the even ones first: no answer to a flat picture, absolute sum GAIN."""
    half = KERNEL // 2
    y, x = torch.meshgrid(torch.arange(-half, half + 1.0), torch.arange(-half, half + 1.0), indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * (KERNEL / 4) ** 2))
    filters = []
    for wave in (torch.cos, torch.sin):
        for index in range(ORIENTATIONS):
            angle = math.pi * index / ORIENTATIONS
            answer = wave(2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / WAVELENGTH)
            kernel = envelope * (answer - (envelope * answer).sum() / envelope.sum())
            filters.append(GAIN * kernel / kernel.abs().sum())
    return torch.stack(filters)[:, None]


FeatureNet = Vgg | GaborNet


def feature_net(name: FeatureNetName, path: Path | None = None) -> FeatureNet:
    """The net of that name. Raises ConfigError when it needs a file and none is given."""
    if name == "offline-gabor":
        return GaborNet()
    if path is None:
        raise ConfigError(
            f"loss.feature_net {name!r} needs loss.feature_file, torchvision's weights as safetensors; without one use "
            "'offline-gabor'"
        )
    return load_vgg(name, path)


def perceptual_distance(ours: Sequence[Tensor], theirs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted sum over layers of the mean absolute difference of two nets' maps `[N, C, h, w]`."""
    terms = [w * (a - b).abs().mean() for w, a, b in zip(weights, ours, theirs, strict=True)]
    return torch.stack(terms).sum()


def gram_distance(ours: Sequence[Tensor], theirs: Sequence[Tensor], weights: Sequence[float], *, videos: int) -> Tensor:
    """Weighted sum over layers of the mean squared difference of Gram matrices, each over all places and frames of a video.

    Maps are `[videos * T, C, h, w]`, the frames of a video one after the other.
    """
    terms = [
        w * (gram(a, videos) - gram(b, videos)).square().mean() for w, a, b in zip(weights, ours, theirs, strict=True)
    ]
    return torch.stack(terms).sum()


def gram(maps: Tensor, videos: int) -> Tensor:
    """Mean product of any two channels over the places and frames of each video: `[videos * T, C, h, w]` -> `[videos, C,
    C]`, fp32 or better: the sum over all places is beyond fp16."""
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    rows = maps.unflatten(0, (videos, -1)).transpose(1, 2).flatten(2)  # [B, C, T h w]
    with without_autocast(rows):
        return rows @ rows.mT / rows.shape[-1]
