"""The sound of a span, beside its pictures: packets copied where an mp4 may hold them, else encoded as AAC.

Sound comes in packets of some 20 ms: the ones that begin inside the span are taken, so sound and span differ by less than a
packet at either end, and every packet stays at its own time.
"""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

COPIED = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")
"Codecs of sound that an mp4 may hold as they are."


class Sound:
    """Writes the first sound stream of a video to ``out``, in step with the pictures. Use `Sound.of`."""

    def __init__(
        self, stack: contextlib.ExitStack, out: Any, source: Any, target: Any, start: float, end: float
    ) -> None:
        self._stack, self._out, self._source, self._target = stack, out, source, target
        self._start, self._end = start, end
        self._packets = self._copied() if source.codec_context.name in COPIED else self._encoded()
        self._held: Any = None

    @classmethod
    def of(cls, path: Path, out: Any, start_seconds: float, end_seconds: float) -> "Sound | None":
        """For the stretch from ``start_seconds`` on, on the container's clock; None for a video without sound."""
        from wfm.data.decode import open_video

        stack = contextlib.ExitStack()
        video = stack.enter_context(open_video(path))
        streams = video.container.streams.audio
        if not streams:
            stack.close()
            return None
        source = streams[0]
        if source.codec_context.name in COPIED:
            target = out.add_stream_from_template(source)
        else:
            from av.codec.context import Flags

            target = out.add_stream("aac", rate=source.rate)
            target.codec_context.layout = _layout(source)
            target.codec_context.flags |= Flags.bitexact
        return cls(stack, out, source, target, start_seconds, end_seconds)

    def write(self, seconds: float) -> None:
        """Write the packets that are heard before ``seconds`` of the span."""
        while True:
            packet = self._held or next(self._packets, None)
            self._held = None
            if packet is None:
                return
            if float(packet.pts * packet.time_base) >= seconds:
                self._held = packet
                return
            self._out.mux(packet)

    def close(self) -> None:
        """Write what is left, and close the source."""
        self.write(float("inf"))
        self._stack.close()

    def _inside(self) -> Iterator[Any]:
        """The source's packets that begin inside the span."""
        container = self._source.container
        if self._start > 0:
            container.seek(int(max(0.0, self._start - 1) * 1_000_000), backward=True)
        for packet in container.demux(self._source):
            if packet.size == 0 or packet.pts is None:
                continue
            seconds = float(packet.pts * packet.time_base)
            if seconds >= self._end:
                return
            if seconds >= self._start:
                yield packet

    def _copied(self) -> Iterator[Any]:
        for packet in self._inside():
            shift = round(self._start / packet.time_base)
            packet.pts -= shift
            packet.dts = packet.pts
            packet.stream = self._target
            yield packet

    def _encoded(self) -> Iterator[Any]:
        from av import AudioResampler

        resampler = AudioResampler(format="fltp", layout=_layout(self._source), rate=self._source.rate)
        samples: int | None = None
        for packet in self._inside():
            for frame in packet.decode():
                if samples is None:
                    seconds = float(frame.pts * frame.time_base) - self._start if frame.pts is not None else 0.0
                    samples = max(0, round(seconds * self._source.rate))
                frame.pts = None
                for ready in resampler.resample(frame):
                    ready.pts, ready.time_base = samples, Fraction(1, self._source.rate)
                    samples += ready.samples
                    yield from self._target.encode(ready)  # the stream's, which marks packets as its own
        yield from self._target.encode(None)


def _layout(source: Any) -> str:
    """Mono stays mono, anything else becomes stereo: streams often do not say where their channels belong."""
    return "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"
