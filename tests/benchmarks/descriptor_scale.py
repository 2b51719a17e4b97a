"""The constants of `wfm/evaluation/descriptor_scale.py`, measured anew.

    python -m tests.benchmarks.descriptor_scale

Mean and deviation of each channel of the clip descriptor over `SCENES` generated scenes (textures and discs under a moving
camera, 8 frames of 64 x 64) and the places of the raster. A change of the descriptor needs new ones, and a new name of the net.
"""

import numpy as np

from wfm.evaluation.descriptor_scale import rounded
from wfm.evaluation.features import GRID, GaborPyramid, clip_descriptor, frames_to_tensor
from wfm.simulation.ground_truth import scene

SCENES = 64


def measured() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, deviation) of each channel, rounded as they are stored."""
    net = GaborPyramid()
    scenes = (scene(seed, 8, size=(64, 64)) for seed in range(SCENES))
    found = [clip_descriptor(net(frames_to_tensor(frames)), 1).double().numpy() for frames in scenes]
    channels = np.concatenate(found).reshape(SCENES, -1, GRID * GRID)
    return rounded(channels.mean((0, 2))), rounded(channels.std((0, 2)))


if __name__ == "__main__":
    for name, values in zip(("MEAN", "DEVIATION"), measured(), strict=True):
        print(f"{name} = {values}")
