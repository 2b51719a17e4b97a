"""What can be ordered, and what becomes of samples that no pack can hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfm.data.order.sources import Source, pieces_of, sample_keys
from wfm.errors import ConfigError, DataError

BUDGET = 20


def source_of(lengths, **more) -> Source:
    return Source("clips", np.array(lengths), np.arange(len(lengths), dtype=np.uint64), **more)


FRAMED = st.lists(st.tuples(st.integers(1, BUDGET), st.integers(1, 30)), min_size=1, max_size=20)


@settings(deadline=None)
@given(FRAMED)
def test_split_samples_are_whole_frames_without_a_gap_in_as_few_pieces_as_hold_them(cases):
    frames, counts = (np.array(each) for each in zip(*cases, strict=True))
    held = pieces_of(source_of(frames * counts, frames=frames), BUDGET, "split")
    assert held.tokens_left == 0
    assert held.oversized == (frames * counts > BUDGET).sum()
    for row, (frame, count) in enumerate(cases):
        mine = held.rows[:] == row
        starts, lengths = held.starts[mine], held.lengths[mine]
        assert starts.tolist() == [0, *np.cumsum(lengths)[:-1]]
        assert lengths.sum() == frame * count
        assert lengths.max() <= BUDGET
        assert (lengths % frame == 0).all()
        assert lengths.max() - lengths.min() <= frame
        assert len(lengths) == -(-count // (BUDGET // frame))


@settings(deadline=None)
@given(FRAMED)
def test_cut_samples_are_their_first_frames_and_what_is_lost_is_counted(cases):
    frames, counts = (np.array(each) for each in zip(*cases, strict=True))
    held = pieces_of(source_of(frames * counts, frames=frames), BUDGET, "cut")
    assert held.lengths.tolist() == [min(count, BUDGET // frame) * frame for frame, count in cases]
    assert not held.starts.any()
    assert held.tokens_left == (frames * counts).sum() - held.lengths.sum()


def test_left_out_samples_are_counted_and_the_rest_keep_their_rows_and_weights():
    source = source_of([5, 21, 20, 90], weights=np.array([1.0, 1.0, 0.5, 2.0]))
    held = pieces_of(source, BUDGET, "leave_out")
    assert held.rows.tolist() == [0, 2]
    assert (held.weights / 2**32).tolist() == [1.0, 0.5]
    assert (held.oversized, held.tokens_left) == (2, 111)


def test_refused_samples_are_named():
    with pytest.raises(DataError, match=r"'clips': 2 samples do not fit .* budget of 20 tokens: .* 1 \(21\), 3 \(90\)"):
        pieces_of(source_of([5, 21, 20, 90]), BUDGET, "refuse")


@pytest.mark.parametrize("rule", ["cut", "split"])
def test_a_frame_above_the_budget_cannot_be_cut(rule):
    with pytest.raises(DataError, match=r"one frame is above the budget of 20 tokens: rows \(tokens\) 1 \(42\)"):
        pieces_of(source_of([5, 42], frames=np.array([5, 21])), BUDGET, rule)


def test_nothing_left_and_a_rule_that_is_none_are_refused():
    with pytest.raises(DataError, match="all 2 samples are above the budget of 20"):
        pieces_of(source_of([30, 31]), BUDGET, "leave_out")
    with pytest.raises(ConfigError, match="'drop' is none of refuse, leave_out, cut, split"):
        pieces_of(source_of([1]), BUDGET, "drop")


@pytest.mark.parametrize(
    ("lengths", "more", "message"),
    [
        ([], {}, "'clips' has no samples"),
        ([3, 0, -1], {}, r"lengths\[1\] is 0, and so wrong are 2 in all: a sample has 1 token or more"),
        ([3.0], {}, "lengths are float64, whole numbers"),
        ([3, 4], {"weights": np.zeros(2)}, "the weights of all 2 samples are 0"),
        ([3, 4], {"weights": np.array([1, np.nan])}, r"weights\[1\] is nan"),
        ([3, 4], {"weights": np.array([1, -1.0])}, r"weights\[1\] is -1.0"),
        ([3, 4], {"weights": np.ones(3)}, "3 weights for 2 lengths"),
        ([3, 4], {"frames": np.array([3, 3])}, r"lengths\[1\] is 4, .* no multiple of the tokens of a frame"),
        ([3, 4], {"frames": np.array([3, 0])}, r"frames\[1\] is 0"),
    ],
)
def test_arrays_that_describe_no_samples_are_refused(lengths, more, message):
    with pytest.raises(DataError, match=message):
        source_of(lengths, **more)


def test_two_samples_of_one_id_are_refused():
    with pytest.raises(DataError, match="two of its samples have the same key"):
        Source("clips", np.array([1, 2]), sample_keys(["a", "a"]))
