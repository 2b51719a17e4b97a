"""An encoder leaves the process what it was: SVT-AV1 turns it, and all that it starts, into real-time ones where it may."""

import io
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import av
import numpy as np
import pytest

from wfm.curation.cut.real_time import ordinary_threads

Cut = Callable[..., object]


def policies() -> set[int]:
    return {os.sched_getscheduler(int(task)) for task in os.listdir("/proc/self/task")}


def encoded(opening: Callable[[], object]) -> tuple[bytes, set[int]]:
    """A film, and how its threads were scheduled while it was written."""
    held = io.BytesIO()
    with av.open(held, "w", format="mp4") as out:
        stream = out.add_stream("libsvtav1", rate=24, options={"svtav1-params": "lp=1", "preset": "12"})
        stream.width = stream.height = 64
        with opening():
            stream.codec_context.open()
        for level in range(8):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8), "rgb24")))
        found = policies()
        out.mux(stream.encode(None))
    return held.getvalue(), found


def test_no_thread_is_left_real_time_and_the_bytes_are_the_same() -> None:
    before = policies()
    written, during = encoded(ordinary_threads)
    assert during == policies() == before
    assert not before & {os.SCHED_FIFO, os.SCHED_RR}
    with ordinary_threads():  # the twin's are put back here, for the tests that follow
        plain, its = encoded(nullcontext)
        if os.geteuid() == 0:
            assert os.SCHED_FIFO in its
    assert plain == written


def test_a_clip_in_av1_leaves_this_process_an_ordinary_one(
    tmp_path: Path, write_video: Callable[..., Path], cut_frames: Cut
) -> None:
    before = policies()
    path = write_video(tmp_path / "a.mp4")
    cut_frames(path, 3, 20, tmp_path / "clip.mp4", encoder="av1")
    assert policies() == before


def test_a_sandbox_that_lets_nobody_ask_ends_no_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with ordinary_threads():
        monkeypatch.setattr("wfm.curation.cut.real_time.os.sched_setscheduler", denied)
        with ordinary_threads():
            pass
        with pytest.raises(ValueError, match="the encoder's own"), ordinary_threads():
            raise ValueError("the encoder's own")


@pytest.mark.skipif(os.geteuid() != 0, reason="real time is for root")
def test_what_was_real_time_before_stays_so() -> None:
    before, policy, priority = policies(), os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        encoded(ordinary_threads)
        assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == (os.SCHED_RR, 1)
    finally:
        os.sched_setscheduler(0, policy, priority)
    assert policies() == before
