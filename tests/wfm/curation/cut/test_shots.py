"""Cuts are frames, spans are seconds of pts, and no frame is lost between them."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfm.curation.cut.shot_detection import ShotConfig
from wfm.curation.cut.shots import Span, look, spans
from wfm.curation.cut.timeline import Timeline
from wfm.data.decode import VideoError, open_video
from wfm.errors import ConfigError

Writer = Callable[..., Path]
Scenes = Callable[..., np.ndarray]


def even(count: int, fps: int = 24, start: int = 0) -> Timeline:
    return Timeline(start + np.arange(count) * 512, start + count * 512, Fraction(1, 512 * fps))


@pytest.mark.parametrize("detector", ["adaptive", "content"])
def test_hard_cuts_are_found_to_the_frame(
    tmp_path: Path, write_video: Writer, make_scenes: Scenes, detector: str
) -> None:
    path = write_video(tmp_path / "a.mp4", make_scenes([40, 51, 64, 37], seed=3))
    with open_video(path) as video:
        timeline, cuts = look(video, ShotConfig(detector=detector))
    assert cuts == [40, 91, 155]
    assert len(timeline.pts) == 192
    assert timeline.end_of(192) == 192 * int(timeline.pts[1])


def test_cuts_of_uneven_video_lie_at_their_pts(tmp_path: Path, write_video: Writer, make_scenes: Scenes) -> None:
    times = [0, *np.cumsum(np.tile([1, 4, 1, 2], 30))[:-1].tolist()]
    path = write_video(tmp_path / "a.mp4", make_scenes([50, 70]), times=times, time_base=Fraction(1, 48))
    with open_video(path) as video:
        timeline, cuts = look(video, ShotConfig())
        kept, short = spans(timeline, cuts, ShotConfig())
        borders = [video.seconds(int(timeline.pts[span.first])) for span in kept]
    assert borders == pytest.approx([0.0, times[50] / 48])
    assert short == []


def test_a_broken_video_is_an_error_with_a_code(tmp_path: Path, write_video: Writer) -> None:
    path = write_video(tmp_path / "a.mp4", codec="mpeg4", container="mp4")
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 4
    data[start : start + 2000] = b"\xff" * 2000
    path.write_bytes(data)
    with open_video(path) as video, pytest.raises(VideoError, match="decode_error"):
        look(video, ShotConfig())


def test_what_is_too_short_is_told_apart() -> None:
    kept, short = spans(even(24 * 5), [24, 72], ShotConfig(minimum_seconds=1.5))
    assert kept == [Span(24, 72), Span(72, 120)]
    assert short == [Span(0, 24)]


def test_a_shot_of_just_the_minimum_is_kept() -> None:
    kept, short = spans(even(72), [36], ShotConfig(minimum_seconds=1.5))
    assert kept == [Span(0, 36), Span(36, 72)]
    assert short == []


def test_long_shots_are_divided_evenly() -> None:
    kept, _ = spans(even(24 * 10), [], ShotConfig(minimum_seconds=1, maximum_seconds=4))
    assert kept == [Span(0, 80), Span(80, 160), Span(160, 240)]


def test_a_stride_leaves_a_remainder() -> None:
    config = ShotConfig(detector="stride", stride_seconds=2, minimum_seconds=1)
    assert spans(even(120), [], config) == ([Span(0, 48), Span(48, 96), Span(96, 120)], [])
    assert spans(even(110), [], config) == ([Span(0, 48), Span(48, 96)], [Span(96, 110)])


def test_ends_are_cropped_by_time() -> None:
    config = ShotConfig(crop_start_seconds=0.5, crop_end_seconds=0.25)
    assert spans(even(120), [60], config) == ([Span(12, 54), Span(72, 114)], [])


def test_cropping_may_leave_nothing_and_that_is_told() -> None:
    config = ShotConfig(crop_start_seconds=2, crop_end_seconds=2)
    assert spans(even(240), [48], config) == ([Span(96, 192)], [Span(0, 48)])


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"minimum_seconds": 3, "maximum_seconds": 5}, "maximum_seconds"),
        ({"detector": "stride", "stride_seconds": 1}, "stride_seconds"),
        ({"crop_start_seconds": -1}, "crop_start_seconds"),
        ({"detector": "magic"}, "detector"),
    ],
)
def test_a_contradiction_is_refused_by_name(wrong: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        ShotConfig.parse(wrong)


@settings(max_examples=150, deadline=None)
@given(
    gaps=st.lists(st.integers(1, 40), min_size=2, max_size=200),
    cuts=st.lists(st.integers(-3, 220), max_size=12),
    minimum=st.floats(0.1, 3.0),
    longer=st.floats(2.0, 9.0),
    stride=st.booleans(),
    start=st.integers(-50, 1000),
)
def test_spans_cover_every_frame_once_and_keep_to_their_lengths(
    gaps: list[int], cuts: list[int], minimum: float, longer: float, stride: bool, start: int
) -> None:
    pts = start + np.concatenate([[0], np.cumsum(gaps)])
    timeline = Timeline(pts[:-1], int(pts[-1]), Fraction(1, 24))
    config = ShotConfig(
        detector="stride" if stride else "adaptive",
        minimum_seconds=minimum,
        maximum_seconds=minimum * longer,
        stride_seconds=minimum * longer / 2,
    )
    kept, short = spans(timeline, sorted(set(cuts)), config)
    together = sorted([*kept, *short], key=lambda span: span.first)
    assert [frame for span in together for frame in range(span.first, span.last)] == list(range(len(gaps)))
    slack = max(gaps) / 24
    for span in kept:
        assert (
            minimum - 1e-6 <= timeline.seconds_between(span.first, span.last) <= config.maximum_seconds + slack + 1e-6
        )
    for span in short:
        assert timeline.seconds_between(span.first, span.last) < minimum
    assert together[-1].last == len(gaps)
