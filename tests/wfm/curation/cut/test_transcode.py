"""Clips of any kind of source come out upright, with square pixels, in SDR and limited range, with sound if asked for."""

import hashlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from wfm.curation.cut.cutter import CutConfig, Cutter, Written
from wfm.curation.cut.tone_map import sdr_codes
from wfm.data.decode import open_video, read_frames
from wfm.data.probe import probe
from wfm.errors import ConfigError

Writer = Callable[..., Path]
Cut = Callable[..., Written]
Psnr = Callable[[np.ndarray, np.ndarray], float]


def first_frame(path: Path) -> av.VideoFrame:
    with open_video(path) as video:
        return next(video.frames())


def flat(value: int, count: int = 12) -> np.ndarray:
    return np.full((count, 72, 96, 3), value, np.uint8)


@pytest.mark.parametrize("encoder", ["h264", "hevc", "av1"])
def test_every_encoder_gives_the_right_frames_and_the_same_bytes(
    tmp_path: Path, write_video: Writer, encoder: str, cut_frames: Cut, psnr: Psnr
) -> None:
    path = write_video(tmp_path / "a.mp4")
    for name in ("one.mp4", "two.mp4"):
        assert cut_frames(path, 3, 40, tmp_path / name, encoder=encoder).transcode == "encode"
    assert len({hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("one.mp4", "two.mp4")}) == 1
    found = probe(tmp_path / "one.mp4")
    assert (found.codec.replace("libdav1d", "av1"), found.num_frames) == (encoder, 37)
    frames, seconds = read_frames(tmp_path / "one.mp4")
    assert psnr(frames, read_frames(path)[0][3:40]) > 30
    np.testing.assert_allclose(seconds, np.arange(37) / 24, atol=1e-4)


@pytest.mark.parametrize("encoder", ["h264_nvenc", "hevc_nvenc", "av1_nvenc"])
def test_an_encoder_that_is_not_there_is_named_with_what_to_do(
    tmp_path: Path, write_video: Writer, encoder: str, cut_frames: Cut
) -> None:
    path = write_video(tmp_path / "a.mp4", np.zeros((12, 256, 256, 3), np.uint8))
    if Path("/dev/nvidia0").exists():
        assert cut_frames(path, 1, 12, tmp_path / "b.mp4", encoder=encoder).num_frames == 11
    else:
        with pytest.raises(ConfigError, match=f"{encoder}.*choose h264"):
            cut_frames(path, 1, 12, tmp_path / "b.mp4", encoder=encoder)
    with pytest.raises(ConfigError, match=r"cut\.preset.*veryslow"):
        cut_frames(path, 1, 12, tmp_path / "b.mp4", preset="quick")


def pq(nits: float) -> float:
    """The code (0..1) of a luminance: the inverse of the transfer function under test, SMPTE ST 2084."""
    y = (nits / 10_000) ** 0.1593017578125
    return float(((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375)


def hlg(nits: float) -> float:
    """The code of a grey on a display of 1,000 cd/m2."""
    scene = (nits / 1000) ** (1 / 1.2)
    return (3 * scene) ** 0.5 if scene <= 1 / 12 else 0.17883277 * float(np.log(12 * scene - 0.28466892)) + 0.55991073


def sdr(nits: float, peak: float = 1000.0) -> float:
    x, white = nits / 203, peak / 203
    return 255 * float(min(1.0, x * (1 + x / white**2) / (1 + x)) ** (1 / 2.4))


@pytest.mark.parametrize(("transfer", "code_of"), [("smpte2084", pq), ("arib-std-b67", hlg)])
@pytest.mark.parametrize("nits", [5.0, 203.0, 900.0])
def test_hdr_becomes_sdr_of_the_stated_curve(
    tmp_path: Path, write_video: Writer, transfer: str, code_of: Callable[[float], float], nits: float, cut_frames: Cut
) -> None:
    params = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:log-level=none:lossless=1"
    options = {"pixel_format": "yuv420p10le", "codec": "libx265", "x265-params": params}
    path = write_video(tmp_path / "hdr.mp4", flat(round(255 * code_of(nits))), **options)
    assert cut_frames(path, 0, 12, tmp_path / "sdr.mp4").transcode == "encode", "a copy would stay HDR"
    frame = first_frame(tmp_path / "sdr.mp4")
    assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
    worst = np.abs(read_frames(tmp_path / "sdr.mp4")[0].astype(float) - sdr(nits)).max()
    assert worst < 5  # one step of the 8-bit test picture is up to 4 codes; 709 read as 601 alike for greys
    assert cut_frames(path, 0, 12, tmp_path / "kept.mp4", tone_map=False).transcode == "copy"
    assert first_frame(tmp_path / "kept.mp4").color_trc in (16, 18)


def test_the_tone_curve_keeps_order_hue_and_white() -> None:
    grey = np.geomspace(0.1, 4000, 200, dtype=np.float32)[:, None].repeat(3, 1)
    codes = sdr_codes(grey, 1000.0).astype(int)
    assert (np.diff(codes[:, 0]) >= 0).all()
    assert np.ptp(codes, axis=1).max() <= 1
    assert codes[grey[:, 0] >= 1000].min() == 255
    assert sdr_codes(np.full((1, 3), 1000, np.float32), 4000.0).max() < 255
    red = sdr_codes(np.array([[300, 30, 30]], np.float32), 1000.0)[0].astype(int)
    assert red[0] > 2 * red[1]


@pytest.mark.parametrize("value", [0, 40, 128, 220, 255])
def test_full_range_becomes_limited_range_of_the_same_look(
    tmp_path: Path, write_video: Writer, value: int, cut_frames: Cut
) -> None:
    path = write_video(tmp_path / "full.mkv", flat(value), codec="mjpeg", pixel_format="yuvj420p", q="2")
    assert first_frame(path).color_range == 2
    assert cut_frames(path, 0, 12, tmp_path / "clip.mp4").transcode == "encode"
    assert first_frame(tmp_path / "clip.mp4").color_range == 1
    assert np.abs(read_frames(tmp_path / "clip.mp4")[0].astype(int) - value).max() <= 3


def test_rgb_sources_keep_their_colours(
    tmp_path: Path, write_video: Writer, make_scenes: Any, cut_frames: Cut, psnr: Psnr
) -> None:
    frames = make_scenes([12])
    path = write_video(tmp_path / "rgb.mkv", frames, codec="libx264rgb", pixel_format="rgb24", crf="1")
    cut_frames(path, 0, 12, tmp_path / "clip.mp4", crf=1)
    inner = (slice(None), slice(4, 30), slice(30, 90))  # away from the edges that 4:2:0 blurs
    assert psnr(read_frames(tmp_path / "clip.mp4")[0][inner], frames[inner]) > 30


@pytest.mark.parametrize("rotation", [None, 90])
def test_oblong_pixels_become_square(
    tmp_path: Path, write_video: Writer, rotation: int | None, cut_frames: Cut, psnr: Psnr
) -> None:
    path = write_video(tmp_path / "a.mp4", rotation=rotation, aspect="4/3")
    written = cut_frames(path, 0, 48, tmp_path / "clip.mp4")
    size = (72, 128) if rotation is None else (128, 72)
    assert (written.transcode, (written.height, written.width)) == ("encode", size)
    with open_video(tmp_path / "clip.mp4") as video:
        assert (video.stream.sample_aspect_ratio or 1) == 1
    assert psnr(read_frames(tmp_path / "clip.mp4")[0], read_frames(path, size=size)[0]) > 25
    kept = cut_frames(path, 0, 48, tmp_path / "kept.mp4", square_pixels=False)
    assert sorted((kept.height, kept.width)) == [72, 96]


def with_sound(path: Path, codec: str, *, seconds: int = 4, onset: float = 2.0) -> Path:
    """24 frames a second, and a tone of 16 kHz samples that begins at ``onset``."""
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=24, options={"x264-params": "keyint=24:min-keyint=24:scenecut=0"})
        video.height, video.width, video.pix_fmt = 72, 96, "yuv420p"
        sound: Any = out.add_stream(codec, rate=16000)
        sound.codec_context.layout = "mono"
        form = sound.codec_context.format.name if sound.codec_context.format else "fltp"
        time = np.arange(seconds * 16000) / 16000
        tone = np.where(time >= onset, np.sin(2 * np.pi * 440 * time), 0) * 0.5
        samples = tone.astype(np.float32) if form == "fltp" else (tone * 32767).astype(np.int16)
        for index in range(seconds * 24):
            frame = av.VideoFrame.from_ndarray(np.full((72, 96, 3), index, np.uint8), "rgb24")
            frame.pts = index
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for start in range(0, len(samples) - 1023, 1024):
            piece = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format=form, layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = 16000, start, Fraction(1, 16000)
            out.mux(sound.encode(piece))
        out.mux(sound.encode(None))
    return path


def onset_of(path: Path) -> float:
    """When the tone begins [s]."""
    with av.open(str(path)) as file:
        for frame in file.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray().astype(np.float64).ravel()) > 0.1)
            if len(loud):
                return float(frame.pts * frame.time_base) + loud[0] / frame.sample_rate
    raise AssertionError("no tone")


@pytest.mark.parametrize(("codec", "kind"), [("aac", "mp4"), ("pcm_s16le", "mkv")])
@pytest.mark.parametrize(("first", "way"), [(24, "copy"), (29, "encode")])
def test_sound_is_kept_in_step_or_dropped_by_choice(
    tmp_path: Path, codec: str, kind: str, first: int, way: str, cut_frames: Cut
) -> None:
    path = with_sound(tmp_path / f"a.{kind}", codec)
    assert cut_frames(path, first, 72, tmp_path / "clip.mp4", audio="keep").transcode == way
    found = probe(tmp_path / "clip.mp4")
    assert found.has_audio
    assert found.num_frames == 72 - first
    # A packet is 64 ms here; measured worst: 3 ms, an AAC encoder's pre-echo.
    assert onset_of(tmp_path / "clip.mp4") == pytest.approx(2.0 - first / 24, abs=0.064)
    cut_frames(path, first, 72, tmp_path / "silent.mp4")
    assert not probe(tmp_path / "silent.mp4").has_audio


def test_a_video_without_sound_needs_none(tmp_path: Path, write_video: Writer, cut_frames: Cut) -> None:
    path = write_video(tmp_path / "a.mp4")
    assert cut_frames(path, 3, 40, tmp_path / "clip.mp4", audio="keep").num_frames == 37
    assert not probe(tmp_path / "clip.mp4").has_audio


def test_av1_is_copied_on_key_frames_without_loss(tmp_path: Path, write_video: Writer, cut_frames: Cut) -> None:
    path = write_video(tmp_path / "a.mp4", codec="libsvtav1", preset="12", g="24", **{"svtav1-params": "lp=1"})
    with open_video(path) as video:
        pts = [int(packet.pts) for packet in video.packets() if packet.is_keyframe]
        last = video.end_pts(47 * pts[1] // 24, None) if len(pts) > 1 else 0
    assert len(pts) == 2, "the test file has a key frame in its middle"
    with open_video(path) as video:
        written = Cutter(video, CutConfig()).cut(pts[1], last, 24, tmp_path / "clip.mp4")
    assert written.transcode == "copy"
    np.testing.assert_array_equal(read_frames(tmp_path / "clip.mp4")[0], read_frames(path)[0][24:])
