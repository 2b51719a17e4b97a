"""The sound of a span, beside its pictures: packets copied where an mp4 may hold them, else encoded as AAC.

The default track is taken, or the first other one that can be decoded. Copied sound comes in packets of some 20 ms: the ones
that begin inside the span are taken, so sound and span differ by less than a packet at either end, and every packet stays at
its own time. What a copy would pass on (holes, overlaps, damage, a change of rate or channels) and what an mp4 cannot hold is
decoded, put in step (`sound_in_step`) and encoded.

Sound never costs a clip: it is written to a file of its own first, and a clip whose sound fails there is kept without it.
"""

import contextlib
import dataclasses
import errno
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from wfm.curation.cut.sound_in_step import TOLERANCE_SECONDS, Track, in_step
from wfm.data.frame_order import Joined

COPIED = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")
"Codecs of sound that an mp4 may hold as they are."
_RATES = (32000, 44100, 48000, 64000, 88200, 96000)
"Samples a second of encoded sound. AAC knows lower ones, whose longer blocks smear what is sudden over more than 20 ms."
_LEAST_MP3_RATE = 16000  # in an mp4
_NOT_THE_SOUNDS_FAULT = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.EROFS)


class Sound:
    """The sound of a span, ready to be written beside its pictures. Use `Sound.of`, `begin`, `write`, `close`."""

    def __init__(self, said: str, scratch: Path | None = None) -> None:
        self.said = said
        "``none``, ``copy``, ``encode`` or ``lost``; after a colon, why it is not the plain first track."
        self._scratch = scratch
        self._stack = contextlib.ExitStack()
        self._out: Any = None
        self._packets: Iterator[Any] = iter(())
        self._held: Any = None

    @classmethod
    def of(cls, path: Path, start: Fraction, end: Fraction, scratch: Path, pieces: tuple[Joined, ...] = ()) -> "Sound":
        """For ``[start, end)`` of the container's clock [s]; ``scratch`` is a file to write meanwhile, gone after `close`.

        pieces: what the video was joined of (`OpenVideo.pieces`).

        What is wrong with the sound is told in ``said``; errors of the disk are raised.
        """
        tracks, passed = _tracks(path), []
        for index, codec in tracks:
            track = Track(path, index, start, end, pieces)
            try:
                heard = _Heard.of(track) if codec else None
                if heard is None or not heard.rates:
                    passed.append(f"{codec or 'a codec nobody knows'} gives no sound here")
                    continue
                way = _write(track, codec, heard, scratch)
            except _errors() as error:
                scratch.unlink(missing_ok=True)
                if isinstance(error, OSError) and error.errno in _NOT_THE_SOUNDS_FAULT:
                    raise
                passed.append(f"{codec}: {error}")
                continue
            return cls(": another track, ".join((way, *passed)), scratch)
        return cls("lost: " + "; ".join(passed) if tracks else "none")

    def begin(self, out: Any) -> None:
        """Add the stream to ``out``, before anything is written there."""
        if self._scratch is None:
            return
        import av

        source = self._stack.enter_context(av.open(f"file:{self._scratch}")).streams.audio[0]
        target = out.add_stream_from_template(source)

        def packets() -> Iterator[Any]:
            for packet in source.container.demux(source):
                if packet.size:
                    packet.stream = target
                    yield packet

        self._out, self._packets = out, packets()

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

    def finish(self) -> None:
        """Write what is left."""
        self.write(float("inf"))

    def close(self) -> None:
        """Leave nothing behind."""
        self._stack.close()
        if self._scratch is not None:
            self._scratch.unlink(missing_ok=True)


@dataclasses.dataclass
class _Heard:
    """What decoding a track showed of it."""

    rates: list[int]
    "Samples a second, each once, in order; empty: nothing was heard."
    channels: list[int]
    last: Fraction
    "When the last frame of sound begins, from the span's beginning on [s]."
    unbroken: bool
    "No damage, no hole, no overlap, one form: packets that may be copied."

    @classmethod
    def of(cls, track: Track) -> "_Heard":
        forms: dict[tuple[str, str, int, int], None] = {}
        last, end = Fraction(0), None
        unbroken = True
        for piece in track.pieces():
            if piece.end <= 0:
                continue  # decoded to begin well
            forms[piece.form] = None
            unbroken &= end is None or abs(piece.seconds - end) <= TOLERANCE_SECONDS
            last, end = piece.seconds, piece.end
        channels = list(dict.fromkeys(count for _, _, count, _ in forms))
        rates = list(dict.fromkeys(rate for *_, rate in forms))
        return cls(rates, channels, last, unbroken and len(forms) == 1 and not track.damaged)


def _tracks(path: Path) -> list[tuple[int, str]]:
    """(index, codec) of the streams of sound, the default one first; an unknown codec has no name."""
    from av.stream import Disposition

    from wfm.data.decode import open_video

    with open_video(path) as video:
        streams = sorted(video.container.streams.audio, key=lambda s: not s.disposition & Disposition.default)
        return [(s.index, s.codec_context.name if s.codec_context is not None else "") for s in streams]


def _errors() -> tuple[type[Exception], ...]:
    """What the codec library raises at streams that it cannot work with."""
    from av.error import FFmpegError

    return FFmpegError, ValueError


def _write(track: Track, codec: str, heard: _Heard, scratch: Path) -> str:
    """Write ``scratch``; returns how."""
    if heard.unbroken and codec in COPIED and (codec != "mp3" or heard.rates[0] >= _LEAST_MP3_RATE):
        with contextlib.suppress(*_errors()):  # then it is encoded
            if _copied(track, scratch, heard.last):
                return "copy"
    _encoded(track, heard, scratch)
    return "encode"


@contextlib.contextmanager
def _file(scratch: Path) -> Iterator[Any]:
    import av

    scratch.parent.mkdir(parents=True, exist_ok=True)
    with av.open(f"file:{scratch}", "w", format="mp4", options={"fflags": "+bitexact"}) as out:
        yield out


def _copied(track: Track, scratch: Path, last: Fraction) -> bool:
    """Copy the packets that begin inside the span; returns whether the last of them is still heard at ``last``."""
    import av

    target = None
    with _file(scratch) as out:
        for seconds, packet in track.packets():
            if not packet.size:
                continue
            target = target or out.add_stream_from_template(packet.stream)
            packet.pts = packet.dts = round(seconds / packet.time_base)
            packet.stream = target
            out.mux(packet)
    if target is None:
        return False
    begin = None
    with av.open(f"file:{scratch}") as copy:
        for frame in copy.decode(audio=0):
            begin = frame.pts * frame.time_base
    return begin is not None and abs(begin - last) <= TOLERANCE_SECONDS


def _encoded(track: Track, heard: _Heard, scratch: Path) -> None:
    from av import AudioFrame
    from av.codec.context import Flags

    rate, layout = _rate(heard.rates[0]), "mono" if heard.channels == [1] else "stereo"
    position = 0
    with _file(scratch) as out:
        target = out.add_stream("aac", rate=rate)
        target.codec_context.layout = layout
        target.codec_context.flags |= Flags.bitexact
        for block in in_step(track.pieces(), rate, layout, track.end - track.start):
            frame = AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, position, Fraction(1, rate)
            position += frame.samples
            out.mux(target.encode(frame))
        out.mux(target.encode(None))


def _rate(source: int) -> int:
    """The source's own, or the least multiple of it, or 48000."""
    fitting = [rate for rate in _RATES if rate % source == 0 and rate <= 48000]
    return source if source in _RATES else min(fitting, default=48000)
