"""Film woven of two moments is found by its pixels, made whole when encoded, never copied unnoticed; whole film stays as it
is."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
import pytest

from tests.wfm.curation.conftest import textured
from wfm.artifacts import Store
from wfm.curation.cut.combing import KEEN, SURE, luma, woven
from wfm.curation.cut.interlaced import Fields, whole_frames
from wfm.curation.cut.split import SplitConfig, SplitVideo
from wfm.data.decode import read_frames
from wfm.data.local import known_hash
from wfm.records import Clip, Video

Moment = Callable[[float], np.ndarray]
HEIGHT, WIDTH, COUNT = 96, 128, 48
Psnr = Callable[[np.ndarray, np.ndarray], float]


def panning(x: float = 6.0, y: float = 0.0, cell: int = 1) -> Moment:
    """uint8 [H, W, 3], grey, at a time in frames; cell: magnified so many times, which makes fine hard lines."""
    world = textured(3, (HEIGHT + 160) // cell, (WIDTH + 320) // cell)[..., :1].repeat(3, -1)
    world = (2.5 * (world - 128.0) + 128).clip(0, 255).astype(np.uint8)
    world = np.kron(world, np.ones((cell, cell, 1), np.uint8)) if cell > 1 else world

    def at(time: float) -> np.ndarray:
        top, left = round(y * time) % 160, round(x * time) % 320
        return world[top : top + HEIGHT, left : left + WIDTH]

    return at


def weave(even: np.ndarray, odd: np.ndarray) -> np.ndarray:
    made = even.copy()
    made[1::2] = odd[1::2]
    return made


def whole(at: Moment, count: int = COUNT) -> list[np.ndarray]:
    return [at(time) for time in range(count)]


def top_first(at: Moment, count: int = COUNT) -> list[np.ndarray]:
    return [weave(at(time), at(time + 0.5)) for time in range(count)]


def bottom_first(at: Moment, count: int = COUNT) -> list[np.ndarray]:
    return [weave(at(time + 0.5), at(time)) for time in range(count)]


def telecined(at: Moment, count: int = COUNT) -> list[np.ndarray]:
    """Four pictures make five frames, of which the third and the fourth are woven."""
    pairs = ((0, 0), (1, 1), (1, 2), (2, 3), (3, 3))
    return [weave(*(at(4 * (n // 5) + k) for k in pairs[n % 5])) for n in range(count)]


def found(frames: list[np.ndarray], **how: Any) -> list[int]:
    """1: woven, the even lines first; -1: the odd ones; 0: whole."""
    grey = [np.ascontiguousarray(frame[..., 1]) for frame in frames]
    care = how.get("care", SURE)
    each = [
        woven(before, now, after, care)
        for before, now, after in zip([None, *grey], grey, [*grey[1:], None], strict=False)
    ]
    return [(1 if one.top_first > one.bottom_first else -1) if one.found(care) else 0 for one in each]


@pytest.mark.parametrize("speed", [(4.0, 0.0), (6.0, 0.0), (5.0, 3.0), (-8.0, 1.0)])
def test_pixels_tell_which_field_was_first(speed: tuple[float, float]) -> None:
    at = panning(*speed)
    assert found(whole(at, 10)) == [0] * 10
    assert found(top_first(at, 10)) == [1] * 10
    assert found(bottom_first(at, 10)) == [-1] * 10
    assert found(telecined(at, 10)) == [0, 0, 1, 1, 0] * 2


@pytest.mark.parametrize("care", [SURE, KEEN])
def test_fine_lines_and_noise_are_not_woven(care: Any) -> None:
    """Lines of one row are where every measure of one frame alone fails."""
    rng = np.random.default_rng(0)
    stripes = np.zeros((HEIGHT + 40, WIDTH, 3), np.uint8)
    stripes[::2] = 200
    films = [
        [stripes[n * step : n * step + HEIGHT] for n in range(10)] for step in (0, 1, 3)
    ] + [
        [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(10)],
        whole(panning(2, 1, cell=2), 10),
        whole(panning(1, 3, cell=2), 10),
        whole(panning(0, 0, cell=2), 10),
    ]  # fmt: skip
    assert [found(film, care=care) for film in films] == [[0] * 10] * len(films)
    assert np.abs(np.diff(stripes[:HEIGHT].astype(int), axis=0)).min() == 200, (
        "each line stands out from both neighbours"
    )


def film(
    path: Path, frames: list[np.ndarray], codec: str, pixel_format: str = "yuv420p", *, flag: str = "", **options: str
) -> Path:
    """flag: tff or bff, what the frames say of themselves."""
    from av.codec.context import Flags

    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pixel_format
        stream.codec_context.bit_rate = 8_000_000
        if flag and codec == "mpeg2video":
            stream.codec_context.flags |= Flags.interlaced_dct | Flags.interlaced_me
        for index, frame in enumerate(flagged(frames, pixel_format, flag)):
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def flagged(frames: list[np.ndarray], pixel_format: str, flag: str) -> Iterator[av.VideoFrame]:
    graph: Any = av.filter.Graph()
    source = graph.add_buffer(width=WIDTH, height=HEIGHT, format=pixel_format, time_base=Fraction(1, 25))
    graph.link_nodes(source, graph.add("setfield", flag or "prog"), graph.add("buffersink")).configure()
    for pixels in frames:
        graph.push(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24").reformat(format=pixel_format))
        yield graph.pull()


def split(path: Path, out: Path, **config: Any) -> tuple[list[Clip], list[str]]:
    """(clips, reasons of skips)."""
    store: Any = Store.open(out / "store")
    step = SplitVideo(SplitConfig.parse({"shots": {"detector": "stride"}, **config}), store, store, out)
    clips = list(step(Video(source=str(path), name="a", video_id=known_hash(path))))
    return clips, [skip.reason for skip in step.skips]


KINDS: dict[str, tuple[Any, ...]] = {
    "MPEG-2 that says so": (top_first, "a.ts", "mpeg2video", "yuv420p", {"flag": "tff"}),
    "bottom first": (bottom_first, "a.ts", "mpeg2video", "yuv420p", {"flag": "bff"}),
    "MPEG-2 that names the wrong field": (bottom_first, "a.ts", "mpeg2video", "yuv420p", {"flag": "tff"}),
    "H.264 that could be copied": (top_first, "a.mp4", "libx264", "yuv420p", {"flag": "tff", "x264-params": "tff=1"}),
    "H.264 that says nothing": (bottom_first, "a.mp4", "libx264", "yuv420p", {}),
    "ProRes": (top_first, "a.mov", "prores_ks", "yuv422p10le", {}),
    "packed 4:2:2": (top_first, "a.nut", "rawvideo", "uyvy422", {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_interlaced_film_becomes_whole_frame_by_frame(tmp_path: Path, psnr: Psnr, kind: str) -> None:
    """Before: as with keep here, copied or encoded, its frames woven, at 20.0 dB from what the camera saw at their times."""
    make, name, codec, pixel_format, options = KINDS[kind]
    path = film(tmp_path / name, make(panning()), codec, pixel_format, **options)
    truth = np.stack(whole(panning()))
    ratios = {}
    for way in ("deinterlace", "keep"):
        (clip,), _ = split(path, tmp_path / way, cut={"interlaced": way, "crf": 12})
        assert clip.interlaced == {"deinterlace": "deinterlaced", "keep": "combed"}[way]
        frames, seconds = read_frames(tmp_path / way / clip.path)
        np.testing.assert_allclose(seconds, np.arange(COUNT) / 25, atol=1e-4)
        count = sum(map(abs, found(list(frames))))
        assert count == 0 if way == "deinterlace" else count > 0.8 * COUNT
        ratios[way] = psnr(frames, truth)
        if way == "deinterlace":
            assert clip.transcode == "encode"
    assert ratios["keep"] < 21, "the measure tells them apart"
    assert ratios["deinterlace"] > 36
    assert split(path, tmp_path / "none", cut={"interlaced": "reject"}) == (
        [],
        ["interlaced: frames are woven of two moments"],
    )
    assert not list(tmp_path.glob("none/clips/*"))


def test_only_woven_frames_are_touched() -> None:
    """Of telecined film three frames in five pass as they are, the very objects, and the two others are near their first
    picture."""
    frames = list(flagged(telecined(panning(), 30), "yuv420p", ""))
    for index, frame in enumerate(frames):
        frame.pts, frame.time_base, frame.duration = 7 + 3 * index, Fraction(1, 75), 3
    made = list(whole_frames(iter(frames), Fields(flagged=False, combed=True)))
    assert [frame is source for frame, source in zip(made, frames, strict=True)] == [True, True, False, False, True] * 6
    assert [(frame.pts, frame.duration) for frame in made] == [(7 + 3 * index, 3) for index in range(30)]
    clean = list(flagged(whole(panning(), 24), "yuv420p", ""))
    for index in (2, 3, 12, 13):
        error = np.abs(luma(made[index]).astype(int) - luma(clean[4 * (index // 5) + index % 5 - 1])).mean()
        assert error < 4, "half of its lines are that picture's own"


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "way"),
    [
        ("a.ts", "mpeg2video", "yuv420p", "encode"),
        ("a.mp4", "libx264", "yuv420p", "copy"),
        ("a.mkv", "ffv1", "yuv422p", "encode"),
    ],
)
def test_whole_film_that_says_it_is_interlaced_stays_as_it_is(
    tmp_path: Path, name: str, codec: str, pixel_format: str, way: str
) -> None:
    """Bit by bit what it is without deinterlacing, and without the flag where the same pixels can be had: before, the colours
    of flagged 4:2:2 were brought to 4:2:0 field by field, which mixes the lines of whole frames wrongly."""
    options = {"x264-params": "tff=1"} if codec == "libx264" else {}
    path = film(tmp_path / name, whole(panning()), codec, pixel_format, flag="tff", **options)
    (clip,), _ = split(path, tmp_path / "made")
    (kept,), _ = split(path, tmp_path / "kept", cut={"interlaced": "keep"})
    assert (clip.transcode, clip.interlaced) == (way, "flagged")
    assert clip == kept
    if codec == "ffv1":
        plain = film(tmp_path / "plain.mkv", whole(panning()), codec, pixel_format)
        (unflagged,), _ = split(plain, tmp_path / "plain")
        assert unflagged.interlaced == ""
        assert unflagged.clip_sha256 == clip.clip_sha256


@pytest.mark.parametrize("kind", ["MPEG-2 that says so", "H.264 that says nothing"])
def test_one_decode_gives_what_two_give(tmp_path: Path, kind: str) -> None:
    make, name, codec, pixel_format, options = KINDS[kind]
    path = film(tmp_path / name, make(panning(), 120), codec, pixel_format, **options)
    shots = {"detector": "adaptive", "maximum_seconds": 3.1}
    made = [split(path, tmp_path / str(held), shots=shots, held_bytes=held) for held in (0, 70 * 18432, 1 << 28)]
    assert [clip.interlaced for clip in made[0][0]] == ["deinterlaced"] * 2
    assert made[0] == made[1] == made[2]
