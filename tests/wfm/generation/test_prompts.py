"""Text in generation: what a caption changes, what it must not, and which encoder may give it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from wfm.artifacts import Store
from wfm.errors import ConfigError, DataError
from wfm.families.diffusion.build import denoiser
from wfm.generation.command import generate_from_files
from wfm.generation.held_out import HeldOut, write_part
from wfm.generation.prompts import PromptEncoder
from wfm.generation.world_model import WorldModel
from wfm.generation.write_video import write_mp4
from wfm.models.diffusion import DenoiserConfig
from wfm.models.folder import ModelCard, load_tensors, save_model
from wfm.models.text import TextConfig
from wfm.models.text.identity import encoder_identity

CAPTIONS = ["a red ball rolls to the left", "the camera orbits slowly around two cubes", "nothing moves", ""]


def note(**more) -> dict:
    identity = encoder_identity(TextConfig(encoder="minilm"))
    return {"encoder": "minilm", "max_length": 32, "dtype": "float32", "identity": identity, **more}


@pytest.fixture
def world(world_of) -> WorldModel:
    """The tiny diffusion world, reading MiniLM's embeddings; every weight random."""
    plain = world_of("diffusion")
    values = plain.model_card.config.resolved()
    config = DenoiserConfig.parse({**values, "network": {**values["network"], "text_embed_dim": 384}})
    torch.manual_seed(3)
    model = denoiser(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    card = ModelCard("diffusion", config, plain.action_spec, {"text": note()})
    return WorldModel(plain.tokenizer, model, card, plain.card)


def test_a_caption_changes_the_future_and_only_its_own(world, past, actions):
    world.card = world.card.model_copy(update={"sampling": world.card.sampling.model_copy(update={"batch_size": 4})})
    together = world.generate(past, actions, seeds=[0, 1, 2, 3], text=CAPTIONS)
    changed = world.generate(past, actions, seeds=[0, 1, 2, 3], text=[*CAPTIONS[:3], "a long caption " * 4])
    assert torch.equal(together[:3], changed[:3]), "bit for bit, whatever the captions beside it"
    assert not torch.allclose(together[3], changed[3], atol=1e-4)
    untold = world.generate(past, actions, seeds=[0, 1, 2, 3])
    assert (together - untold).abs().flatten(1).amax(1).min() > 1e-4
    assert torch.equal(together[:, :, :5], past), "the past stays as it was given"


def test_guidance_moves_away_from_the_empty_text(world, past):
    def at(scale: float) -> torch.Tensor:
        sampling = {"batch_size": 2, "steps": 1, "guidance": {"scale": scale, "drop": ["text"]}}
        world.card = world.card.model_copy(update={"sampling": type(world.card.sampling).parse(sampling)})
        return world.generate(past[:2], seeds=[0, 1], text=CAPTIONS[:2])

    plain, guided, none = at(1.0), at(3.0), at(0.0)
    untold = world.generate(past[:2], seeds=[0, 1])
    assert torch.allclose(none, untold, atol=1e-4), "scale 0 is the unconditional prediction"
    assert not torch.allclose(guided, plain, atol=1e-4)


def test_the_encoder_must_be_the_one_of_training(world, world_of, past):
    with pytest.raises(ConfigError, match="2 captions for 1 sequences"):
        world.generate(past[:1], seeds=[0], text=CAPTIONS[:2])
    with pytest.raises(ConfigError, match="this model reads none"):
        world_of("diffusion").generate(past[:1], seeds=[0], text=CAPTIONS[:1])
    with pytest.raises(ConfigError, match="--text-encoder FOLDER"):
        PromptEncoder.of_model(note(encoder="folder"))
    with pytest.raises(DataError, match="trained with 0000"):
        PromptEncoder.of_model(note(identity="0" * 64))


def test_embeddings_are_rounded_as_in_training():
    plain, rounded = (PromptEncoder.of_model(note(dtype=dtype)).encode(CAPTIONS) for dtype in ("float32", "bfloat16"))
    assert plain[0].shape == (4, 32, 384)
    assert torch.equal(rounded[0], plain[0].bfloat16().float())
    assert plain[1].tolist() == rounded[1].tolist()
    assert not plain[0][3, plain[1][3] :].any()


def test_generate_with_text_from_files(world, tmp_path):
    bundle = tmp_path / "bundle"
    save_model(world.tokenizer, world.tokenizer.config, bundle / "tokenizer")
    save_model(
        world.model, world.model_card.config, bundle / "model", action_spec=world.action_spec, extra={"text": note()}
    )
    (bundle / "card.json").write_text(world.card.model_dump_json())
    frames = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    write_mp4(tmp_path / "past.mp4", frames, 24.0)
    store = Store.open(str(tmp_path / "store"))
    made = {}
    for name, more in (
        ("plain", {}),
        ("told", {"text": CAPTIONS[0]}),
        ("guided", {"text": CAPTIONS[0], "guidance": 4.0}),
        ("avoided", {"text": CAPTIONS[0], "guidance": 4.0, "negative_text": CAPTIONS[1]}),
    ):
        written = generate_from_files(store, str(bundle), tmp_path / "past.mp4", out=tmp_path / f"{name}.mp4", **more)
        made[name] = (Path(written.video).read_bytes(), json.loads(written.sidecar.read_text()))
    assert len({video for video, _ in made.values()}) == 4
    assert made["avoided"][1]["text"]["negative"] == CAPTIONS[1]
    with pytest.raises(ConfigError, match="nothing that it moves away from is given"):
        generate_from_files(store, str(bundle), tmp_path / "past.mp4", out=tmp_path / "x.mp4", guidance=4.0)
    with pytest.raises(ConfigError, match="negative_text needs guidance"):
        generate_from_files(
            store, str(bundle), tmp_path / "past.mp4", out=tmp_path / "x.mp4", text=CAPTIONS[0], negative_text="blurry"
        )
    assert made["plain"][1]["text"] is None
    assert made["told"][1]["text"]["caption"] == CAPTIONS[0]
    assert made["guided"][1]["sampling"]["guidance"]["scale"] == 4.0


def test_held_out_windows_bring_their_captions(world, tmp_path):
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (2, 13, 16, 16, 3), dtype=np.uint8)
    frames[1] = frames[0]
    rows = [{"sample_id": "same", "session_id": f"s{i}", "caption": CAPTIONS[i]} for i in range(2)]
    held = HeldOut("test", rows, frames, np.zeros((2, 13, 3), np.float32), None, {})
    write_part(world, held, tmp_path, seed=0)
    video = load_tensors(tmp_path / "test/sampled.safetensors")["video"]
    assert torch.equal(video[0, :5], video[1, :5])
    assert not torch.equal(video[0], video[1]), "one past, one seed, two captions"


def test_no_captions_are_refused() -> None:
    # Before: RuntimeError, "stack expects a non-empty TensorList".
    encoder = PromptEncoder.of_model(note())
    with pytest.raises(ConfigError, match="no captions"):
        encoder.encode([])
