"""The codec that a file says it holds, read from its own bytes: what is left when the codec library has no decoder for it.

Two cases are told apart. A tag of a codec that the world knows (`KNOWN`) is a fault of this installation: the run must stop,
since every such file would be lost in silence. A tag that nobody knows is a fault of the file.
"""

import re
from pathlib import Path
from typing import Any

from wfm.errors import DataError

KNOWN = {
    **dict.fromkeys(("avc1", "avc3", "H264", "h264", "V_MPEG4/ISO/AVC"), "h264"),
    **dict.fromkeys(("hvc1", "hev1", "HEVC", "V_MPEGH/ISO/HEVC"), "hevc"),
    **dict.fromkeys(("vvc1", "vvi1"), "vvc"),
    **dict.fromkeys(("av01", "AV01", "V_AV1"), "av1"),
    **dict.fromkeys(("vp08", "VP80", "V_VP8"), "vp8"),
    **dict.fromkeys(("vp09", "VP90", "V_VP9"), "vp9"),
    **dict.fromkeys(("mp4v", "FMP4", "XVID", "DX50", "V_MPEG4/ISO/ASP"), "mpeg4"),
    **dict.fromkeys(("apch", "apcn", "apcs", "apco", "ap4h", "ap4x", "V_PRORES"), "prores"),
    **dict.fromkeys(("jpeg", "mjpa", "MJPG", "V_MJPEG"), "mjpeg"),
    "evc1": "evc",
    "apv1": "apv",
    "lvc1": "lcevc",
    "avs3": "avs3",
    "AVdn": "dnxhd",
    "AVdh": "dnxhd",
    "FFV1": "ffv1",
}
"""Tag of a container -> the codec's name."""

_HEAD, _TAIL = 1 << 20, 8 << 20  # an mp4 may hold its index at either end


class MissingDecoder(DataError):
    """This installation cannot decode a known codec: no file's fault, so never a skipped row."""

    def __init__(self, codec: str, tag: str, name: str) -> None:
        super().__init__(
            f"no decoder for the codec {codec!r} (tag {tag!r}, first met in {name!r}): the PyAV installed here was built "
            "without it; install a build that has it, or leave such files out of --videos"
        )
        self.codec, self.tag, self.name = codec, tag, name

    def __reduce__(self) -> tuple[Any, ...]:
        return MissingDecoder, (self.codec, self.tag, self.name)


def codec_tag(path: Path) -> str:
    """The tag of the video codec in an mp4, AVI or Matroska file, or "" where none is found. Reads at most 9 MiB."""
    size = path.stat().st_size
    with path.open("rb") as file:
        data = file.read(_HEAD)
        if size > _HEAD:
            file.seek(max(_HEAD, size - _TAIL))
            data += file.read(_TAIL)
    for pattern in (
        rb"vmhd.{0,200}?stsd.{4}\x00\x00\x00[\x01-\x08].{4}([\x20-\x7e]{4})",  # the first sample entry of a video track
        rb"strf.{4}\x28\x00\x00\x00.{12}([\x20-\x7e]{4})",  # BITMAPINFOHEADER.biCompression
        rb"\x86[\x81-\xbf](V_[A-Z0-9/]+)",  # Matroska's CodecID
    ):
        match = re.search(pattern, data, re.DOTALL)
        if match:
            return match.group(1).decode("ascii").strip()
    return ""
