import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.wfm.data.record_rows import record_row
from wfm.artifacts import Artifact, Store
from wfm.data.records import RecordWriter
from wfm.errors import DataError
from wfm.generation.from_artifacts import card_values, latent_shape, open_world
from wfm.generation.publish import write_bundle
from wfm.generation.sampler_config import SamplerConfig
from wfm.generation.world_model import WorldModel, read_card
from wfm.models.folder import fetch_model, save_model


def key(letter: str) -> str:
    return letter * 64


def commit(store: Store, letter: str, kind: str, write: Any, inputs: dict[str, str] | None = None) -> Artifact:
    attempt = store.attempt(key(letter))
    write(Path(attempt.path))
    return attempt.commit(stage="test", kind=kind, inputs=inputs or {})


@pytest.fixture
def run(world_of, family, tmp_path) -> dict[str, Any]:
    """The artifacts of a small run: tokenizer, latents, model, generated, evaluation."""
    store, world = Store.open(str(tmp_path / "store")), world_of(family)
    tokenizer = commit(
        store, "a", "tokenizer", lambda out: save_model(world.tokenizer, world.tokenizer.config, out / "tokenizer")
    )
    name, shape = ("tokens", (4, 4, 4)) if family == "autoregressive" else ("latents", (3, 4, 4, 4))

    def write_latents(out: Path) -> None:
        with RecordWriter(out, "0a") as records:
            for start in (0, 8):
                records.write("test", record_row("clip", start), {name: np.zeros(shape, np.float32)})

    latents = commit(store, "b", "latents", write_latents, {"tokenizer": key("a")})
    model = commit(
        store,
        "c",
        "world_model",
        lambda out: save_model(world.model, world.model_card.config, out / "model", action_spec=world.action_spec),
        {"tokenizer": key("a"), "latents": key("b")},
    )
    generated = commit(
        store,
        "d",
        "generated",
        lambda out: (out / "card.json").write_text(json.dumps(card_values(world, seed=0))),
        {"tokenizer": key("a"), "model": key("c")},
    )
    report = {"family": family, "windows": 2, "psnr": {"sampled": 12.5}}
    evaluation = commit(
        store, "e", "report", lambda out: (out / "metrics.json").write_text(json.dumps(report)), {"generated": key("d")}
    )
    return {
        "store": store,
        "world": world,
        "latents": latents,
        "generated": generated,
        "inputs": {"tokenizer": tokenizer, "model": model, "evaluation": evaluation},
    }


def test_a_bundle_opens_as_the_same_world(run, tmp_path, past, actions, family) -> None:
    (tmp_path / "out").mkdir()
    card = write_bundle(run["store"], run["inputs"], tmp_path / "out", name="tiny", scratch=tmp_path / "scratch")
    again = WorldModel.load(tmp_path / "out")
    assert again.card == card
    assert card.name == "tiny"
    assert card.evaluation["psnr"] == {"sampled": 12.5}
    assert card.inputs == {"evaluation": key("e"), "model": key("c"), "tokenizer": key("a")}
    both = [w.generate(past, actions, seeds=[1, 2, 3, 4], mode="sample") for w in (run["world"], again)]
    assert torch.equal(*both)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| `camera_orbit_rate` | deg/s |" in text
    assert "- windows: 2" in text


def test_an_evaluation_of_another_model_is_refused(run, tmp_path) -> None:
    other = commit(run["store"], "f", "world_model", lambda out: (out / "x").write_text("x"))
    with pytest.raises(DataError, match="judged model cccccccccccc, to be published is ffffffffffff"):
        write_bundle(run["store"], {**run["inputs"], "model": other}, tmp_path, name="", scratch=tmp_path / "scratch")


def test_a_world_from_the_artifacts_of_a_run(run, tmp_path, past, actions) -> None:
    inputs = {role: run["inputs"][role] for role in ("tokenizer", "model")} | {"latents": run["latents"]}
    sampling = run["world"].card.sampling
    world = open_world(inputs, past_frames=5, sampling=sampling)
    assert (world.card.size, world.card.num_frames, world.card.fps) == ((16, 16), 13, 24.0)
    both = [w.generate(past, actions, seeds=[1, 2, 3, 4], mode="sample") for w in (run["world"], world)]
    assert torch.equal(*both)


def test_a_model_of_other_latents_is_refused(run, tmp_path) -> None:
    other = commit(run["store"], "f", "latents", lambda out: (out / "x").write_text("x"))
    inputs = {role: run["inputs"][role] for role in ("tokenizer", "model")} | {"latents": other}
    with pytest.raises(DataError, match="trained with latents bbbbbbbbbbbb"):
        open_world(inputs, past_frames=5, sampling=SamplerConfig())


def test_artifacts_without_what_is_wanted_say_so(run, tmp_path) -> None:
    with pytest.raises(DataError, match="0 model folders"):
        fetch_model(run["latents"], tmp_path / "scratch")
    with pytest.raises(DataError, match="no encoded windows"):
        latent_shape(run["inputs"]["model"])
    attempt = run["store"].attempt(key("9"))
    (Path(attempt.path) / "x").write_text("x")
    own = attempt.commit(stage="encode_latents", kind="latents", config={"take": "clips"})
    with pytest.raises(DataError, match=r"samples of their own shape \(take = 'clips'\), windows are needed"):
        latent_shape(own)


def test_a_card_of_the_first_schema_leaves_the_other_familys_sampling_out(tmp_path: Path) -> None:
    """Cards held the fields of every family once: those of the named one are kept, the others were never read."""
    old = {
        "schema_version": 1, "family": "autoregressive", "size": [16, 16], "fps": 24.0, "num_frames": 13, "past_frames": 5,
        "sampling": {"sampler": "heun", "steps": 8, "temperature": 0.7, "batch_size": 4},
    }  # fmt: skip
    (tmp_path / "card.json").write_text(json.dumps(old))
    assert read_card(tmp_path).sampling.resolved() == {"batch_size": 4, "temperature": 0.7, "top_p": 0.8}
