"""Decoded frames of any kind -> an encoded video that every player and trainer opens: upright, square pixels, even size, SDR,
opaque.

What is asked decides the encoder, never the machine: a clip's bytes enter keys, so "NVENC if it happens to be there" would give
one key two results. Asking for an encoder that is not there is an error that names the choices.
"""

import dataclasses
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pydantic

from wfm.config import Config
from wfm.curation.cut.alpha import has_alpha, rgb_on_ground, yuv_on_ground
from wfm.curation.cut.real_time import ordinary_threads
from wfm.data.colour import BT601, BT709, LIMITED_RANGE
from wfm.data.x264 import STEADY, Speed
from wfm.errors import ConfigError

if TYPE_CHECKING:
    import av

    from wfm.data.orientation import Orientation

Encoder = Literal["h264", "hevc", "av1", "h264_nvenc", "hevc_nvenc", "av1_nvenc"]
_LIBRARIES = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1"}
SPEEDS = get_args(Speed)[::-1]  # the slowest first
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_HIGH_DEFINITION = 720
_RGB = 0
_UNKNOWN = 2


class EncodeConfig(Config):
    """How frames become a clip."""

    encoder: Encoder = "h264"
    """h264 (x264), hevc (x265), av1 (SVT-AV1), or the same on an NVIDIA card (``…_nvenc``), which must then be there and does
    not promise the same bytes from one driver to the next."""
    crf: int = pydantic.Field(18, ge=0, le=63)
    "Quality of what is encoded (x264: 0 lossless, 18 nearly so, 51 worst; AV1: up to 63; NVENC: its cq)."
    preset: str = "veryfast"
    "How long the encoder looks for a smaller file, by x264's names from veryslow to ultrafast, for every encoder."
    keyframe_seconds: float = pydantic.Field(1.0, gt=0)
    "Distance of key frames in what is encoded [s]: short ones make random reads cheap."
    square_pixels: bool = True
    "Stretch pictures of oblong pixels to their true aspect: models see pixels, not the tag that players obey."
    tone_map: bool = True
    "Bring HDR (PQ or HLG) to SDR (BT.709); else its codes are kept as they are, in 8 bits."
    hdr_peak_nits: float = pydantic.Field(1000.0, gt=0)
    "Luminance that becomes the brightest SDR white [cd/m2]; brighter is clipped."
    audio: Literal["drop", "keep"] = "drop"
    "keep: packets of the span are copied where an mp4 may hold them, else encoded as AAC; borders lie on whole packets."
    interlaced: Literal["deinterlace", "reject", "keep"] = "deinterlace"
    """Film whose frames are woven of two moments (interlaced, telecined), by their pixels and not by flags alone: deinterlace
    (woven frames become whole ones, the others stay as they are), reject (the span is left out), or keep."""
    ground: str = pydantic.Field("#000000", pattern="^#[0-9a-fA-F]{6}$")
    "The colour that transparent pictures are laid on, as #rrggbb: clips have no alpha."
    alpha: Literal["straight", "premultiplied"] = "straight"
    "What colours mean where a picture is transparent: themselves, or multiplied by alpha already."


@dataclasses.dataclass(frozen=True)
class ContainerTags:
    """What a container says of a video's colours. Some decoders (ProRes) forget it where pictures say nothing."""

    colorspace: int
    color_primaries: int
    color_trc: int
    color_range: int

    @classmethod
    def of(cls, stream: Any) -> "ContainerTags":
        """Of a stream of which nothing was decoded yet."""
        return cls(**{field.name: int(getattr(stream.codec_context, field.name)) for field in dataclasses.fields(cls)})

    def fill(self, frame: "av.VideoFrame") -> "av.VideoFrame":
        """The same frame, told what it does not say itself."""
        for name, value in dataclasses.asdict(self).items():
            if int(getattr(frame, name)) == (0 if name == "color_range" else _UNKNOWN):
                setattr(frame, name, value)
        return frame


@dataclasses.dataclass
class Shape:
    """Decoded frame -> upright frame of even size and square pixels, yuv420p in limited range."""

    graph: Any
    config: EncodeConfig
    hdr_peak_nits: float = 0.0
    "0: no tone mapping."

    @classmethod
    def of(cls, frame: "av.VideoFrame", config: EncodeConfig, aspect: Fraction | None = None) -> "Shape":
        """For frames like ``frame``, whose pixels are ``aspect`` times as wide as high."""
        from wfm.data.orientation import Orientation

        peak = config.hdr_peak_nits if config.tone_map and is_hdr(frame) else 0.0
        width = frame.width
        if config.square_pixels and aspect and aspect != 1:
            width = max(2, round(frame.width * aspect / 2) * 2)
        steps = _filters(Orientation.of(frame), frame, width)
        if not steps:
            return cls(None, config, peak)
        import av.filter

        graph = av.filter.Graph()
        # Turning and cropping 4:2:0 would move colour against brightness by half a pixel.
        last = graph.add_buffer(
            width=frame.width, height=frame.height, format="yuv444p", time_base=frame.time_base or Fraction(1, 90000)
        )
        for name, arguments in [*steps, ("buffersink", "")]:
            node = graph.add(name, arguments) if arguments else graph.add(name)
            last.link_to(node)
            last = node
        graph.configure()
        return cls(graph, config, peak)

    def apply(self, frame: "av.VideoFrame") -> "av.VideoFrame":
        """A new frame; its time is the caller's to set."""
        tags = {name: int(getattr(frame, name)) for name in ("colorspace", "color_primaries", "color_trc")}
        # RGB has no matrix of its own: it gets the one that untagged video of this size is taken for.
        usual = BT709 if frame.height >= _HIGH_DEFINITION else BT601
        see_through, is_rgb = has_alpha(frame), is_rgb_like(frame)
        ground: dict[str, Any] = {
            "ground": rgb_of(self.config.ground),
            "premultiplied": self.config.alpha == "premultiplied",
        }
        if see_through and not is_rgb:
            matrix = usual if tags["colorspace"] in (_RGB, _UNKNOWN) else tags["colorspace"]
            frame = yuv_on_ground(frame, **ground, full=_is_full(frame), matrix=matrix)
        limited = int(frame.color_range) == LIMITED_RANGE
        if self.hdr_peak_nits:
            from wfm.curation.cut.tone_map import to_sdr

            tags = dict.fromkeys(tags, BT709)  # what is written must say what it is
            frame, limited = _from_rgb(to_sdr(frame, self.hdr_peak_nits), BT709), True
        elif is_rgb:
            tags["colorspace"] = usual
            image = rgb_on_ground(frame, **ground) if see_through else frame.to_ndarray(format="rgb24")
            frame, limited = _from_rgb(image, usual), True
        elif _is_full(frame):
            frame, limited = _limited(frame), True
        elif limited and frame.format.name.startswith("gray"):
            frame = _limited_grey(frame)
        if tags["colorspace"] == _RGB:
            tags["colorspace"] = _UNKNOWN  # greys of PNG say so, and YUV has no such matrix
        if self.graph is not None:
            frame = frame if frame.format.name == "yuv444p" else frame.reformat(format="yuv444p")
            self.graph.push(frame)
            frame = self.graph.pull()
        frame = frame if frame.format.name == "yuv420p" else frame.reformat(format="yuv420p")
        for name, value in tags.items():
            setattr(frame, name, value)
        frame.color_range = LIMITED_RANGE if limited else 0  # untagged stays untagged
        return frame


def is_rgb_like(frame: "av.VideoFrame") -> bool:
    """Whether a frame's codes are no YUV: RGB, a palette of it, or XYZ."""
    return frame.format.is_rgb or frame.format.has_palette or frame.format.name.startswith("xyz")


def is_hdr(frame: "av.VideoFrame") -> bool:
    """Whether a frame's transfer function is that of HDR: PQ (SMPTE ST 2084) or HLG (ARIB STD-B67)."""
    return int(frame.color_trc) in (16, 18)


def add_encoder(out: Any, frame: "av.VideoFrame", config: EncodeConfig, *, fps: Fraction, time_base: Fraction) -> Any:
    """A stream of ``out`` for frames like ``frame``. Raises `ConfigError` when the encoder is not there."""
    import av
    from av.codec.context import Flags

    name = _LIBRARIES.get(config.encoder, config.encoder)
    try:
        stream = out.add_stream(name, rate=fps)
    except (ValueError, av.error.FFmpegError) as error:
        raise _absent(config.encoder, str(error)) from error
    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
    stream.time_base = time_base
    context = stream.codec_context
    context.time_base = time_base
    context.thread_count = 1
    context.flags |= Flags.bitexact
    context.max_b_frames = 0  # decoding order is showing order: cheap seeks, simple motion vectors
    context.gop_size = max(1, round(config.keyframe_seconds * fps))
    context.options = _options(config)
    if config.encoder in ("hevc", "hevc_nvenc"):
        context.codec_tag = "hvc1"  # the one that players on phones ask for
    for tag in ("color_range", "colorspace", "color_primaries", "color_trc"):
        setattr(context, tag, getattr(frame, tag))
    if config.encoder == "av1":
        with ordinary_threads():
            context.open()
    if config.encoder.endswith("_nvenc"):
        try:
            context.open()
        except av.error.FFmpegError as error:
            raise _absent(config.encoder, str(error)) from error
    return stream


def _absent(encoder: str, words: str) -> ConfigError:
    return ConfigError(
        f"cut.encoder = {encoder!r} cannot be used on this machine ({words}): choose h264, hevc or av1, which need no card, "
        "or run the stage where an NVIDIA card with an encoder is (A100 and H100 have none)"
    )


def _options(config: EncodeConfig) -> dict[str, str]:
    if config.preset not in SPEEDS:
        raise ConfigError(f"cut.preset = {config.preset!r}: choices are {', '.join(SPEEDS)}")
    speed = SPEEDS.index(config.preset)
    if config.encoder == "h264":
        return {"crf": str(config.crf), "preset": config.preset, **STEADY}
    if config.encoder == "hevc":
        steady = "pools=none:frame-threads=1:wpp=0:info=0:log-level=error"
        return {"crf": str(config.crf), "preset": config.preset, "x265-params": steady}
    if config.encoder == "av1":
        levels = (1, 2, 4, 6, 8, 9, 10, 11, 12)
        return {"crf": str(config.crf), "preset": str(levels[speed]), "svtav1-params": "lp=1"}
    levels = (7, 7, 6, 5, 4, 3, 2, 1, 1)
    return {"preset": f"p{levels[speed]}", "rc": "vbr", "cq": str(config.crf), "b": "0"}


def _filters(turn: "Orientation", frame: "av.VideoFrame", width: int) -> list[tuple[str, str]]:
    steps = []
    if width != frame.width:
        steps += [("scale", f"{width}:{frame.height}:flags=bicubic+accurate_rnd+bitexact"), ("setsar", "1")]
    if turn.transpose:
        steps.append(("transpose", "cclock_flip"))  # the plain transpose of the picture
    if turn.mirror_x:
        steps.append(("hflip", ""))
    if turn.mirror_y:
        steps.append(("vflip", ""))
    if width % 2 or frame.height % 2:
        steps.append(("crop", "max(2\\,trunc(iw/2)*2):max(2\\,trunc(ih/2)*2):0:0"))
    return steps


def rgb_of(colour: str) -> tuple[int, int, int]:
    """``#rrggbb`` -> (red, green, blue), 0 to 255."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def _is_full(frame: "av.VideoFrame") -> bool:
    return int(frame.color_range) == _FULL_RANGE or frame.format.name.startswith("yuvj")


def _limited(frame: "av.VideoFrame") -> "av.VideoFrame":
    """A frame whose codes go from 0 to 255 -> yuv444p with codes from 16 to 235."""
    return frame.reformat(format="yuv444p", src_color_range=_FULL_RANGE, dst_color_range=LIMITED_RANGE)


def _limited_grey(frame: "av.VideoFrame") -> "av.VideoFrame":
    """Grey whose codes go from 16 to 235 -> yuv444p. To the library all greys are full ones, which stay as they are."""
    import av

    grey = frame.to_ndarray(format="gray", src_color_range=_FULL_RANGE, dst_color_range=_FULL_RANGE)
    planes = np.full((3, *grey.shape), 128, np.uint8)
    planes[0] = grey
    return av.VideoFrame.from_ndarray(planes, "yuv444p")


def _from_rgb(image: Any, matrix: int) -> "av.VideoFrame":
    """uint8 [H, W, 3] -> yuv444p in limited range."""
    import av

    frame = av.VideoFrame.from_ndarray(image, "rgb24")
    name = "ITU709" if matrix == BT709 else "ITU601"
    return frame.reformat(format="yuv444p", dst_colorspace=name, dst_color_range=LIMITED_RANGE)
