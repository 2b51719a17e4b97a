"""Frames and video: inverse of each other, and crops that depend on a seed alone."""

import torch

from wfm.data.pixels import as_frames, as_video, video_batch


def test_video_crops_depend_on_the_seed_alone():
    frames = torch.arange(9, dtype=torch.uint8).view(1, 9, 1, 1, 1).repeat(1, 1, 2, 2, 3)
    frames[:, :, :, 1] += 100  # right half brighter: a mirror image shows
    transform = video_batch(5)
    seen, mirrored = set(), set()
    for seed in range(0, 4096, 51):
        batch = {"frames": frames, "seeds": torch.tensor([seed])}
        video = transform(batch)["video"]
        assert torch.equal(video, transform(batch)["video"])
        assert video.shape == (1, 3, 5, 2, 2)
        crop = as_frames(video)[0, :, 0, :, 0]
        flipped = bool(crop[0, 0] > crop[0, 1])
        mirrored.add(flipped)
        seen.add(int(crop[0, 1 if flipped else 0]))
    assert seen == {0, 1, 2, 3, 4}
    assert mirrored == {True, False}


def test_frames_and_video_are_inverse():
    frames = torch.randint(0, 256, (2, 3, 4, 4, 3), dtype=torch.uint8)
    video = as_video(frames)
    assert video.shape == (2, 3, 3, 4, 4)
    assert torch.equal(as_frames(video), frames)
    assert float(as_video(torch.tensor([[[[[0, 255, 255]]]]], dtype=torch.uint8)).min()) == -1
