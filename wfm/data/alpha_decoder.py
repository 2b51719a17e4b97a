"""VP8 and VP9 keep transparency in a second picture beside the first, which only the decoders of libvpx look at."""

from typing import Any

_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def decoder_of(stream: Any) -> Any:
    """What decodes a video stream with all it holds: its own codec context, or a new one where transparency is told of."""
    context = stream.codec_context
    name = _DECODERS.get(context.name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        return context
    from av.codec import CodecContext

    other = CodecContext.create(name, "r")
    other.thread_count = context.thread_count
    return other
