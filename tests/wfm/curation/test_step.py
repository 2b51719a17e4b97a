"""A step skips with a reason, and what is left out is counted by the reason's code."""

from collections.abc import Iterator

from wfm.curation.step import Left, Skip, reason_code, run_step, skipped_by_reason


class Halve:
    """Even numbers are halved twice over, odd ones are skipped."""

    name = "halve"

    def __call__(self, item: int, /) -> list[int]:
        if item % 2:
            raise Skip("odd", f"{item} cannot be halved")
        return [item // 2, item // 2]


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
