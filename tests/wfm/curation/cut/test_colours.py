"""Colours stay what they were, whatever a source keeps them in; what is transparent lies on a stated ground."""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from wfm.curation.cut.cutter import CutConfig, Cutter, Written
from wfm.data.decode import open_video
from wfm.errors import ConfigError

Cut = Callable[..., Written]
COLOURS = np.array(
    [[[40, 90, 170], [220, 180, 60], [235, 60, 40], [128, 128, 128]],
     [[16, 16, 16], [235, 235, 235], [60, 200, 140], [200, 10, 190]]],
    dtype=np.uint8,
)  # fmt: skip
PICTURE = np.kron(COLOURS, np.ones((16, 16, 1), np.uint8))
GREYS = (COLOURS @ [0.299, 0.587, 0.114])[..., None].repeat(3, -1)
WEIGHTS = {1: (0.2126, 0.0722)}


def shown(path: Path) -> np.ndarray:
    """float64 [2, 4, 3]: the colours of a clip by its own tags, worked out by hand; limited range unless it says otherwise."""
    with open_video(path) as video:
        frame = next(video.frames())
    assert frame.format.name == "yuv420p"
    assert int(frame.colorspace) != 0, "4:2:0 has no gbr matrix"
    assert int(frame.color_range) != 2
    y, u, v = (
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width].astype(float)
        for plane in frame.planes[:3]
    )
    red, blue = WEIGHTS.get(int(frame.colorspace), (0.299, 0.114))
    y, u, v = y[8::16, 8::16], u[4::8, 4::8], v[4::8, 4::8]
    y, u, v = (y - 16) * 255 / 219, (u - 128) * 255 / 224, (v - 128) * 255 / 224
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1)


def film(path: Path, codec: str, pixel_format: str, frames: Callable[[], Any], **tags: int) -> Path:
    """12 frames; ``frames`` makes one, or the packet of one."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=24, options={"auto-alt-ref": "0"} if "vpx" in codec else {})
        stream.height, stream.width, stream.pix_fmt = *PICTURE.shape[:2], pixel_format
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for index in range(12):
            made = frames()
            made.pts = index
            if isinstance(made, av.Packet):
                made.dts, made.duration, made.time_base, made.is_keyframe, made.stream = (
                    index,
                    1,
                    Fraction(1, 24),
                    True,
                    stream,
                )
                out.mux(made)
                continue
            for name, value in tags.items():
                setattr(made, name, value)
            out.mux(stream.encode(made))
        out.mux(stream.encode(None))
    return path


def rgb(pixel_format: str, **how: Any) -> Callable[[], av.VideoFrame]:
    return lambda: av.VideoFrame.from_ndarray(PICTURE, "rgb24").reformat(format=pixel_format, **how)


def png(mode: str) -> Callable[[], av.Packet]:
    def make() -> av.Packet:
        from PIL import Image

        data, image = io.BytesIO(), Image.fromarray(PICTURE)
        (image.quantize(16) if mode == "P" else image.convert(mode)).save(data, "png")
        return av.Packet(data.getvalue())

    return make


def limited_grey(bits: int) -> Callable[[], av.VideoFrame]:
    grey = np.round((16 + 219 / 255 * (PICTURE @ [0.299, 0.587, 0.114])) * 2 ** (bits - 8))
    if bits == 8:
        return lambda: av.VideoFrame.from_ndarray(grey.astype(np.uint8), "gray")
    return lambda: av.VideoFrame.from_ndarray(grey.astype(np.uint16), f"gray{bits}le")


FULL = {"dst_colorspace": "ITU709", "src_color_range": 2, "dst_color_range": 2}
KINDS: dict[str, tuple[Any, ...]] = {
    "palette": ("png", "rgb24", png("P"), {}),
    "rgb of png": ("png", "rgb24", png("RGB"), {}),
    "grey of png": ("png", "gray", png("L"), {}),
    "planes of rgb": ("ffv1", "gbrp12le", rgb("gbrp12le"), {}),
    "48 bits": ("rawvideo", "bgr48le", rgb("bgr48le"), {}),
    "with alpha": ("ffv1", "bgra", rgb("bgra"), {}),
    "grey": ("ffv1", "gray", rgb("gray"), {}),
    "grey of 10 bits": ("ffv1", "gray10le", rgb("gray10le"), {}),
    "limited grey": ("ffv1", "gray", limited_grey(8), {"color_range": 1}),
    "limited grey of 10 bits": ("ffv1", "gray10le", limited_grey(10), {"color_range": 1}),
    "full range of 12 bits": ("ffv1", "yuv444p12le", rgb("yuv444p12le", **FULL), {"colorspace": 1, "color_range": 2}),
    "a tag that cannot be": ("ffv1", "yuv444p", rgb("yuv444p"), {"colorspace": 0}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_colours_are_those_of_the_source(tmp_path: Path, cut_frames: Cut, kind: str) -> None:
    """Before: a palette, the grey of PNG and the impossible tag had the gbr matrix; limited greys were 17 levels off."""
    codec, pixel_format, frames, tags = KINDS[kind]
    path = film(
        tmp_path / ("a.mov" if codec == "png" else "a.nut" if codec == "rawvideo" else "a.mkv"),
        codec,
        pixel_format,
        frames,
        **tags,
    )
    written = cut_frames(path, 0, 12, tmp_path / "clip.mp4", crf=4)
    assert written.transcode == "encode"
    np.testing.assert_allclose(shown(tmp_path / "clip.mp4"), GREYS if "grey" in kind else COLOURS, atol=2)


def test_what_only_the_container_says_of_colours_counts(tmp_path: Path) -> None:
    """ProRes whose pictures say nothing of their matrix. Before: untagged, so read as BT.601, 32 levels off."""
    with av.open(str(tmp_path / "a.mov"), "w") as out:
        stream: Any = out.add_stream("prores_ks", rate=24)
        stream.height, stream.width, stream.pix_fmt = *PICTURE.shape[:2], "yuv422p10le"
        for tag in ("colorspace", "color_primaries", "color_trc"):
            setattr(stream.codec_context, tag, 1)
        for index in range(12):
            frame = rgb("yuv422p10le", dst_colorspace="ITU709")()
            frame.pts = index
            for packet in stream.encode(frame):
                data = bytearray(bytes(packet))
                data[22:25] = b"\x02\x02\x02"  # primaries, transfer and matrix of the frame header: unknown
                silent = av.Packet(bytes(data))
                silent.pts, silent.dts, silent.time_base, silent.stream = (
                    packet.pts,
                    packet.dts,
                    packet.time_base,
                    stream,
                )
                silent.is_keyframe = True
                out.mux(silent)
    with open_video(tmp_path / "a.mov") as video:
        end = video.end_pts(11 * video.tick, None)
        Cutter(video, CutConfig(crf=4)).cut(0, end, 12, tmp_path / "clip.mp4")
    np.testing.assert_allclose(shown(tmp_path / "clip.mp4"), COLOURS, atol=2.5)


def transparent(pixel_format: str, *, premultiplied: bool = False) -> Callable[[], av.VideoFrame]:
    """The upper row at a quarter, the lower one opaque."""
    alpha = np.full((*PICTURE.shape[:2], 1), 255, np.uint8)
    alpha[:16] = 64
    colour = (PICTURE * (alpha / 255)).round().astype(np.uint8) if premultiplied else PICTURE
    return lambda: av.VideoFrame.from_ndarray(np.concatenate([colour, alpha], -1), "rgba").reformat(format=pixel_format)


@pytest.mark.parametrize(
    ("codec", "pixel_format", "name"),
    [
        ("qtrle", "argb", "a.mov"),
        ("ffv1", "gbrap12le", "a.mkv"),
        ("ffv1", "yuva444p", "a.mkv"),
        ("png", "rgba", "a.mov"),
        ("prores_ks", "yuva444p10le", "a.mov"),
        ("libvpx-vp9", "yuva420p", "a.webm"),
    ],
)
@pytest.mark.parametrize("ground", ["#000000", "#00c828"])
@pytest.mark.parametrize("premultiplied", [False, True])
def test_transparent_pictures_lie_on_the_stated_ground(
    tmp_path: Path, cut_frames: Cut, codec: str, pixel_format: str, name: str, ground: str, premultiplied: bool
) -> None:
    """Before: whatever stood under the alpha, up to 176 levels away, and VP9 with alpha was copied without it."""
    path = film(tmp_path / name, codec, pixel_format, transparent(pixel_format, premultiplied=premultiplied))
    alpha = "premultiplied" if premultiplied else "straight"
    written = cut_frames(path, 0, 12, tmp_path / "clip.mp4", crf=4, ground=ground, alpha=alpha)
    assert written.transcode == "encode"
    expected = COLOURS.astype(float)
    expected[0] = expected[0] * 64 / 255 + np.array(list(bytes.fromhex(ground[1:]))) * 191 / 255
    np.testing.assert_allclose(shown(tmp_path / "clip.mp4"), expected, atol=6 if "vpx" in codec else 2.5)


def test_a_ground_is_a_colour() -> None:
    with pytest.raises(ConfigError, match="ground"):
        CutConfig.parse({"ground": "green"})
