"""Which of a file's video tracks is the film: previews, thumbnails and covers are not."""

from typing import Any

import av

_STILL = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails | av.stream.Disposition.still_image
_READ_AT_MOST = 3_000
"Packets that are read to tell pictures from films where the header does not count them."
_FEW = 0.05
"A track of less than this share of another's pictures is a row of stills."


def moving(container: Any) -> list[Any]:
    """The video tracks that are not marked as cover, thumbnails or still picture."""
    return [stream for stream in container.streams.video if not stream.disposition & _STILL]


def best(container: Any) -> Any:
    """The track to take, of several in a container that is read for it: one that a decoder is known for and that holds more
    than a few pictures; of these the one marked as default, else the largest, the longest, the first."""
    streams = moving(container)
    counts = {stream.index: int(stream.frames or 0) for stream in streams}
    if not all(counts.values()):
        counts = _counted(container, streams)
    enough = max(2.0, _FEW * max(counts.values()))

    def rank(stream: Any) -> tuple[Any, ...]:
        context, count = stream.codec_context, counts[stream.index]
        pixels = context.width * context.height if context is not None else 0
        default = bool(stream.disposition & av.stream.Disposition.default)
        return context is not None, count >= enough, default, pixels, count, -stream.index

    return max(streams, key=rank)


def words(stream: Any) -> str:
    """A track that is not taken, as a note says it."""
    kind = "still pictures" if stream.disposition & _STILL else "video"
    context = stream.codec_context
    size = f"{context.name} {context.width} x {context.height}" if context is not None else "an unknown codec"
    return f"{kind} in track {stream.index} ({size})"


def _counted(container: Any, streams: list[Any]) -> dict[int, int]:
    """Packets of each track, from the file's beginning; a file that breaks off counts as far as it can be read."""
    counts = {stream.index: 0 for stream in streams}
    try:
        for number, packet in enumerate(container.demux(streams)):
            if packet.size:
                counts[packet.stream_index] += 1
            if number >= _READ_AT_MOST:
                break
    except (av.error.FFmpegError, OSError, ValueError):
        return counts
    return counts
