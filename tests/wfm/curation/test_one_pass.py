"""One decode gives everybody exactly what a decode of their own would have given, in bounded memory."""

import threading
import weakref
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.wfm.curation.measure.plain_frames import read_plain_frames
from wfm.curation.cut import shots
from wfm.curation.cut.shot_detection import ShotConfig
from wfm.curation.embed.embed import FRAMES, SIDE, sample_frames
from wfm.curation.measure.frame_sampling import FrameSampling, still_indices
from wfm.curation.measure.motion import VectorSum
from wfm.curation.one_pass import Consumer, Geometry, Moment, Wanted, fitted, one_pass, packet_seconds
from wfm.curation.one_pass_consumers import Cuts, Gather, at_middles, spread_frames
from wfm.curation.prefetch import ahead
from wfm.data.decode import VideoError, open_video, read_frames

Writer = Callable[..., Path]


def detector() -> Callable[[int, np.ndarray], list[int]]:
    """A simple one: a cut where the mean colour jumps."""
    last: list[np.ndarray] = []

    def detect(index: int, picture: np.ndarray) -> list[int]:
        mean = picture.reshape(-1, 3).mean(axis=0)
        jumped = bool(last) and float(np.abs(mean - last[-1]).max()) > 20
        last[:] = [mean]
        return [index] if jumped else []

    return detect


def sampled(path: Path) -> np.ndarray:
    """The embedding's frames, the plain way: all frames are held, then eight are taken."""
    frames, seconds = read_frames(path, size=(SIDE, SIDE))
    frame = (seconds[-1] - seconds[0]) / max(len(seconds) - 1, 1)
    moments = seconds[0] + (np.arange(FRAMES) + 0.5) / FRAMES * (seconds[-1] - seconds[0] + frame)
    return frames[np.clip(np.searchsorted(seconds, moments + 1e-6, side="right") - 1, 0, len(seconds) - 1)]


@pytest.mark.parametrize("prefetch_bytes", [0, 1, 1 << 20])
@pytest.mark.parametrize("kind", ["plain", "b frames", "turned", "uneven"])
def test_all_consumers_get_what_their_own_decode_gives(
    tmp_path: Path, write_video: Writer, make_scenes: Callable[..., np.ndarray], kind: str, prefetch_bytes: int
) -> None:
    frames = make_scenes([30, 25])
    times = np.cumsum(np.resize([1, 4, 2], 55)).tolist()
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"x264-params": "bframes=0"},
        "b frames": {"x264-params": "bframes=3:b-adapt=0"},
        "turned": {"rotation": 90},
        "uneven": {"times": times, "time_base": Fraction(1, 48)},
    }
    path = write_video(tmp_path / "a.mp4", frames, **kinds[kind])
    vectors, small, spread = VectorSum(), Gather(Wanted("gray", fitted(64))), spread_frames(FRAMES, (SIDE, SIDE))
    large = fitted(256, enlarge=False)
    stills = Gather(Wanted("gray", large, frames=lambda geometry: still_indices(16, len(geometry.seconds))))
    cuts = Cuts(detector)
    everybody: list[Consumer] = [vectors, small, stills, spread, cuts]
    passed = one_pass(path, everybody, prefetch_bytes=prefetch_bytes)
    assert (passed.frames, passed.decodes) == (55, 1)
    alone = read_plain_frames(path, FrameSampling(), expected_frames=55)
    assert vectors.result() == alone.motion
    np.testing.assert_array_equal(small.pictures(), alone.thumbnails)
    np.testing.assert_array_equal(small.seconds(), alone.seconds)
    np.testing.assert_array_equal(stills.pictures(), alone.stills)
    np.testing.assert_array_equal(at_middles(spread.pictures(), small.seconds(), FRAMES), sampled(path))
    np.testing.assert_array_equal(sample_frames(path), sampled(path))
    assert cuts.result() == [30]


def test_shot_detection_is_a_consumer_with_equal_results(
    tmp_path: Path, write_video: Writer, make_scenes: Callable[..., np.ndarray]
) -> None:
    path = write_video(tmp_path / "a.mp4", make_scenes([30, 25, 40], height=180, width=240))
    config = ShotConfig(detector="content")
    with open_video(path) as video:
        timeline, expected = shots.look(video, config)

    def make() -> Callable[[int, np.ndarray], list[int]]:
        from scenedetect import FrameTimecode
        from scenedetect.detectors import ContentDetector

        found = ContentDetector(threshold=config.content_threshold, min_scene_len=0)
        return lambda index, image: [cut.frame_num for cut in found.process_frame(FrameTimecode(index, 25.0), image)]

    cuts = Cuts(make, config.detection_side)
    one_pass(path, [cuts])
    assert cuts.result() == expected == [30, 55]
    assert len(timeline.pts) == 95


def test_times_are_known_before_anything_is_decoded(tmp_path: Path, write_video: Writer) -> None:
    path = write_video(tmp_path / "a.mp4", **{"x264-params": "bframes=3:b-adapt=0"})
    with open_video(path) as video:
        np.testing.assert_array_equal(packet_seconds(video), read_frames(path)[1])


def test_packets_that_tell_other_times_than_the_frames_cost_a_second_decode(
    tmp_path: Path, write_video: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setattr("wfm.curation.one_pass.packet_seconds", lambda video: np.arange(90) / 24)
    spread = spread_frames(FRAMES, (SIDE, SIDE))
    assert one_pass(path, [spread]).decodes == 2
    np.testing.assert_array_equal(at_middles(spread.pictures(), read_frames(path)[1], FRAMES), sampled(path))


def test_one_form_is_scaled_once_for_all_who_want_it(
    tmp_path: Path, write_video: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wfm.data.decode

    calls = []
    real = wfm.data.decode.to_array

    def counted(frame: Any, **named: Any) -> np.ndarray:
        calls.append(named["size"])
        return real(frame, **named)

    monkeypatch.setattr(wfm.data.decode, "to_array", counted)
    both = [Gather(Wanted("gray", fitted(32))), Gather(Wanted("gray", fitted(32)))]
    one_pass(write_video(tmp_path / "a.mp4"), both)
    assert calls == [(24, 32)] * 48
    np.testing.assert_array_equal(both[0].pictures(), both[1].pictures())


@pytest.mark.parametrize("prefetch_bytes", [0, 1 << 20])
def test_a_video_that_breaks_off_is_told_and_leaves_no_thread(
    tmp_path: Path, write_video: Writer, prefetch_bytes: int
) -> None:
    whole = write_video(tmp_path / "a.mp4", flags="faststart").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "empty.mp4").touch()
    for name in ("cut.mp4", "empty.mp4"):
        with pytest.raises(VideoError):
            one_pass(tmp_path / name, [Gather(Wanted("gray", fitted(32)))], prefetch_bytes=prefetch_bytes)
    assert not [thread for thread in threading.enumerate() if thread.name == "wfm-prefetch"]


def test_prefetch_never_holds_more_bytes_than_it_may() -> None:
    made, used = [0], [0]
    highest = [0]

    def source() -> Iterator[bytes]:
        for index in range(50):
            item = bytes(10 + index % 7)
            made[0] += len(item)
            highest[0] = max(highest[0], made[0] - used[0])
            yield item

    with ahead(source(), 64, len) as items:
        for item in items:
            used[0] += len(item)
    assert used[0] == made[0]
    assert highest[0] <= 64 + 2 * 16  # what waits, and one item in hand on either side


def test_prefetch_ends_when_its_user_leaves_and_hands_on_errors() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 10

    with ahead(endless(), 100, len) as items:
        assert next(items) == b"x" * 10
    assert not [thread for thread in threading.enumerate() if thread.name == "wfm-prefetch"]

    def failing() -> Iterator[bytes]:
        yield b"first"
        raise OSError("gone")

    with ahead(failing(), 100, len) as items:
        assert next(items) == b"first"
        with pytest.raises(OSError, match="gone"):
            next(items)


@pytest.mark.parametrize("prefetch_bytes", [0, 100_000])
def test_pictures_do_not_pile_up_however_long_the_video(
    tmp_path: Path, write_video: Writer, make_scenes: Callable[..., np.ndarray], prefetch_bytes: int
) -> None:
    class Slow:
        """Keeps no picture, but counts those that live."""

        def __init__(self) -> None:
            self.alive: list[weakref.ref[np.ndarray]] = []
            self.most = 0

        def wants(self) -> Wanted:
            return Wanted("rgb24")

        def begin(self, geometry: Geometry) -> None:
            pass

        def feed(self, moment: Moment) -> None:
            assert moment.picture is not None
            self.alive = [*(ref for ref in self.alive if ref() is not None), weakref.ref(moment.picture)]
            self.most = max(self.most, len(self.alive))

        def finish(self) -> None:
            pass

    most = []
    for length in (20, 200):
        slow = Slow()
        path = write_video(tmp_path / f"{length}.mp4", make_scenes([length]))
        one_pass(path, [slow], prefetch_bytes=prefetch_bytes)
        most.append(slow.most)
    assert most[0] == most[1] <= 2  # the one fed, and the one before it until the loop lets go of it


@pytest.mark.parametrize(("ending", "times"), [("mp4", 1), ("ts", 2)])
def test_a_video_is_opened_once_whoever_looks_or_twice_where_it_has_no_index(
    tmp_path: Path, write_video: Writer, monkeypatch: pytest.MonkeyPatch, ending: str, times: int
) -> None:
    import av

    path, opened, real = write_video(tmp_path / f"a.{ending}"), [""], av.open

    def counted(name: str, **named: Any) -> Any:
        opened.append(name)
        return real(name, **named)

    monkeypatch.setattr(av, "open", counted)
    for consumers in (1, 12):
        opened.clear()
        one_pass(path, [Gather(Wanted("gray", fitted(16 + k))) for k in range(consumers)])
        assert len(opened) == times  # for the packets' times, and to decode
