"""What a denoiser is conditioned on, and the twin without some of it; the given frames."""

import pytest
import torch

from wfm.errors import ConfigError
from wfm.models.diffusion.conditioning import Conditions, last_given
from wfm.models.slots import SlotConfig, require_known

SLOTS = {
    "text": SlotConfig(slot="context", width=2, tensors=("text", "text_lengths")),
    "action": SlotConfig(slot="vector", width=3, tensors=("actions",)),
}


def test_last_given_frame():
    past = torch.arange(12.0).view(3, 1, 4, 1, 1)
    assert last_given(past, torch.tensor([1, 4, 0])).flatten().tolist() == [0, 7, 0]


def test_the_unconditional_twin_keeps_the_frames():
    one = Conditions(
        {"past": torch.ones(1), "text": torch.ones(2), "actions": torch.ones(3)}, present={"action": torch.ones(4)}, fps=24.0,
    )  # fmt: skip
    both, other = one.without(SLOTS, "text", "action"), one.without(SLOTS, "text", instead={"text": torch.zeros(5)})
    assert both.tensors == {"past": one.tensors["past"]}
    assert not both.present
    assert both.fps == 24.0
    assert other.tensors["actions"] is one.tensors["actions"]
    assert len(other.tensors["text"]) == 5


def test_what_a_model_has_no_condition_for_is_refused():
    with pytest.raises(
        ConfigError, match=r"depth \[2\] given, and this model takes none; its conditions: text, action"
    ):
        require_known({"depth": torch.ones(2)}, {}, SLOTS)
    with pytest.raises(ConfigError, match=r"present\.depth: this model has no such condition"):
        require_known({}, {"depth": torch.ones(2)}, SLOTS)
