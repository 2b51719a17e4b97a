"""A condition of one file and no name anywhere else: it makes its signal of frames, trains, samples, and is followed."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch

from tests.wfm.training.in_memory import with_conditions
from wfm import registry
from wfm.actions import ActionSpec
from wfm.conditions.condition import Condition, View, parse
from wfm.conditions.tracks import with_tracks
from wfm.data.loader import ArrayDataset, Loader
from wfm.data.order import one_shape
from wfm.data.shards import Sample
from wfm.data.signals import Track
from wfm.data.windows import clip_signals
from wfm.errors import ConfigError, InputError
from wfm.families.autoregressive.card import DecodingConfig
from wfm.families.autoregressive.draw import future_tokens
from wfm.families.diffusion.draw import future_latents
from wfm.generation.reading import ConditionReading
from wfm.generation.rollout import Given
from wfm.generation.sampler_config import SamplerConfig
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.folder import load_model, save_model
from wfm.models.presence import tensors_of
from wfm.models.slots import Geometry, Slot
from wfm.models.tokenizer import TokenizerConfig
from wfm.training.config import WorldTrainingConfig
from wfm.training.encoded import Encoded
from wfm.training.fit_world_model import build
from wfm.training.loop import train


class Brightness(Condition):
    """Mean brightness of the first frame, -1 to 1."""

    name: ClassVar[str] = "brightness"
    slot: ClassVar[Slot] = "vector"
    gamma: float = 1.0

    def track(self, frames: np.ndarray, fps: float) -> Track:
        return Track(frames.mean(axis=(1, 2, 3))[:, None].astype(np.float32) / 127.5 - 1, {"unit": "1"})

    def read(self, view: View) -> dict[str, np.ndarray]:
        return {self.name: view.signals[self.name][:, 0] ** self.gamma}

    def width(self, geometry: Geometry) -> int:
        return 1


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {"wfm.conditions": {"brightness": (f"{__name__}:Brightness",)}}
    monkeypatch.setattr(registry, "_plug_ins", lambda group: points.get(group, {}))


COUNT = 64
SIGNAL = (np.arange(COUNT) % 2 * 2 - 1).astype(np.float32)  # dark, bright, dark ...
TRAINING = {"batch_size": 16, "learning_rate": 4e-3, "warmup_steps": 5, "ema_share": 0.0}
FAMILIES = {
    "diffusion": {
        "diffusion": {
            "network": {
                "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "adaln_lora_dim": 4,
                "condition_mask": True, "max_size": [4, 8, 8], "zero_output": True, "concat_padding_mask": False,
            },
            "repeat_last": False, "linear_prior": False,
        },
        "edm": {"condition_latents": [1], "pure_noise_probability": 0.5},
    },
    "autoregressive": {
        "autoregressive": {
            "dim": 24, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 12, "ffn_dim": 32, "order": "frame",
            "vocabulary": "digits", "context_positions": 64, "action_hidden": 16,
        }
    },
}  # fmt: skip


def data(family: str, conditions: dict[str, Condition]) -> Encoded:
    """Windows of noise in their first latent frame, whose later ones are what the brightness says."""
    generator = torch.Generator().manual_seed(0)
    tracks = np.repeat(SIGNAL[:, None, None], 9, axis=1)
    said = torch.from_numpy(SIGNAL)
    if family == "diffusion":
        windows = torch.randn(COUNT, 3, 3, 4, 4, generator=generator)
        windows[:, :, 1:] = said[:, None, None, None, None]
    else:
        windows = torch.randint(0, 16, (COUNT, 3, 2, 2), generator=generator)
        windows[:, 1:] = torch.where(said > 0, 15, 0)[:, None, None, None]
    arrays = {"latents" if family == "diffusion" else "tokens": windows, "brightness": torch.from_numpy(tracks)}
    samples = ArrayDataset(tuple(f"s{i}" for i in range(COUNT)), arrays)
    samples = with_conditions(samples, conditions.values(), {"brightness": {"unit": "1"}}, 24.0)
    statistics = {"mean": [[0.0, 0.0]] * 3, "std": [[1.0, 1.0]] * 3}
    return Encoded({"latents": samples}, {}, statistics, ActionSpec.null(), 24.0, conditions=conditions)


@pytest.mark.parametrize(("family", "steps"), [("diffusion", 80), ("autoregressive", 50)])
def test_it_trains_samples_and_is_followed(family, steps, tmp_path) -> None:
    config = WorldTrainingConfig.parse(
        {
            "family": family,
            "conditions": {"brightness": {}},
            "training": {**TRAINING, "steps": steps},
            **FAMILIES[family],
        }
    )
    found = data(family, parse(config.conditions))
    assert found.train["latents"].arrays["brightness"].shape == (COUNT, 1)
    levels = {} if family == "diffusion" else {"levels": (4, 4)}
    tokenizer = TokenizerConfig.parse(
        {"temporal_compression": 4, "spatial_compression": 4, "latent_channels": 3 if not levels else 2, **levels}
    )
    torch.manual_seed(0)
    model, objective, card = build(config, tokenizer, found)
    loader = Loader(found.train["latents"], one_shape(found.train["latents"].sample_ids, 16, 0))
    train(model, objective, loader, config.training, scratch=tmp_path / "scratch")
    save_model(model, card, tmp_path / "model")
    model, saved = load_model(tmp_path / "model")
    assert saved.config.conditions["brightness"].spec == Brightness().resolved()

    def future(brightness: float | None) -> float:
        window = found.train["latents"].arrays["latents" if family == "diffusion" else "tokens"][:1, ..., :1, :, :]
        tensors = {"past": window} | ({} if brightness is None else {"brightness": torch.tensor([[brightness]])})
        how = {"frames": 3, "seeds": [0], "mode": "mean"}
        if family == "diffusion":
            return float(future_latents(model, tensors, sampling=SamplerConfig(), **how)[:, :, 1:].mean())
        tokens = future_tokens(model, tensors, sampling=DecodingConfig(), **how)[:, 1:]
        return float(tokens.float().mean() / 7.5 - 1)

    assert future(1.0) > 0.7
    assert future(-1.0) < -0.7
    assert tensors_of(model.config.slots, found.train["latents"].rows([0, 1]))["brightness"].flatten().tolist() == [
        -1,
        1,
    ]


def test_its_signal_is_made_of_frames_when_signals_are_encoded(write_video, tmp_path) -> None:
    frames = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None, None] * 10, (20, 32, 48, 3)).copy()
    video = write_video(tmp_path / "clip.mp4", frames, pixel_format="yuv444p", qp="0").read_bytes()
    row = {"session_id": "s", "video_id": "v", "source": "a.mp4", "start_seconds": 0.0, "fps": 24.0, "num_frames": 20}
    sample = Sample("c", {"mp4": video, "json": json.dumps(row).encode()})
    plain = clip_signals(sample)
    assert with_tracks(plain, sample, {}, (16, 24)) is plain
    made = with_tracks(plain, sample, parse({"brightness": {}}), (16, 24)).tracks["brightness"]
    assert np.allclose(made.values[:, 0], np.arange(20) * 10 / 127.5 - 1, atol=0.03)
    with pytest.raises(ConfigError, match=r"encode_signals\.conditions\.camera: camera makes no signal of frames"):
        with_tracks(plain, sample, parse({"camera": {}}), (16, 24))


def test_a_future_reads_the_given_frames_of_every_window() -> None:
    slot = Brightness().slot_config(Geometry(4, 24.0)).resolved()
    config = AutoregressiveConfig.parse({"levels": (4, 4), "dim": 24, "conditions": {"brightness": slot}})
    reading = ConditionReading(config, ActionSpec.null(), 24.0, torch.zeros(()))
    assert reading.frames
    past = torch.stack([torch.full((3, 5, 16, 16), level) for level in (-1.0, 0.5)])
    found = reading.tensors(past, Given(), 0, 9)
    assert found["brightness"].flatten().tolist() == pytest.approx([-1.0, 0.5], abs=0.01)


class Depth(Brightness):
    """That of a sidecar, at the end of the window."""

    name: ClassVar[str] = "depth"

    def track(self, frames: np.ndarray, fps: float) -> None:
        return None

    def read(self, view: View) -> dict[str, np.ndarray]:
        has = view.signals.get("has_depth")
        return {"depth": view.signals["depth"][:, -1], **({} if has is None else {"has_depth": has})}


def test_a_future_reads_what_the_caller_gives_of_its_own_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_plug_ins", lambda group: {"depth": (f"{__name__}:Depth",)})
    slot = Depth().slot_config(Geometry(4, 24.0)).resolved()
    config = AutoregressiveConfig.parse({"levels": (4, 4), "dim": 24, "conditions": {"depth": slot}})
    reading = ConditionReading(config, ActionSpec.null(), 24.0, torch.zeros(()))
    depth = np.stack([np.arange(13.0), -np.arange(13.0)]).astype(np.float32)[..., None]
    past = torch.zeros(2, 3, 5, 16, 16)
    for start, ends in ((0, [8, -8]), (4, [12, -12]), (8, [12, -12])):  # past its end the last row again
        given = Given(signals={"depth": depth, "has_depth": np.ones(2, bool)})
        assert reading.tensors(past, given, start, 9)["depth"].flatten().tolist() == ends
        assert list(reading.tensors(past, given.rows([1]), start, 9)["depth"].flatten()) == ends[1:]
    absent = Given(signals={"depth": depth, "has_depth": np.zeros(2, bool)})
    assert list(reading.tensors(past, absent, 0, 9)) == ["past"]
    some = Given(signals={"depth": depth, "has_depth": np.array([True, False])})
    with pytest.raises(ConfigError, match="condition 'depth': 1 of 2 sequences lack it; ask for these by themselves"):
        reading.tensors(past, some, 0, 9)


def test_another_spec_and_an_unknown_field_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"condition 'brightness' mismatch in 'gamma': the model was trained with 1\.0"
    ):
        Brightness().require_same(Brightness(gamma=2.0))
    with pytest.raises(ConfigError, match=r"unknown field 'gama'\. Did you mean 'gamma'"):
        parse({"brightness": {"gama": 2.0}})
