"""What a launcher remembers of a request: how long it waits before the next try."""

import pytest

from wfm.cluster.entry import FIRST_PAUSE, HELD_PAUSE, LONGEST_PAUSE, _pause
from wfm.cluster.records import Try


def tries(*outcomes: str, **more: bool) -> list[Try]:
    found = [Try(number, "t", "pod", outcome=outcome) for number, outcome in enumerate(outcomes, 1)]
    return [*found[:-1], Try(**{**vars(found[-1]), **more})]


@pytest.mark.parametrize(("given", "seconds"), [
    (tries("try_again"), FIRST_PAUSE),
    (tries("try_again", "bug"), 2 * FIRST_PAUSE),
    (tries("try_again", "try_again", "try_again"), 4 * FIRST_PAUSE),
    (tries(*["try_again"] * 40), LONGEST_PAUSE),
    (tries("try_again", "try_again", disruption=True), FIRST_PAUSE),
    (tries("try_again", "try_again", "cancelled"), FIRST_PAUSE),
    (tries("try_again", held=True), HELD_PAUSE),
    ([*tries("try_again"), Try(2, "t", "pod")], FIRST_PAUSE),
])  # fmt: skip
def test_tries_that_count_keep_a_growing_distance(given: list[Try], seconds: float) -> None:
    assert _pause(given)[1] == seconds
