"""Image batches: when they come, what is in them, and that nothing but the step decides."""

import pytest
import torch

from wfm.errors import ConfigError
from wfm.families.tokenizer.card import TokenizerTrainingConfig
from wfm.models.loss import Mean, Summed
from wfm.training.joint import JointObjective, single_frames


class Seen(Summed):
    """Notes the shape of what it is given."""

    def __init__(self):
        self.shapes = []

    def counts(self, model, batch, step):
        return {"video": float(len(batch["video"]))}

    def sums(self, model, batch, step):
        self.shapes.append(tuple(batch["video"].shape))
        return {"video": batch["video"].sum()}, {"psnr": Mean(1.0, 1.0)}


def batch(videos: int = 3, frames: int = 5) -> dict[str, torch.Tensor]:
    """Frame t of video b holds 10 b + t throughout."""
    values = 10 * torch.arange(videos)[:, None] + torch.arange(frames)
    video = values[:, None, :, None, None].expand(videos, 3, frames, 4, 4).float()
    return {"video": video, "seeds": torch.arange(videos) * 7_000_000_001 + 5}


@pytest.mark.parametrize(("every", "images"), [(0, 0), (2, 10), (3, 7), (5, 4)])
def test_images_come_at_the_preset_frequency(every, images):
    seen = Seen()
    joint = JointObjective(seen, every=every, per_window=2)
    named = [set(joint.loss(None, batch(), step)[1]) for step in range(20)]
    assert seen.shapes.count((6, 3, 1, 4, 4)) == images
    assert seen.shapes.count((3, 3, 5, 4, 4)) == 20 - images
    assert [names == {"image_psnr"} for names in named] == [bool(every) and step % every == 0 for step in range(20)]


def test_a_step_is_the_same_whatever_came_before():
    early, late = JointObjective(Seen(), every=3, per_window=2), JointObjective(Seen(), every=3, per_window=2)
    for step in range(7):
        early.loss(None, batch(), step)
    assert torch.equal(early.loss(None, batch(), 9)[0], late.loss(None, batch(), 9)[0])


def test_each_frame_of_an_image_step_counts():
    joint = JointObjective(Seen(), every=3, per_window=2)
    assert [joint.counts(None, batch(), step) for step in (0, 1, 3)] == [{"video": 6.0}, {"video": 3.0}, {"video": 6.0}]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_single_frames_are_frames_of_their_video(count):
    given = batch()
    frames = single_frames(given["video"], given["seeds"], count)
    assert frames.shape == (3 * count, 3, 1, 4, 4)
    values = frames[:, 0, 0, 0, 0].reshape(3, count)
    assert torch.equal(values // 10, torch.arange(3.0)[:, None].expand(3, count))
    assert all(len(set(row.tolist())) == count for row in values)  # no frame twice
    assert torch.equal(frames, single_frames(given["video"], given["seeds"], count))


def test_every_frame_has_its_turn():
    video = batch(1)["video"]
    seeds = torch.randint(0, 2**62, (300,), generator=torch.Generator().manual_seed(0))
    found = {float(single_frames(video, seed[None], 1).mean()) for seed in seeds}
    assert found == {0.0, 1.0, 2.0, 3.0, 4.0}


@pytest.mark.parametrize("values", [{"image_every": 1}, {"image_every": -2}, {"image_every": 2, "images_per_window": 0},
                                    {"image_every": 2, "images_per_window": 18}])  # fmt: skip
def test_what_does_not_fit_is_refused(values):
    with pytest.raises(ConfigError, match="image"):
        TokenizerTrainingConfig.parse(values)


class Playing(Seen):
    """Notes whose turn the penalty was."""

    def rival_loss(self, step, *, penalty_step=None):
        turn = step if penalty_step is None else penalty_step
        return torch.zeros(()), {"r1": float(turn % 4 == 0)}


@pytest.mark.parametrize("every", [0, 2, 3, 4, 8])
def test_the_penalty_is_taken_on_videos_as_often_as_asked(every):
    joint = JointObjective(Playing(), every=every, per_window=2, penalty_every=4)
    named = [joint.rival_loss(step)[1] for step in range(48)]
    images = [bool(every) and step % every == 0 for step in range(48)]
    assert [set(values) for values in named] == [{"image_r1"} if image else {"r1"} for image in images]
    assert not any(values.get("image_r1") for values in named)
    assert sum(values.get("r1", 0) for values in named) == 12
