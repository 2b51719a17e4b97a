"""Worlds whose right answer is known: a picture that slides by whole pixels, with a red and a green disc on it."""

from collections.abc import Callable

import numpy as np
import pytest

from wfm.actions import ActionSpec
from wfm.evaluation.generated import GeneratedVideos

SIZE, PAST, FRAMES = 48, 5, 13
SPEC = ActionSpec(
    names=("camera_orbit_rate", "actor_velocity_x"),
    units=("deg/s", "m/s"),
    frame="world",
    rate_hz=24.0,
    mean=(0.0, 0.0),
    scale=(30.0, 1.0),
)
DEGREES_PER_PX = 20.0
"""Camera rate [deg/s] of a picture that slides one pixel a frame."""


def canvas(rng: np.random.Generator) -> np.ndarray:
    """A smooth grey texture [SIZE, 4 * SIZE, 3], float, that optical flow can follow."""
    import cv2

    noise = rng.uniform(0, 255, (SIZE // 4 + 1, SIZE + 1)).astype(np.float32)
    grey = cv2.resize(noise, (4 * SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return np.repeat(np.clip(grey, 20, 235)[..., None], 3, axis=2)


def with_disc(frame: np.ndarray, centre: tuple[float, float], radius: float, rgb: tuple[int, int, int]) -> np.ndarray:
    """A copy with a filled disc; `centre` (x, y) in px."""
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]]
    out = frame.copy()
    out[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2] = rgb
    return out


def slide(rng: np.random.Generator, px_per_frame: int, frames: int = FRAMES) -> np.ndarray:
    """A window uint8 [frames, SIZE, SIZE, 3] that slides sideways by whole pixels."""
    wide = canvas(rng)
    start = 2 * SIZE if px_per_frame < 0 else SIZE // 2
    return np.stack([wide[:, start + t * px_per_frame :][:, :SIZE] for t in range(frames)]).astype(np.uint8)


def blurred(video: np.ndarray, sigma: float) -> np.ndarray:
    import cv2

    flat = video.reshape(-1, *video.shape[-3:])
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in flat]).reshape(video.shape)


@pytest.fixture(scope="session")
def make() -> Callable[..., GeneratedVideos]:
    return make_generated


def make_generated(
    windows: int = 12,
    *,
    sigma: float = 1.0,
    sessions: int = 4,
    seed: int = 0,
    family: str = "diffusion",
    **changes: object,
) -> GeneratedVideos:
    """Windows that slide at 0, 1, 2 px a frame in turn; the model's video is the truth, predicted frames blurred by `sigma`."""
    rng = np.random.default_rng(seed)
    speeds = [index % 3 * (1 if index % 2 else -1) for index in range(windows)]
    truth = np.stack([slide(rng, speed) for speed in speeds])
    model = truth.copy()
    if sigma > 0:
        model[:, PAST:] = blurred(truth[:, PAST:], sigma)
    shuffled = truth.copy()
    shuffled[:, PAST:] = np.roll(model[:, PAST:], 3, axis=3)
    actions = np.zeros((windows, FRAMES, 2), dtype=np.float32)
    actions[..., 0] = np.array(speeds)[:, None] * DEGREES_PER_PX
    head = "sampled" if family == "diffusion" else "greedy"
    values: dict = {
        "family": family,
        "split": "val",
        "past_frames": PAST,
        "fps": 24.0,
        "samples": [
            {
                "sample_id": f"s{index}",
                "clip_id": f"c{index}",
                "session_id": f"session_{index % sessions}",
                "source": f"/videos/{index}.mp4",
                "start_seconds": 0.0,
                "fps": 24.0,
                "moving": speeds[index] != 0,
            }
            for index in range(windows)
        ],
        "videos": {
            "truth": truth,
            "tokenizer": blurred(truth, 0.6),
            head: model,
            "mean" if family == "diffusion" else "sampled": model,
            "shuffled_action": shuffled,
        },
        "actions": actions,
        "shuffled_actions": np.roll(actions, 1, axis=0),
        "spec": SPEC,
        "headline": head,
        "title": family.capitalize(),
        "labels": {"mean": "one-step mean", "sampled": "sampled", "greedy": "greedy"},
    }
    return GeneratedVideos(**{**values, **changes})
