"""A run with a second player: resumed with the same bits, each player learns its own, curves show both."""

import math
from dataclasses import replace

import pytest
import torch

from wfm.artifacts.checkpoint_record import RECORD, list_files, read_folder
from wfm.data.loader import ArrayDataset, Loader
from wfm.data.order import one_shape
from wfm.data.pixels import video_batch
from wfm.errors import Cancelled
from wfm.families.tokenizer.card import TokenizerTrainingConfig
from wfm.families.tokenizer.fit import rival_of
from wfm.models.folder import load_tensors, save_tensors
from wfm.models.tokenizer import Tokenizer, TokenizerConfig, TokenizerObjective
from wfm.training.divergence import TrainingDiverged
from wfm.training.joint import JointObjective
from wfm.training.loop import train
from wfm.training.metrics import read_curve

SETTINGS = {
    "model": {
        "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 3, "channels": [8, 8], "mid_blocks": 0,
        "encoder_blocks": 1, "decoder_blocks": 1, "mid_attention": False, "linear_code": True,
    },
    "loss": {
        "error": "l1",
        "perceptual": {"before": 0.1, "after": 0.073, "start": 6},
        "gram": {"after": 0.062, "start": 6},
        "flow": {"after": 0.01, "start": 4},
        "adversarial": {
            "weight": {"after": 0.1, "start": 5}, "lead_steps": 2, "adaptive": True, "r1": 0.1, "r1_every": 4,
            "channels": 8, "levels": 2, "learning_rate": 1e-3,
        },
    },
    "training": {
        "steps": 14, "batch_size": 2, "learning_rate": 2e-3, "warmup_steps": 2, "log_every": 1, "checkpoint_every": 4,
    },
    "size": [16, 16], "num_frames": 9, "crop_frames": 5, "image_every": 3, "images_per_window": 2,
}  # fmt: skip


def settings(**training) -> TokenizerTrainingConfig:
    return TokenizerTrainingConfig.parse({**SETTINGS, "training": {**SETTINGS["training"], **training}})


def loader(config: TokenizerTrainingConfig) -> Loader:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randint(0, 256, (7, 9, 8, 8, 3), dtype=torch.uint8, generator=generator)
    data = ArrayDataset(
        tuple(f"s{i}" for i in range(7)), {"frames": coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)}
    )
    plan = one_shape(data.sample_ids, config.training.batch_size, config.training.seed)
    return Loader(data, plan, transform=video_batch(config.crop_frames))


def run(scratch, config, *, stop_at=None, die_at=None):
    torch.manual_seed(config.training.seed)
    model = Tokenizer(TokenizerConfig.parse(config.model.resolved()))
    objective = TokenizerObjective(config.loss)
    calls = iter(range(10**6))

    class Mortal(JointObjective):
        def sums(self, model, batch, step):
            if step == die_at:
                raise KeyboardInterrupt
            return super().sums(model, batch, step)

    result = train(
        model,
        Mortal(objective, every=config.image_every, per_window=config.images_per_window),
        loader(config),
        config.training,
        scratch=scratch,
        stopping=(lambda: next(calls) == stop_at) if stop_at is not None else (lambda: False),
        rival=rival_of(objective, config),
    )
    return model, objective.discriminator, result


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("whole")
    return *run(scratch, settings())[:2], (scratch / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("stops", [[1], [4, 3], [6, 1, 6]])
def test_stopped_and_resumed_it_ends_with_the_same_bits(tmp_path, whole, stops):
    for stop in stops:
        with pytest.raises(Cancelled):
            run(tmp_path, settings(), stop_at=stop)
    model, discriminator, result = run(tmp_path, settings())
    assert result.resumed_from == sum(stops)
    assert same(model, whole[0])
    assert same(discriminator, whole[1])
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole[2]


@pytest.mark.parametrize("die_at", [3, 11])
def test_killed_it_goes_back_and_ends_with_the_same_bits(tmp_path, whole, die_at):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, settings(), die_at=die_at)
    model, discriminator, result = run(tmp_path, settings())
    assert result.resumed_from == die_at // 4 * 4
    assert same(model, whole[0])
    assert same(discriminator, whole[1])
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole[2]


def test_a_checkpoint_without_the_discriminators_moments_would_end_elsewhere(tmp_path, whole):
    """The comparison above can fail: the second player's optimiser matters."""
    with pytest.raises(Cancelled):
        run(tmp_path, settings(), stop_at=8)
    folder = tmp_path / "checkpoint-00000008"
    moments = load_tensors(folder / "rival_optimizer.safetensors")
    assert any(name.endswith("exp_avg_sq") for name in moments)
    forgotten = {name: t if name.endswith("step") else torch.zeros_like(t) for name, t in moments.items()}
    save_tensors(forgotten, folder / "rival_optimizer.safetensors")
    remade = replace(read_folder(folder), files=list_files(folder))
    (folder / RECORD).write_bytes(remade.to_bytes())
    assert not same(run(tmp_path, settings())[1], whole[1])


def test_curves_show_every_term_and_the_discriminators_accuracy(tmp_path):
    run(tmp_path, settings())
    points = {int(point["step"]) - 1: point for point in read_curve(tmp_path / "metrics.jsonl")}
    assert len(points) == 14
    learning = {step for step, point in points.items() if "discriminator_accuracy" in point}
    assert learning == set(range(3, 14))  # two steps ahead of the verdict's start
    assert {s for s, p in points.items() if "discriminator_r1" in p} == {4, 8, 12}
    videos = {s: p for s, p in points.items() if s % 3}
    assert set(points) - set(videos) == {s for s, p in points.items() if "image_psnr" in p}
    assert {s for s in videos if "adversarial" in points[s]} == {s for s in videos if s >= 5}
    assert {s for s in videos if "gram" in points[s]} == {s for s in videos if s >= 6}
    assert {s for s in videos if "flow" in points[s]} == {s for s in videos if s >= 4}
    assert all(0 <= points[s]["discriminator_accuracy"] <= 1 for s in learning)


def test_each_player_has_its_own_rate(tmp_path, whole):
    changed = {**SETTINGS["loss"]["adversarial"], "learning_rate": 1e-2}
    config = TokenizerTrainingConfig.parse({**SETTINGS, "loss": {**SETTINGS["loss"], "adversarial": changed}})
    _, discriminator, _ = run(tmp_path, config)
    assert not same(discriminator, whole[1])
    rival = rival_of(TokenizerObjective(config.loss), config)
    assert (rival.config.learning_rate, rival.config.betas, rival.config.optimizer) == (1e-2, (0.5, 0.999), "adamw")


def test_another_discriminator_does_not_take_the_checkpoint(tmp_path):
    run(tmp_path, settings(steps=4))
    wider = {**SETTINGS["loss"], "adversarial": {**SETTINGS["loss"]["adversarial"], "channels": 16}}
    config = TokenizerTrainingConfig.parse({**settings(steps=4).resolved(), "loss": wider})
    assert run(tmp_path, config)[2].resumed_from == 0


def test_without_a_discriminator_there_is_no_rival():
    config = TokenizerTrainingConfig()
    assert rival_of(TokenizerObjective(config.loss), config) is None


def test_a_discriminator_that_is_not_finite_fails_loudly(tmp_path, monkeypatch):
    original = TokenizerObjective.rival_loss

    def broken(self, step):
        given = original(self, step)
        return given if given is None or step < 7 else (given[0] * math.inf, given[1])

    monkeypatch.setattr(TokenizerObjective, "rival_loss", broken)
    with pytest.raises(TrainingDiverged, match=r"second player.*step 7"):
        run(tmp_path, settings())
