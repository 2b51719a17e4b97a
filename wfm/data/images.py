"""Still images: jpg, png and webp -> one picture, and what their headers say, told by first bytes and never by name.

    open_image   one file, checked before a pixel of it is decoded: size, animation
    decode       all its pixels, or why not; first of all, since Pillow hides what fails while something else is asked
    facts_of     what of it is not as pictures are kept here
    read_image   a picture as data sets keep it -> uint8 [H, W, 3]

A data set's pictures are upright, of 8 bits, grey or RGB, in sRGB, opaque: `ImageFacts.changes` says what of that does not
hold, and `wfm.curation.cut.stills` makes it so. Pillow decodes: unlike FFmpeg it reads profiles and EXIF turns, tells a palette
from its transparency, refuses half a file, and checks a header without making room for what it claims. Its own `Image.open` is
passed over, since it guesses the format and holds its limit of pixels in a global.
"""

import contextlib
import dataclasses
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from wfm.data.containers import VideoError
from wfm.data.orientation import Orientation
from wfm.data.signatures import IMAGE_FORMATS, image_format

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

LARGEST_PICTURE = 2**26
"""Most pixels of a picture, unless whoever reads it says otherwise."""
LEAST_SIDE = 16
"""Fewest pixels of a side: what is smaller is a spacer of a web page, and nothing can be measured of it."""

_HEAD = 30
"""Bytes that say the format, and the canvas of a webp."""
_ERRORS = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, struct.error)
"""What Pillow raises for damaged files."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Orientation(mirror_x=True),
    3: Orientation(mirror_x=True, mirror_y=True),
    4: Orientation(mirror_y=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, mirror_x=True),
    7: Orientation(transpose=True, mirror_x=True, mirror_y=True),
    8: Orientation(transpose=True, mirror_y=True),
}
"""EXIF's number -> how the stored picture is turned upright."""
_NAMES = {
    ("1", 1): "monob", ("L", 8): "gray", ("RGB", 8): "rgb24", ("RGBA", 8): "rgba", ("LA", 8): "ya8", ("CMYK", 8): "cmyk",
    ("I;16", 16): "gray16", ("RGB", 16): "rgb48", ("RGBA", 16): "rgba64", ("LA", 16): "ya16",
}  # fmt: skip
"""(Pillow's mode, bits a channel) -> FFmpeg's name of the pixel format."""


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What a still image's header says. Sizes are upright [pixels]."""

    format: str
    "One of `IMAGE_FORMATS`."
    width: int
    height: int
    turn: Orientation
    "How the stored picture is turned upright."
    pixel_format: str
    "By FFmpeg's names, ``cmyk`` and ``pal8`` among them."
    changes: tuple[str, ...]
    "What of it is not as data sets keep pictures: turned, palette, 16 bits, cmyk, alpha, colour profile; empty: all is."


def format_of(path: str | Path) -> str:
    """`image_format` of a file; "" for one that cannot be read, which whoever opens it says better."""
    try:
        with open(path, "rb") as file:
            return image_format(file.read(16))
    except OSError:
        return ""


@contextlib.contextmanager
def open_image(path: str | Path, *, maximum_pixels: int = LARGEST_PICTURE) -> "Iterator[ImageFile]":
    """One still image, its header read, its pixels not yet. Decoding errors of the block become `VideoError`s as well.

    Raises `VideoError`: ``not_an_image``, ``animated``, ``too_small``, ``too_large`` (by what the header claims, before room is
    made for it), ``truncated``, ``decode_error``.
    """
    path = Path(path)
    with path.open("rb") as file, _explained(path):
        head, size = file.read(_HEAD), path.stat().st_size
        file.seek(0)
        yield _header_read(path, file, head, size, maximum_pixels)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except VideoError:
        raise
    except _ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the file's
        words = str(error) or type(error).__name__
        code = "truncated" if "truncated" in words.lower() else "decode_error"
        raise VideoError(path, code, words[:200]) from error


def _header_read(path: Path, source: BinaryIO, head: bytes, size: int, maximum_pixels: int) -> "ImageFile":
    from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    opener: dict[str, Any] = {
        "jpg": JpegImagePlugin.JpegImageFile,
        "png": PngImagePlugin.PngImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
    }
    kind = image_format(head)
    if not kind:
        raise VideoError(path, "not_an_image", f"its first bytes are those of no {', '.join(IMAGE_FORMATS)}")
    if kind == "webp":  # its library makes room for the canvas as it opens
        _require_size(path, _webp_size(path, head, size), maximum_pixels)
    image: ImageFile = opener[kind](source, str(path))
    _require_size(path, image.size, maximum_pixels)
    if (pictures := getattr(image, "n_frames", 1)) > 1:
        raise VideoError(path, "animated", f"{pictures} pictures that follow each other: make it a video")
    return image


def decode(image: "ImageFile") -> None:
    """Decode what `open_image` gave. Raises in its block what becomes a `VideoError`.

    Of a jpg that ends early with a proper end mark libjpeg makes the rest mid-grey and says so to nobody: where the last pixel
    is that grey, FFmpeg is asked.
    """
    image.load()
    if image.format == "JPEG" and _is_mid_grey(image.getpixel((image.width - 1, image.height - 1))):
        import av

        reader: Any = av.codec.CodecContext.create("mjpeg", "r")
        reader.options = {"err_detect": "explode"}
        try:
            reader.decode(av.Packet(Path(str(image.filename)).read_bytes()))
        except av.error.InvalidDataError:
            raise ValueError("truncated: its rows end before the height that its header says") from None
        except av.error.FFmpegError:
            return  # a kind that FFmpeg does not know: it cannot say


def _is_mid_grey(pixel: Any) -> bool:
    return all(abs(value - 128) <= 2 for value in (pixel if isinstance(pixel, tuple) else (pixel,)))


def facts_of(image: "ImageFile") -> ImageFacts:
    """What `open_image` gave, decoded -> its facts."""
    kind = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[str(image.format)]
    bits, mode, changes = bits_of(image), image.mode, []
    turn = turn_of(image)
    if not turn.identity:
        changes.append("turned")
    if mode in ("P", "PA"):
        changes.append("palette")
    elif bits != 8:
        changes.append(f"{bits} bits")
    elif mode == "CMYK":
        changes.append("cmyk")
    if has_alpha(image):
        changes.append("alpha")
    if profile_of(image) is not None:
        changes.append("colour profile")
    width, height = image.size[::-1] if turn.transpose else image.size
    name = "pal8" if mode in ("P", "PA") else _NAMES.get((mode, bits), f"{mode.lower()}, {bits} bits")
    return ImageFacts(kind, width, height, turn, name, tuple(changes))


def read_image(source: str | Path | bytes, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """A picture as data sets keep it -> uint8 [H, W, 3] RGB, brought to ``size`` (height, width) by area.

    Nothing is turned and no colour is converted: a data set's pictures need none of it. Raises `VideoError`, the codes of
    `open_image`.
    """
    if isinstance(source, bytes):
        name = Path("a sample's picture")
        with _explained(name):
            image = _header_read(name, BytesIO(source), source[:_HEAD], len(source), LARGEST_PICTURE)
            picture = np.asarray(image.convert("RGB"))
    else:
        with open_image(source) as opened:
            picture = np.asarray(opened.convert("RGB"))
    return picture if size is None else resized(picture, size)


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3] -> the same of ``size`` (height, width), by area."""
    import cv2

    if picture.shape[:2] == tuple(size):
        return picture
    return np.asarray(cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA))


def bits_of(image: "ImageFile") -> int:
    """Bits a channel as the file has them; Pillow gives 8 of 16 of all but grey pictures."""
    if image.format == "PNG":
        with open(image.filename, "rb") as file:
            return file.read(25)[24]
    return 16 if image.mode.startswith("I") else 8


def has_alpha(image: "ImageFile") -> bool:
    """Whether it can be transparent anywhere: by a channel, or by a colour that is declared so."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def turn_of(image: "ImageFile") -> Orientation:
    """What EXIF asks for; a number that means nothing, or EXIF that cannot be read, asks for nothing."""
    try:
        return _TURNS.get(int(image.getexif().get(_ORIENTATION, 1)), Orientation())
    except _ERRORS:
        return Orientation()


def profile_of(image: "ImageFile") -> Any:
    """Its colour profile (``ImageCms``), None where there is none that says other than sRGB does.

    A profile is taken for sRGB where it moves none of 125 colours by more than 3 of 255, as the many copies of that profile;
    one that cannot be read, or is of other channels than the picture has, says nothing.
    """
    from PIL import Image, ImageCms

    data = image.info.get("icc_profile")
    if not data:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(data))
        space = str(profile.profile.xcolor_space).strip()
        grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
        if space == "CMYK" or image.mode == "CMYK":
            if space != image.mode:
                return None
            to_srgb(Image.new("CMYK", (1, 1)), profile)  # or it lacks the tables
            return profile
        if space not in ("RGB", "GRAY") or (space == "GRAY" and not grey):
            return None
        steps = np.linspace(0, 255, 5).round().astype(np.uint8)
        cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(25, 5, 3)
        if space == "GRAY":
            cube = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (1, 256, 3)).copy()
        shown = to_srgb(Image.fromarray(cube if space == "RGB" else cube[..., 0]), profile)
        moved = np.abs(np.asarray(shown.convert("RGB")).astype(int) - cube).max()
    except (ImageCms.PyCMSError, *_ERRORS):
        return None
    return profile if moved > 3 else None


def to_srgb(image: Any, profile: Any) -> Any:
    """A picture of mode L, RGB or CMYK whose colours mean what ``profile`` says -> RGB in sRGB (relative colorimetric)."""
    from PIL import ImageCms

    made = ImageCms.profileToProfile(
        image, profile, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
    )
    assert made is not None
    return made


def _require_size(path: Path, size: tuple[int, int], maximum_pixels: int) -> None:
    width, height = size
    if width * height > maximum_pixels:
        words = f"a picture of {width} x {height} pixels, at most {maximum_pixels} are allowed"
        raise VideoError(path, "too_large", words)
    if min(width, height) < LEAST_SIDE:
        raise VideoError(path, "too_small", f"{width} x {height} pixels, at least {LEAST_SIDE} a side are asked")


def _webp_size(path: Path, head: bytes, size: int) -> tuple[int, int]:
    """(width, height) of the canvas that a webp of ``size`` bytes claims. Raises `VideoError` for one that is cut short."""
    whole = 8 + int.from_bytes(head[4:8], "little")
    if len(head) < _HEAD or size < whole:
        raise VideoError(path, "truncated", f"{size} bytes of {whole} that its header announces")
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        packed = int.from_bytes(head[21:25], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
