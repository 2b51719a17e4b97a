"""A process that does not get on is found, with its name and for how long; one that does, or may be silent now, is not."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from wfm import pulse
from wfm.process import python
from wfm.pulse import START_SECONDS, Sign, Watch, beat, expecting, waiting


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_beat_counts_and_says_what() -> None:
    before = pulse.sign()
    beat("step")
    beat("save")
    assert (pulse.sign().count, pulse.sign().what) == (before.count + 2, "save")
    assert pulse.sign().limit == before.limit


def test_a_process_that_begins_has_the_limit_of_the_start() -> None:
    said = subprocess.run(
        python("-c", "from wfm.pulse import sign; print(sign().limit)"), capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert float(said.stdout) == START_SECONDS


def test_the_innermost_limit_holds_and_the_outer_one_comes_back() -> None:
    outside = pulse.sign()
    with expecting("training", 20.0):
        beat("step")
        assert pulse.sign().limit == 20.0
        with contextlib.suppress(RuntimeError), expecting("compile", 900.0), waiting("gradients"):
            assert (pulse.sign().limit, pulse.sign().waits, pulse.sign().what) == (900.0, True, "gradients")
            raise RuntimeError
        assert (pulse.sign().limit, pulse.sign().waits, pulse.sign().what) == (20.0, False, "step")
    assert (pulse.sign().limit, pulse.sign().what) == (outside.limit, outside.what)
    assert pulse.sign().count > outside.count


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_limit_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="no limit"), expecting("compile", seconds):
        pass


def test_who_is_silent_for_too_long_is_named_and_who_gets_on_is_not() -> None:
    clock = Clock()
    watch = Watch[str](longest=5.0, clock=clock)
    for second in range(11):
        clock.now += 2.0
        late = watch.look({"rank 0": Sign(second, "step", 20.0), "rank 1": Sign(7, "gradients", 20.0, waits=True)})
        assert not late, second * 2.0
    clock.now += 2.0
    (found,) = watch.look({"rank 0": Sign(99, "step", 20.0), "rank 1": Sign(7, "gradients", 20.0, waits=True)})
    assert (found.name, found.seconds) == ("rank 1", 22.0)
    assert str(found) == "did not get on for 22 s: it waits for others in 'gradients' (beat 7)"


def test_a_watcher_that_was_stopped_itself_accuses_nobody() -> None:
    clock = Clock()
    watch = Watch[str](longest=5.0, clock=clock)
    still = {"rank 1": Sign(7, "step", 20.0)}
    watch.look(still)
    clock.now += 3600.0  # a laptop that slept, SIGSTOP
    assert not watch.look(still)
    for _ in range(4):
        clock.now += 5.0
        late = watch.look(still)
    assert late[0].seconds == 25.0
