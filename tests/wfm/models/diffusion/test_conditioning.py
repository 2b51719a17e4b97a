"""What stands for conditions that are absent; the given frames."""

import pytest
import torch

from wfm.errors import ConfigError
from wfm.models.diffusion.conditioning import Conditions, LearnedNull, last_given
from wfm.models.slots import SlotConfig

SLOTS = {
    "text": SlotConfig(slot="context", width=2, tensors=("text", "text_lengths")),
    "action": SlotConfig(slot="vector", width=3, tensors=("actions",), null="learned"),
}


def test_the_null_is_learned_and_takes_the_place_of_what_is_absent():
    layer = LearnedNull(3)
    torch.nn.init.normal_(layer.null)
    features = torch.randn(2, 3, 3)
    none, mixed = layer(None, None, 2, 3), layer(features, torch.tensor([True, False]), 2, 3)
    assert torch.equal(none, layer.null.expand(2, 3, -1))
    assert torch.equal(mixed[1], none[1])
    assert torch.equal(mixed[0], layer(features, None, 2, 3)[0])
    assert torch.equal(mixed[0], torch.cat([torch.ones(3, 1), features[0]], dim=1))
    mixed.sum().backward()
    assert (layer.null.grad == 3).all()


def test_last_given_frame():
    past = torch.arange(12.0).view(3, 1, 4, 1, 1)
    assert last_given(past, torch.tensor([1, 4, 0])).flatten().tolist() == [0, 7, 0]


def test_the_unconditional_twin_keeps_the_frames():
    one = Conditions(
        past=torch.ones(1), given=2, tensors={"text": torch.ones(2), "actions": torch.ones(3)},
        present={"action": torch.ones(4)}, fps=24.0,
    )  # fmt: skip
    both, other = one.without(SLOTS, "text", "action"), one.without(SLOTS, "text", instead={"text": torch.zeros(5)})
    assert not both.tensors
    assert not both.present
    assert both.past is one.past
    assert (both.given, both.fps) == (2, 24.0)
    assert other.tensors["actions"] is one.tensors["actions"]
    assert len(other.tensors["text"]) == 5


def test_what_a_model_has_no_condition_for_is_refused():
    with pytest.raises(
        ConfigError, match=r"depth \[2\] given, and this model takes none; its conditions: text, action"
    ):
        Conditions(tensors={"depth": torch.ones(2)}).require_known(SLOTS)
    with pytest.raises(ConfigError, match=r"present\.depth: this model has no such condition"):
        Conditions(present={"depth": torch.ones(2)}).require_known(SLOTS)
