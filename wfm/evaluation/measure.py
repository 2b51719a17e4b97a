"""Every nearness metric on every set of videos, a window at a time: memory follows the window, and it fits the cache."""

from dataclasses import dataclass

import numpy as np
import torch

from wfm.evaluation.descriptor_scale import standardise
from wfm.evaluation.features import GaborPyramid, clip_descriptor, frames_to_tensor
from wfm.evaluation.perceptual import perceptual_distance
from wfm.evaluation.psnr import psnr_per_frame
from wfm.evaluation.ssim import ssim_per_frame


@dataclass(frozen=True)
class Nearness:
    """One set of videos against the truth, predicted frames only: [N, T] each, and a standardised descriptor a clip [N, D]."""

    psnr_db: np.ndarray
    ssim: np.ndarray
    perceptual_distance: np.ndarray
    descriptor: np.ndarray


def measure(
    videos: dict[str, np.ndarray], truth: np.ndarray, *, batch: int = 1
) -> tuple[dict[str, Nearness], np.ndarray]:
    """Measure each of `videos` (uint8 [N, T, H, W, 3]) against `truth`; also the standardised descriptors of the truth [N,
    D]."""
    net = GaborPyramid()
    distances: dict[str, list[np.ndarray]] = {name: [] for name in videos}
    descriptors: dict[str, list[np.ndarray]] = {name: [] for name in videos}
    real: list[np.ndarray] = []
    frames = truth.shape[1]
    for start in range(0, len(truth), batch):
        rows = slice(start, start + batch)
        true_maps = net(frames_to_tensor(truth[rows]))
        clips = len(truth[rows])
        real.append(clip_descriptor(true_maps, clips).numpy())
        for name, video in videos.items():
            maps: list[torch.Tensor] = net(frames_to_tensor(video[rows]))
            distances[name].append(perceptual_distance(maps, true_maps).double().numpy().reshape(clips, frames))
            descriptors[name].append(clip_descriptor(maps, clips).numpy())
    found = {
        name: Nearness(
            psnr_db=psnr_per_frame(video, truth),
            ssim=ssim_per_frame(video, truth),
            perceptual_distance=np.concatenate(distances[name]),
            descriptor=standardise(np.concatenate(descriptors[name])),
        )
        for name, video in videos.items()
    }
    return found, standardise(np.concatenate(real))
