"""A family of another package, a linear predictor: drawn from, rolled out, judged and named by what all families share."""

import dataclasses
import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wfm import registry
from wfm.actions import ActionSpec
from wfm.artifacts import Store
from wfm.config import Config
from wfm.errors import ConfigError
from wfm.evaluation.config import EvaluationConfig
from wfm.evaluation.generated import SHUFFLED, read_generated
from wfm.evaluation.page.cast import Cast
from wfm.evaluation.report import evaluate
from wfm.generation.from_artifacts import card_values
from wfm.generation.held_out import HeldOut, write_part
from wfm.generation.watching import watched
from wfm.generation.world_model import WorldCard, WorldModel
from wfm.models.family import FAMILIES, Ask, Drawing, Family, Variant
from wfm.models.folder import ModelCard


class LineConfig(Config):
    FAMILY: ClassVar[str] = "line"
    channels: int = 3


class Line(nn.Module):
    """The next latent frame: the last one, and a share of how the last two differ."""

    def __init__(self, config: LineConfig) -> None:
        super().__init__()
        self.config = config
        self.share = nn.Parameter(torch.full((config.channels, 1, 1), 0.5))

    def forward(self, past: Tensor) -> Tensor:
        """``[B, C, p, h, w]`` -> ``[B, C, h, w]``."""
        return past[:, :, -1] + self.share * (past[:, :, -1] - past[:, :, -2])


class LineDrawing(Drawing):
    def draw(self, model: Line, ask: Ask) -> Tensor:
        known = ask.past
        while known.shape[2] < ask.frames:
            known = torch.cat([known, model(known)[:, :, None]], dim=2)
        return known


class LineFamily(Family):
    name = "line"
    makes = "world_model"
    takes = "continuous"
    title = "Straight line"
    config = LineConfig
    network = f"{__name__}:Line"
    fit = ""
    draw = f"{__name__}:DRAWING"
    variants: ClassVar = {"ahead": Variant("line", "straight ahead")}
    headline = "ahead"
    modes = ("line",)


FAMILY, DRAWING = LineFamily(), LineDrawing()


@pytest.fixture
def world(world_of, monkeypatch: pytest.MonkeyPatch) -> WorldModel:
    """A world of the family, which an entry point registers."""
    monkeypatch.setattr(registry, "_plug_ins", lambda group: {"line": (f"{__name__}:FAMILY",)})
    known = world_of("diffusion", ActionSpec.null())
    values = {name: value for name, value in known.card.resolved().items() if name != "sampling"}
    card = WorldCard.parse({**values, "family": "line", "name": "line", "sampling": {"batch_size": 3}})
    return WorldModel(known.tokenizer, Line(LineConfig()), ModelCard("line", LineConfig(), ActionSpec.null()), card)


def test_a_long_future_is_rolled_out_and_watched(world, past) -> None:
    with watched(world, 21, "line"):
        video = world.generate(past, num_frames=21, seeds=[0, 1, 2, 3])
    assert video.shape == (4, 3, 21, 16, 16)
    assert torch.equal(video[:, :, :5], past)
    first = world.tokenizer.decode(FAMILIES.load("line").drawing().draw(world.model, ask(world, past[:3])))
    assert torch.equal(video[:3, :, 5:13], first[:, :, 5:].clamp(-1, 1))
    with pytest.raises(ConfigError, match="the line family can do line"):
        world.generate(past, seeds=[0, 1, 2, 3], mode="greedy")
    with pytest.raises(ConfigError, match="the line family has none"):
        world.generate(past, seeds=[0, 1, 2, 3], negative_text="fog")


def ask(world: WorldModel, past: Tensor) -> Ask:
    with torch.no_grad():
        return Ask(4, [0, 1, 2], "line", world.card.sampling, {"past": world.tokenizer.encode(past)})


def test_its_windows_are_judged_and_called_by_its_own_names(world, tmp_path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {
            "sample_id": f"clip{i}:0", "clip_id": f"clip{i}", "session_id": f"session{i}", "source": "film.mp4", "caption": "",
            "start_seconds": 0.0, "fps": 24.0, "moving": True,
        }
        for i in range(4)
    ]  # fmt: skip
    frames = rng.integers(0, 256, (4, 13, 16, 16, 3), dtype=np.uint8)
    held = HeldOut("test", rows, frames, np.zeros((4, 13, 0), np.float32), None, {})
    attempt = Store.open(str(tmp_path / "store")).attempt("d" * 64)
    assert write_part(world, held, attempt.path, seed=0) == {"windows": 4, "videos": 4}
    (attempt.path / "card.json").write_text(json.dumps(card_values(world, seed=0)))
    made = read_generated(attempt.commit(stage="generate_videos", kind="generated"), "test")
    assert made.variants == ["ahead"]
    assert SHUFFLED not in made.videos
    metrics, _ = evaluate(made, None, EvaluationConfig(split="test", resamples=20))
    assert (metrics.family, metrics.headline_variant) == ("line", "ahead")
    cast = Cast([metrics])
    assert cast.name("line", "ahead") == "Straight line, straight ahead"
    assert cast.name("line", "tokenizer") == "Straight line ceiling"
    assert (cast.role("line", "ahead"), cast.role("line", "tokenizer")) == ("model_0", "ceiling_0")
    two = Cast([metrics.model_copy(update={"family": "other"}), metrics])
    assert two.role("line", "ahead") == "model_1", "colours go by the place on the page, never by a name"
    assert dataclasses.replace(made, headline="none").variants == ["ahead"]
