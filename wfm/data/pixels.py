"""Pixels as files have them and as networks want them: uint8 frames <-> float video, and crops of them."""

from collections.abc import Callable

import torch
from torch import Tensor


def video_batch(num_frames: int) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """A transform for uint8 `frames` `[B, T, H, W, 3]`: a crop of `num_frames` at a place given by the seed,
    mirrored for half of the seeds, as float `video` `[B, 3, num_frames, H, W]` in [-1, 1]."""

    def transform(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        videos = []
        for frames, seed in zip(batch["frames"], batch["seeds"].tolist(), strict=True):
            start = (seed >> 8) % (frames.shape[0] - num_frames + 1)
            crop = frames[start : start + num_frames]
            videos.append(crop.flip(2) if seed & 1 else crop)
        return {"video": as_video(torch.stack(videos)), "seeds": batch["seeds"]}

    return transform


def as_video(frames: Tensor) -> Tensor:
    """uint8 `[B, T, H, W, 3]` -> float `[B, 3, T, H, W]` in [-1, 1]."""
    return frames.permute(0, 4, 1, 2, 3).to(torch.float32) / 127.5 - 1.0


def as_frames(video: Tensor) -> Tensor:
    """The inverse of `as_video`, clamped and rounded: uint8 `[B, T, H, W, 3]`."""
    return ((video.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 4, 1)
