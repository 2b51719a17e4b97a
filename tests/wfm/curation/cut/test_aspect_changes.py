"""A broadcast that goes from 4:3 to 16:9 in the middle, its size unchanged: each part has its own shape, and no clip two."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from wfm.artifacts import Store
from wfm.curation.cut.split import SplitConfig, SplitVideo
from wfm.data.aspect import Aspects
from wfm.data.decode import open_video, read_frames
from wfm.data.local import known_hash
from wfm.records import Clip, Video

HEIGHT, WIDTH, EACH = 72, 88, 40
ASPECTS = (Fraction(12, 11), Fraction(16, 11), Fraction(1))


def broadcast(
    path: Path,
    codec: str,
    scenes: Callable[..., np.ndarray],
    b_frames: int = 0,
    aspects: tuple[Fraction, ...] = ASPECTS,
) -> Path:
    """40 frames of each aspect, in one stream."""
    pictures = scenes([EACH * len(aspects)], height=HEIGHT, width=WIDTH)
    with av.open(str(path), "w") as out:
        target: Any = None
        for number, aspect in enumerate(aspects):
            with av.open(str(path.with_suffix(f".{number}.ts")), "w") as piece:
                stream: Any = piece.add_stream(
                    codec, rate=25, options={"x264-params": "log-level=none"} if "264" in codec else {}
                )
                stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
                context = stream.codec_context
                context.sample_aspect_ratio, context.max_b_frames, context.gop_size, context.bit_rate = (
                    aspect,
                    b_frames,
                    10,
                    2_000_000,
                )
                for index in range(EACH):
                    frame = av.VideoFrame.from_ndarray(pictures[number * EACH + index], "rgb24")
                    frame.pts = index
                    piece.mux(stream.encode(frame))
                piece.mux(stream.encode(None))
            with av.open(str(path.with_suffix(f".{number}.ts"))) as piece:
                source = piece.streams.video[0]
                target = target or out.add_stream_from_template(source)
                first = source.start_time or 0
                for packet in piece.demux(source):
                    if packet.size:
                        packet.pts += number * EACH * 3600 - first
                        packet.dts += number * EACH * 3600 - first
                        packet.stream = target
                        out.mux(packet)
    return path


def split(path: Path, out: Path, **config: Any) -> list[Clip]:
    store: Any = Store.open(out / "store")
    step = SplitVideo(SplitConfig.parse(config), store, store, out)
    return list(step(Video(source=str(path), name="a", video_id=known_hash(path))))


@pytest.mark.parametrize(("codec", "b_frames"), [("mpeg2video", 0), ("mpeg2video", 2), ("libx264", 3)])
@pytest.mark.parametrize("container", ["ts", "mkv"])
@pytest.mark.parametrize("detector", ["whole", "adaptive"])
def test_a_new_aspect_begins_a_clip_of_its_shape(
    tmp_path: Path, make_scenes: Callable[..., np.ndarray], codec: str, b_frames: int, container: str, detector: str
) -> None:
    """Before: one clip of 96 x 72, its second and third part squeezed."""
    path = broadcast(tmp_path / f"a.{container}", codec, make_scenes, b_frames)
    with open_video(path) as video:
        aspects = Aspects(video)
        frames = (shown.frame for shown in aspects.follow(video.shown()))
        found = [(aspects.of(frame), frame.pts in aspects.changes) for frame in frames]
    assert [aspect for aspect, _ in found] == [aspect for aspect in ASPECTS for _ in range(EACH)]
    assert [index for index, (_, begins) in enumerate(found) if begins] == [EACH, 2 * EACH]
    clips = split(path, tmp_path, shots={"detector": detector})
    assert [(clip.width, clip.height, clip.num_frames) for clip in clips] == [(96, 72, 40), (128, 72, 40), (88, 72, 40)]
    for clip in clips:
        assert read_frames(tmp_path / clip.path)[0].shape[1:3] == (clip.height, clip.width)


def test_packets_of_another_aspect_are_not_copied(tmp_path: Path, make_scenes: Callable[..., np.ndarray]) -> None:
    """The first part has square pixels, so it may be copied, and the others may not. Before: all three were."""
    path = broadcast(tmp_path / "a.mkv", "libx264", make_scenes, aspects=ASPECTS[::-1])
    clips = split(path, tmp_path, shots={"detector": "whole"})
    assert [(clip.transcode, clip.width) for clip in clips] == [("copy", 88), ("encode", 128), ("encode", 96)]


def test_a_container_that_was_put_right_wins(
    tmp_path: Path, write_video: Callable[..., Path], make_scenes: Callable[..., np.ndarray]
) -> None:
    path = write_video(tmp_path / "a.mp4", aspect="4/3")
    with open_video(path) as video:
        aspects = Aspects(video)
        assert {aspects.of(shown.frame) for shown in aspects.follow(video.shown())} == {Fraction(4, 3)}
        assert aspects.changes == set()


@pytest.mark.parametrize("aspect", ["9/1", "1/9"])
def test_an_aspect_that_cannot_be_is_none(
    tmp_path: Path, write_video: Callable[..., Path], make_scenes: Callable[..., np.ndarray], aspect: str
) -> None:
    """Before: pictures of 864 x 72 and 10 x 72."""
    path = write_video(tmp_path / "a.mp4", make_scenes([48]), aspect=aspect)
    (clip,) = split(path, tmp_path, shots={"detector": "whole"})
    assert (clip.width, clip.height) == (96, 72)
