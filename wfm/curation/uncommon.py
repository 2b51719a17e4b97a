"""Streams that are valid, and that players of browsers and decoders of graphics cards refuse all the same."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av

_PIXEL_FORMATS = ("yuv420p", "yuvj420p")
_PROFILES = {
    "h264": ("baseline", "constrained baseline", "main", "high"),
    "hevc": ("main",),
    "vp9": ("0",),
    "av1": ("main",),
}
"Codec -> its profiles that are in every decoder; a codec that is not here is in few."
_LONGEST_SIDE = {"h264": 4096}
_LONGEST_SIDE_OF_OTHERS = 8192


def uncommon(stream: Any, frame: "av.VideoFrame") -> str:
    """What is uncommon about a video stream, of which ``frame`` is the first frame, in words; empty: any decoder takes it."""
    codec = stream.codec_context.name.replace("libdav1d", "av1")
    profile = (stream.codec_context.profile or "").lower().removeprefix("profile ")
    why = []
    if codec not in _PROFILES:
        why.append("a codec that few decode")
    elif profile and profile not in _PROFILES[codec]:
        why.append(f"profile {profile}")
    if frame.format.name not in _PIXEL_FORMATS:
        why.append(f"pixels of {frame.format.name}")
    if frame.width % 2 or frame.height % 2:
        why.append("an odd size")
    if max(frame.width, frame.height) > _LONGEST_SIDE.get(codec, _LONGEST_SIDE_OF_OTHERS):
        why.append("a very large size")
    return f"{codec}: {', '.join(why)}" if why else ""
