"""Video and still images told by their first bytes, for files whose name says nothing or lies: a handful of magic numbers, no
codec library.

Whether a file that looks like video is one is for probing to say; what is looked for here is only whether to ask. Pictures and
sound in the same containers (HEIC, M4A, Ogg Vorbis) are not taken.
"""

import re
from collections.abc import Mapping
from typing import Any

IMAGE_FORMATS = ("jpg", "png", "webp")
"""Still images that are taken: what `image_format` says, endings of their files, members of the samples that hold them."""
HEAD_BYTES = 4096
"""How much of a file `is_video` wants to see."""

_STARTS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF: wmv
    b"FLV\x01",
    b"\x00\x00\x01\xba",  # MPEG program stream: vob, mod, tod
    b"\x00\x00\x01\xb3",  # MPEG-1 and MPEG-2 video: m2v, mpv
    b"\x00\x00\x01\xb0",  # MPEG-4 part 2
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02",  # MXF
    b"YUV4MPEG2 ",
    b"DKIF",  # IVF
    b".RMF",
    b"nut/multimedia container",
    b"\x1f\x07\x00\x3f",  # DV, 60 fields
    b"\x1f\x07\x00\xbf",  # DV, 50 fields
    b"\x12\x00\x0a",  # AV1: a temporal delimiter, then a sequence header
    b"GIF87a",
    b"GIF89a",
)
_BOXES = {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"sidx", b"wide", b"skip", b"free", b"pnot"}
_NO_VIDEO_BRANDS = {
    *(b"M4A ", b"M4B ", b"M4P ", b"heic", b"heix", b"heim", b"heis"),
    *(b"mif1", b"avif", b"jp2 ", b"jpx ", b"crx "),
}
_ANNEX_B = re.compile(
    rb"\x00?\x00\x00\x01(?:[\x27\x47\x67][\x42\x4d\x58\x64\x6e\x7a\xf4]|\x09[\x10\x30\x50\x70\x90\xb0\xd0\xf0]|[\x40\x42\x46]\x01)"
)
"""A first unit of H.264 (parameter set with a known profile, or access unit delimiter) or of HEVC (VPS, SPS, delimiter)."""
_PACKETS = ((0, 188), (4, 192), (0, 204))
"""(where the first sync byte stands, bytes a packet) of MPEG transport streams: plain, with time codes (m2ts), with parity."""
_PACKETS_SEEN = 5


def is_video(head: bytes) -> bool:
    """Whether a file that begins with these bytes (`HEAD_BYTES` of it, or all) looks like video."""
    if head.startswith(_STARTS) or _ANNEX_B.match(head):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] in (b"AVI ", b"AMV ")
    if head[:4] == b"OggS":
        return any(name in head for name in (b"\x80theora", b"OVP80", b"BBCD\x00", b"\x01video"))
    if head[4:8] in _BOXES:
        return head[4:8] != b"ftyp" or head[8:12] not in _NO_VIDEO_BRANDS
    return any(_is_transport_stream(head, first, length) for first, length in _PACKETS)


def image_format(head: bytes) -> str:
    """``jpg``, ``png`` or ``webp`` by the first 12 bytes of a file, or "" for anything else."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else ""


def image_member(members: Mapping[str, Any]) -> str:
    """Which member of a sample is its picture, of `IMAGE_FORMATS`; "" for the sample of a video."""
    return next((name for name in IMAGE_FORMATS if name in members), "")


def is_text(head: bytes) -> bool:
    """Whether a file that begins so is text: notes, checksums, licences. An empty file is."""
    if b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3 and len(head) > 3  # cut within a character
    return True


def _is_transport_stream(head: bytes, first: int, length: int) -> bool:
    places = range(first, min(len(head), first + _PACKETS_SEEN * length), length)
    return len(places) >= 2 and all(head[place] == 0x47 for place in places)
