"""A picture that changes its size in the middle of a video, as calls over a network do: no clip has two sizes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from wfm.curation.cut.shot_detection import ShotConfig
from wfm.curation.cut.shots import look, spans
from wfm.curation.measure.score import ScoreClip, ScoreConfig
from wfm.curation.one_pass import one_pass
from wfm.curation.step import run_step
from wfm.data.decode import VideoError, open_video
from wfm.records import Clip

SIZES = ((72, 96), (96, 128))


@pytest.fixture
def call(tmp_path: Path, write_video: Callable[..., Path], make_scenes: Callable[..., np.ndarray]) -> Path:
    """50 frames of one size and 46 of another, in one stream; its packets could be copied."""
    options = {"cpu-used": "8", "deadline": "realtime", "lag-in-frames": "0"}
    path, begin = tmp_path / "call.webm", 0
    with av.open(str(path), "w") as out:
        stream: Any = None
        for count, (height, width) in zip((50, 46), SIZES, strict=True):
            frames = make_scenes([count], height=height, width=width)
            piece = write_video(tmp_path / f"{height}.webm", frames, codec="libvpx-vp9", **options)
            with av.open(str(piece)) as source:
                stream = stream or out.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.pts = packet.dts = int(packet.pts or 0) + begin
                        packet.stream = stream
                        out.mux(packet)
            begin = round(1000 * count / 24)
    return path


@pytest.mark.parametrize("detector", ["adaptive", "content", "stride", "whole"])
def test_a_new_size_begins_a_clip(call: Path, detector: str) -> None:
    config = ShotConfig.parse({"detector": detector, "stride_seconds": 1.5})
    with open_video(call) as video:
        timeline, cuts = look(video, config)
        kept, short = spans(timeline, cuts, config)
        sizes = [(frame.height, frame.width) for frame in video.frames()]
    assert len(sizes) == 96
    assert all(len(set(sizes[span.first : span.last])) == 1 for span in [*kept, *short])
    assert 50 in {span.first for span in kept}


def test_a_clip_of_two_sizes_is_told_and_stops_nothing(call: Path, make_row: Callable[..., Clip]) -> None:
    with pytest.raises(VideoError, match=r"size_changes: from 96 x 72 to 128 x 96 at 2\.08"):
        one_pass(call, [])
    rows, left = run_step(ScoreClip(ScoreConfig(), lambda _: call), [make_row("a")])
    assert not rows
    assert left[0].reason.startswith("size_changes")
