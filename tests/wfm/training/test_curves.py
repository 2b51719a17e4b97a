"""What a curve tells: means since its last point, of images and of videos apart, at whatever intervals these come."""

import json

import pytest
import torch
from torch import nn

from wfm.data.loader import ArrayDataset, Loader
from wfm.data.order import one_shape
from wfm.errors import Cancelled
from wfm.models.loss import Mean, Summed
from wfm.training import loop
from wfm.training.config import TrainingConfig
from wfm.training.joint import JointObjective
from wfm.training.loop import train
from wfm.training.metrics import Curve, read_curve


class Brightness(Summed):
    """The mean of a video is to be 1; images cost 10 more. The loss of each step is noted."""

    def __init__(self):
        self.losses = []

    def counts(self, model, batch, step):
        return {"video": float(len(batch["video"]))}

    def sums(self, model, batch, step):
        video = batch["video"]
        total = ((model(video.mean(dim=(2, 3, 4))) - 1).square() + 10.0 * (video.shape[2] == 1)).sum()
        self.losses.append(float(total.detach()) / len(video))
        return {"video": total}, {"error": Mean(total.detach(), float(len(video)))}


def curve_of(scratch, every, log_every=10, steps=40):
    data = ArrayDataset(tuple("abcdefgh"), {"video": torch.rand(8, 3, 5, 2, 2)})
    torch.manual_seed(0)
    objective = Brightness()
    config = {"steps": steps, "batch_size": 4, "log_every": log_every, "warmup_steps": 0}
    train(
        nn.Linear(3, 1), JointObjective(objective, every=every, per_window=2),
        Loader(data, one_shape(data.sample_ids, 4, 0)), TrainingConfig.parse(config), scratch=scratch,
    )  # fmt: skip
    return read_curve(scratch / "metrics.jsonl"), objective.losses


@pytest.mark.parametrize("every", [2, 3, 4, 5, 8, 10, 20])
def test_image_steps_are_told_of_at_every_interval(tmp_path, every):
    """They were not, where the interval of the curve was a multiple of theirs or theirs of it: they come one step too early."""
    curve, losses = curve_of(tmp_path, every)
    assert [point["step"] for point in curve] == [10, 20, 30, 40]
    for point in curve:
        steps = range(point["step"] - 10, point["step"])
        images = [losses[step] for step in steps if step % every == 0]
        videos = [losses[step] for step in steps if step % every]
        assert ("image_error" in point) == ("loss_image" in point) == bool(images)
        if images:
            assert point["loss_image"] == pytest.approx(sum(images) / len(images), rel=1e-6)
            assert point["image_error"] == pytest.approx(point["loss_image"], rel=1e-6)
        assert point["loss_video"] == pytest.approx(sum(videos) / len(videos), rel=1e-6)
        assert point["loss"] == pytest.approx(sum(losses[step] for step in steps) / 10, rel=1e-6)
        # what was shown before, the loss of one step, is none of these
        assert point["loss"] != pytest.approx(losses[point["step"] - 1], rel=1e-6)


def test_the_interval_that_is_left_at_the_end_is_told_of_too(tmp_path):
    curve, losses = curve_of(tmp_path, 0, log_every=10, steps=13)
    assert [point["step"] for point in curve] == [10, 13]
    assert curve[1]["loss"] == pytest.approx(sum(losses[10:]) / 3, rel=1e-6)


def test_what_an_image_step_makes_is_counted_at_that_step(tmp_path, monkeypatch):
    counted = []
    monkeypatch.setattr(loop, "seen_by", lambda objective, batch, step: counted.append(step))
    curve_of(tmp_path, every=3, steps=7)
    assert counted == list(range(7))


def test_a_run_that_begins_anew_keeps_nothing_of_step_0(tmp_path):
    """A batch that was left out before the first step is written down there."""
    Curve(tmp_path / "curve.jsonl").note(0, "left_out", {})
    assert len(read_curve(tmp_path / "curve.jsonl")) == 1
    Curve(tmp_path / "curve.jsonl", keep_until=-1)
    assert read_curve(tmp_path / "curve.jsonl") == []


def test_a_run_stopped_within_an_interval_writes_the_same_bytes(tmp_path):
    """The sums of a checkpoint are by name, and a point's numbers once were in the order in which they came: other bytes."""

    def run(scratch, stop_at):
        data = ArrayDataset(tuple("abcdefgh"), {"video": torch.rand(8, 3, 5, 2, 2, generator=torch.manual_seed(1))})
        torch.manual_seed(0)
        objective = JointObjective(Brightness(), every=3, per_window=2)
        config = TrainingConfig.parse({"steps": 20, "batch_size": 4, "log_every": 10, "warmup_steps": 0})
        asked = iter(range(1000))
        train(
            nn.Linear(3, 1), objective, Loader(data, one_shape(data.sample_ids, 4, 0)), config, scratch=scratch,
            stopping=lambda: next(asked) == stop_at,
        )  # fmt: skip
        return (scratch / "metrics.jsonl").read_bytes()

    with pytest.raises(Cancelled):
        run(tmp_path / "parts", 14)
    whole = run(tmp_path / "whole", -1)
    assert run(tmp_path / "parts", -1) == whole
    names = list(json.loads(whole.splitlines()[0]))
    assert names[4:] == sorted(names[4:])
    assert names[4:] != ["video_error", "loss_video", "image_error", "loss_image"]  # as they come
