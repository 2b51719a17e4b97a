"""The registry of conditions, and what each reads, means and refuses."""

import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch

from wfm import registry
from wfm.actions import ActionSpec, constant_rate, is_moving
from wfm.conditions.action import Action
from wfm.conditions.action_features import ActionFeatures
from wfm.conditions.camera import Camera, camera_spec
from wfm.conditions.condition import CONDITIONS, Condition, View, condition_class, parse
from wfm.conditions.extrapolation import Extrapolation
from wfm.conditions.past import Past, video_frames
from wfm.conditions.text import Text
from wfm.errors import ConfigError, InputError
from wfm.models.slots import Geometry, Place, Slot, SlotConfig

SPEC = ActionSpec(
    names=("camera_orbit_rate", "actor_velocity_x"), units=("deg/s", "m/s"), frame="world", mean=(0.0, 0.0),
    scale=(30.0, 0.6),
)  # fmt: skip
GEOMETRY = Geometry(temporal_compression=8, fps=24.0)


def view(actions: np.ndarray | None = None) -> View:
    """Two windows of 33 frames."""
    if actions is None:
        return View({}, 33, 24.0)
    return View({"actions": np.stack([actions, 2 * actions])}, 33, 24.0, {"actions": SPEC.resolved()})


class Brightness(Condition):
    name: ClassVar[str] = "brightness"
    slot: ClassVar[Slot] = "vector"
    of: str = "past"


def test_every_condition_is_registered_under_its_own_name_and_its_spec_comes_back() -> None:
    for name in CONDITIONS.built_in:
        kind = condition_class(name)
        assert kind.name == name
        assert kind.parse(kind().resolved()) == kind()


def test_an_unknown_condition_or_field_is_refused_with_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"conditions.depth: unknown condition 'depth'. Choices: past, extrapolation"):
        parse({"depth": {}})
    with pytest.raises(ConfigError, match=r"conditions\.text: Text: unknown field 'dropuot'. Did you mean 'dropout'\?"):
        parse({"text": {"dropuot": 0.3}})


def test_a_condition_of_another_package_comes_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    value = [f"{__name__}:Brightness"]
    monkeypatch.setattr(registry, "_plug_ins", lambda group: {"brightness": tuple(value)})
    assert condition_class("brightness") is Brightness
    assert "brightness" in CONDITIONS.names()
    assert parse({"brightness": {"of": "future"}})["brightness"].resolved()["of"] == "future"
    value[0] = f"{__name__}:view"
    with pytest.raises(ConfigError, match="is no Condition of that name"):
        condition_class("brightness")


def test_another_spec_is_refused_by_field_and_value_and_the_dropout_is_no_part_of_it() -> None:
    mine = Text(identity="aa", embed_dim=384)
    mine.require_same(Text(identity="aa", embed_dim=384, dropout=0.7))
    with pytest.raises(
        InputError, match="condition 'text' mismatch in 'identity': the model was trained with 'aa', the"
    ):
        mine.require_same(Text(identity="bb", embed_dim=384), whose="the prompt")
    with pytest.raises(InputError, match="action spec mismatch in 'units'"):
        Action(spec=SPEC).require_same(Action(spec=SPEC.model_copy(update={"units": ("rad/s", "m/s")})))
    Action(spec=SPEC).require_same(Action(spec=SPEC.model_copy(update={"scale": (1.0, 1.0)})))
    with pytest.raises(InputError, match="condition 'past': the input gives 'text'"):
        Past().require_same(mine)


def test_the_past_is_the_given_frames() -> None:
    assert [video_frames(n, 8) for n in range(4)] == [0, 1, 9, 17]
    assert Past().read(view()) == {}
    frames = np.zeros((2, 9, 4, 4, 3), np.uint8)
    assert Past().read(View({}, 33, 24.0, frames=frames))["past"] is frames
    assert Past.tensor_names() == ("past", "given")
    assert Past.encoded == ("past",)


def test_the_extrapolated_past_begins_with_the_given_frames_and_asks_for_as_many_as_it_knows() -> None:
    past = np.random.default_rng(0).integers(0, 256, (2, 9, 32, 32, 3), dtype=np.uint8)
    video = Extrapolation(given_frames=9).video(past, 33)
    assert video.shape == (2, 33, 32, 32, 3)
    assert np.array_equal(video[:, :9], past)
    with pytest.raises(ConfigError, match="given_frames is 5 and 9 frames are given"):
        Extrapolation(given_frames=5).video(past, 33)


def test_actions_and_camera_rates_are_read_by_what_they_mean() -> None:
    actions = np.stack([np.full(33, 30.0), np.arange(33)], axis=1).astype(np.float32)
    seen, meanings = view(actions), {"actions": SPEC.resolved()}
    read = Action().described(meanings).read(seen)
    assert np.array_equal(read["actions"], SPEC.normalise(seen.signals["actions"]))
    camera = Camera().described(meanings)
    assert camera.spec.names == ("camera_orbit_rate",)
    assert np.array_equal(camera.read(seen)["camera"][..., 0], [[1.0] * 33, [2.0] * 33])
    some = View({**seen.signals, "has_actions": np.array([True, False])}, 33, 24.0, seen.meanings)
    assert camera.read(some)["has_camera"].tolist() == [True, False]
    assert not Action(spec=SPEC).read(view())
    assert not camera.read(view())
    with pytest.raises(InputError, match="action spec mismatch in 'names'"):
        Action(spec=camera_spec(SPEC)).described(meanings)
    with pytest.raises(InputError, match="the data set's actions are none, of which none begins with 'camera'"):
        Camera().described({})
    assert is_moving(actions, SPEC)
    assert not is_moving(actions * [0, 1], SPEC)
    assert constant_rate(actions, SPEC) == 30.0
    assert constant_rate(actions, SPEC, "actor_velocity_x") is None


def test_the_features_of_an_action_say_how_far_and_how_fast() -> None:
    action = Action(spec=SPEC)
    encode = action.encoder(GEOMETRY)
    assert isinstance(encode, ActionFeatures)
    found = encode({"actions": torch.ones(2, 33, 2)}, Place(5, torch.tensor([2, 2])))
    assert found.shape == (2, 5, action.width(GEOMETRY))
    assert torch.allclose(found[0, :, 0], torch.tensor([-8.0, 0.0, 8.0, 16.0, 24.0]) / 24)
    assert action.slot_config(GEOMETRY) == SlotConfig(
        slot="vector", width=found.shape[-1], tensors=("actions",), dropout=0.1, spec=action.resolved()
    )
    with pytest.raises(ConfigError, match=r"actions have shape \[2, 33, 3\], wanted \[2, frames, 2\]"):
        encode({"actions": torch.ones(2, 33, 3)}, Place(5, torch.tensor([2, 2])))


def test_a_plan_that_names_a_condition_loads_nothing_for_work() -> None:
    # Before: `action` loaded torch.
    code = """
import sys
from wfm.conditions.condition import CONDITIONS, parse
parse({name: {} for name in CONDITIONS.built_in})
{first}
sys.exit(", ".join(name for name in ("torch", "cv2", "av", "scipy", "transformers") if name in sys.modules) or 0)
"""

    def loaded(first: str = "") -> str:
        done = subprocess.run([sys.executable, "-c", code.replace("{first}", first)], capture_output=True, text=True)
        return done.stderr.strip()

    assert loaded() == ""
    assert loaded("import wfm.conditions.action_features") == "torch", "and that sees one"
