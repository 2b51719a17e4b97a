"""Every mp4 that we write says which colours it has, and has them."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from wfm.curation.caption.caption_windows import film, jpeg
from wfm.data.decode import iter_frames
from wfm.evaluation.example_videos import encode_mp4
from wfm.generation.write_video import write_mp4
from wfm.simulation.write import Mp4Writer

COLOURS = [
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (200, 120, 60),
    (255, 255, 255),
    (0, 0, 0),
    (128, 128, 128),
    (255, 220, 180),
]
SIZES = [(64, 64), (720, 1280)]


def bars(height: int, width: int) -> np.ndarray:
    frames = np.zeros((3, height, width, 3), np.uint8)
    for place, colour in enumerate(COLOURS):
        frames[:, :, place * width // 8 : (place + 1) * width // 8] = colour
    return frames


def middles(picture: np.ndarray) -> np.ndarray:
    """The colour in the middle of each bar [8, 3]."""
    width = picture.shape[1]
    return np.array([picture[picture.shape[0] // 2, (2 * place + 1) * width // 16] for place in range(8)]).astype(int)


def simulated(path: Path, frames: np.ndarray, codec: str = "libx264") -> None:
    with Mp4Writer(path, size=frames.shape[1], fps=24, codec=codec, crf=10) as writer:
        for frame in frames:
            writer.write(frame)


WRITERS = {
    "generated": lambda path, frames: write_mp4(path, frames, 24.0),
    "example": lambda path, frames: path.write_bytes(encode_mp4(frames, 24.0, quality=10)),
    "caption": lambda path, frames: path.write_bytes(film([jpeg(frame) for frame in frames], 24.0)),
    "simulated": simulated,
    "simulated mpeg4": lambda path, frames: simulated(path, frames, "mpeg4"),
    "simulated vp9": lambda path, frames: simulated(path, frames, "libvpx-vp9"),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_says_its_colours_and_has_them(tmp_path, name, size):
    # Before: every tag was "unspecified", and what a player takes for BT.709 showed green as (0, 215, 0).
    if name.startswith("simulated") and size != SIZES[0]:
        size = (128, 128)  # its pictures are square
    frames, path = bars(*size), tmp_path / "a.mp4"
    WRITERS[name](path, frames)
    matrix = 6 if name.startswith("simulated") else 1
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        frame = next(container.decode(video=0))
        for holder in (context, frame):
            tags = [int(getattr(holder, t)) for t in ("colorspace", "color_range", "color_primaries", "color_trc")]
            assert tags == [matrix, 1, 1, 1]
        shown = frame.reformat(format="rgb24", src_colorspace="ITU709" if matrix == 1 else "ITU601").to_ndarray()
    loss = 6 if name in ("caption", "simulated mpeg4") else 2  # a JPEG between, and a codec at a low rate
    wanted = middles(frames[0])
    assert np.abs(middles(shown) - wanted).max() <= loss
    assert np.abs(middles(next(iter_frames(path))[0]) - wanted).max() <= loss
    other = frame.reformat(format="rgb24", src_colorspace="ITU601" if matrix == 1 else "ITU709").to_ndarray()
    assert np.abs(middles(other) - wanted).max() > 20  # so that the test can tell them apart


def test_the_container_and_the_stream_each_say_it(tmp_path):
    write_mp4(tmp_path / "a.mp4", bars(64, 64), 24.0)
    whole = (tmp_path / "a.mp4").read_bytes()
    place = whole.index(b"colrnclx") + 8
    assert [int.from_bytes(whole[place + 2 * k : place + 2 * k + 2], "big") for k in range(3)] == [1, 1, 1]
    assert whole[place + 6] >> 7 == 0  # limited range
    bare = io.BytesIO()
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        plain = BitStreamFilterContext("h264_mp4toannexb", stream)
        for packet in container.demux(stream):
            for part in plain.filter(packet):
                bare.write(bytes(part))
    bare.seek(0)
    with av.open(bare, format="h264") as container:
        frame = next(container.decode(video=0))
        assert [int(v) for v in (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)] == [
            1,
            1,
            1,
            1,
        ]
