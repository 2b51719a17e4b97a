"""Streams that are valid, and that players of browsers and decoders of graphics cards refuse all the same."""

from typing import Any

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


def uncommon(stream: Any) -> str:
    """What is uncommon about an open video stream, in words; empty: any decoder takes it."""
    context = stream.codec_context
    codec = context.name.replace("libdav1d", "av1")
    profile = (context.profile or "").lower().removeprefix("profile ")
    why = []
    if codec not in _PROFILES:
        why.append("a codec that few decode")
    elif profile and profile not in _PROFILES[codec]:
        why.append(f"profile {profile}")
    if context.pix_fmt not in _PIXEL_FORMATS:
        why.append(f"pixels of {context.pix_fmt}")
    if context.width % 2 or context.height % 2:
        why.append("an odd size")
    if max(context.width, context.height) > _LONGEST_SIDE.get(codec, _LONGEST_SIDE_OF_OTHERS):
        why.append("a very large size")
    return f"{codec}: {', '.join(why)}" if why else ""
