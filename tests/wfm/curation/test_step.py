"""A filter says why it drops, a step skips with a reason, and both are counted by the reason's code."""

import dataclasses
from collections.abc import Iterator

from wfm.curation.step import Left, Skip, apply_filters, reason_code, run_step, skipped_by_reason


@dataclasses.dataclass(frozen=True)
class AtMost:
    """Keeps numbers up to a limit."""

    limit: int
    name: str = "at_most"

    def reason(self, item: int, /) -> str:
        return "" if item <= self.limit else f"above_{self.limit}: {item}"


class Halve:
    """Even numbers are halved twice over, odd ones are skipped."""

    name = "halve"

    def __call__(self, item: int, /) -> list[int]:
        if item % 2:
            raise Skip("odd", f"{item} cannot be halved")
        return [item // 2, item // 2]


def test_the_first_filter_that_refuses_gives_the_reason() -> None:
    kept, left = apply_filters([1, 5, 20, 7], [AtMost(10), AtMost(6)])
    assert kept == [1, 5]
    assert left == [Left(20, "above_10: 20"), Left(7, "above_6: 7")]
    assert skipped_by_reason(left) == {"above_10": 1, "above_6": 1}


def test_a_step_makes_rows_or_skips() -> None:
    rows, left = run_step(Halve(), [2, 3, 8, 5])
    assert rows == [1, 1, 4, 4]
    assert [item.item for item in left] == [3, 5]
    assert skipped_by_reason(left) == {"odd": 2}


def test_items_begun_ahead_end_in_the_same_order_and_no_more_are_begun_than_asked() -> None:
    waiting: list[int] = []
    most: list[int] = []

    class Slow:
        """Rows that are waited for; 3 cannot be begun, 4 has none in the end."""

        name = "slow"

        def __call__(self, item: int, /) -> Iterator[int]:
            if item == 3:
                raise Skip("odd")
            waiting.append(item)
            most.append(len(waiting))
            return self._rows(item)

        def _rows(self, item: int) -> Iterator[int]:
            waiting.remove(item)
            if item == 4:
                raise Skip("late")
            yield item

    plain = run_step(Slow(), range(8))
    assert max(most) == 1
    assert run_step(Slow(), range(8), ahead=2) == plain == ([0, 1, 2, 5, 6, 7], [Left(3, "odd"), Left(4, "late")])
    assert max(most) == 3


def test_a_code_may_hold_a_colon() -> None:
    assert reason_code("truncated: read 3 s: stopped") == "truncated"
    assert reason_code("no_decoder:vvc: the codec is not known") == "no_decoder:vvc"
    assert reason_code("static") == "static"
