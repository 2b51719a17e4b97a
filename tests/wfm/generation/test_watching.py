"""Progress of `wfm generate`: in frames, whole at the end, and nothing that a result depends on."""

import pytest
import torch

from wfm import log
from wfm.generation import watching
from wfm.generation.watching import expected_passes, watched
from wfm.generation.world_model import WorldModel


@pytest.mark.parametrize("total", [13, 29])
def test_frames_are_told_as_they_come(world_of, family: str, total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old code said nothing from the start to the end."""
    world: WorldModel = world_of(family)
    told: list[float] = []
    monkeypatch.setattr(log._Lines, "advance", lambda self, n=1, note="": told.append(n))
    mode = "sample"
    past = torch.rand(1, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plain = world.generate(past, num_frames=total, seeds=[1], mode=mode)
    assert told == []
    with watched(world, total, mode):
        made = world.generate(past, num_frames=total, seeds=[1], mode=mode)
    assert torch.equal(made, plain)
    assert sum(told) == pytest.approx(total - world.card.past_frames)
    assert len(told) - 1 == expected_passes(world, total, mode)
    assert told[-1] == pytest.approx(0.0, abs=1e-6), "the passes alone came to all frames"
    again = world.generate(past, num_frames=total, seeds=[1], mode=mode)
    assert len(told) - 1 == expected_passes(world, total, mode), "the hook is gone"
    assert torch.equal(again, plain)


def test_a_command_without_a_terminal_is_quiet(world_of, capfd: pytest.CaptureFixture[str]) -> None:
    world: WorldModel = world_of("diffusion")
    log.set_up("WARNING")
    with watching.watched(world, 13, "mean"):
        world.generate(torch.zeros(1, 3, 5, 16, 16), num_frames=13, seeds=[1], mode="mean")
    assert capfd.readouterr().err == ""
