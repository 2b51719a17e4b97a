"""One track of a video's sound, decoded so that every sample stands where its time says.

Streams stop and go on later, overlap, begin before or after the pictures, lose packets, and change their rate or channels. What
comes out is one unbroken row of samples from the span's beginning on: silence where nothing is known, and of two that claim one
time the earlier.

Where files were joined end to end, a packet's time is moved as those of the pictures are that it came with.
"""

import bisect
import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from wfm.data.frame_order import Joined

TOLERANCE_SECONDS = 0.005
"Times that differ less are rounded ones: containers keep milliseconds, or worse."
_PREROLL_SECONDS = 1
"Decoded before the span: some codecs need the packet before, and seeking is to key frames of the pictures."


@dataclasses.dataclass(frozen=True)
class Piece:
    """One decoded frame of sound."""

    seconds: Fraction
    "When it begins, from the span's beginning on."
    frame: Any

    @property
    def form(self) -> tuple[str, str, int, int]:
        """(sample format, layout, channels, samples a second)."""
        frame = self.frame
        return frame.format.name, frame.layout.name, frame.layout.nb_channels, frame.sample_rate

    @property
    def end(self) -> Fraction:
        """When it ends [s]."""
        return self.seconds + Fraction(self.frame.samples, self.frame.sample_rate)


class Track:
    """Stream ``index`` of a file (its place among all streams), over ``[start, end)`` of the container's clock [s].

    joined: the pieces of a file with more than one clock, which the video's `wfm.data.frame_order.Clock` makes one of.
    """

    def __init__(self, path: Path, index: int, start: Fraction, end: Fraction, joined: tuple[Joined, ...] = ()) -> None:
        self._path, self._index, self._joined, self._position = path, index, joined, 0
        self.start, self.end = start, end
        self.damaged = 0
        "Packets of the span that could not be decoded, and places where reading stopped, in the last `pieces`."

    def packets(self, margin: Fraction = Fraction(0)) -> Iterator[tuple[Fraction, Any]]:
        """(seconds of the span, packet) of those that begin in the span, or by ``margin`` outside it. A packet without a time
        counts as one that follows the last."""
        sought = self.start > 2 * _PREROLL_SECONDS + margin and not self._joined
        yield from self._read(margin, sought)

    def _read(self, margin: Fraction, sought: bool) -> Iterator[tuple[Fraction, Any]]:
        from av.error import FFmpegError

        from wfm.data.decode import open_video

        last, self._position = -margin, 0
        with open_video(self._path) as video:
            container = video.container
            try:
                if self._joined:
                    self._go_to_piece(container, margin)
                elif sought:
                    container.seek(int((self.start - margin - _PREROLL_SECONDS) * 1_000_000), backward=True)
                first = True
                for packet in container.demux(container.streams[self._index]):
                    if self._joined and not self._move(packet):
                        continue
                    time = packet.pts if packet.pts is not None else packet.dts
                    if packet.size == 0:
                        yield last, packet  # what a decoder still holds
                        return
                    last = time * packet.time_base - self.start if time is not None else last
                    if first and sought and last > -margin:
                        break  # this container has no usable index
                    first = False
                    if last >= self.end - self.start + margin:
                        return
                    if last >= -margin:
                        yield last, packet
                else:
                    return
            except FFmpegError:
                if not sought:
                    self.damaged += 1
                    return
        yield from self._read(margin, sought=False)

    def _go_to_piece(self, container: Any, margin: Fraction) -> None:
        """Pass over the pieces before the span, where a container can be read from anywhere."""
        begin = self.start - margin - _PREROLL_SECONDS
        at = bisect.bisect_right([piece.begin for piece in self._joined], begin) - 1
        if at > 0 and container.format.name in ("mpegts", "mpeg"):
            self._position = self._joined[at - 1].last
            container.seek(self._position, unsupported_byte_offset=True)

    def _move(self, packet: Any) -> bool:
        """Put a packet on the clock of the whole; whether all of it is heard beside its piece's pictures."""
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None:
            return True
        pieces, seconds = self._joined, time * packet.time_base
        self._position = packet.pos or self._position  # packets that are read as one keep the place of the first
        at = max(bisect.bisect_right([piece.first for piece in pieces], self._position) - 1, 0)
        if at + 1 < len(pieces) and self._position > pieces[at].last:
            joint = pieces[at + 1].begin  # it stands between the pictures of two: its time says to which it belongs
            at = min((at, at + 1), key=lambda one: abs(seconds + pieces[one].shift - joint))
        packet.pts = packet.dts = time + round(pieces[at].shift / packet.time_base)
        begin = seconds + pieces[at].shift
        end = begin + (packet.duration or 0) * packet.time_base
        return (at == 0 or begin >= pieces[at].begin) and (at + 1 == len(pieces) or end <= pieces[at + 1].begin)

    def pieces(self) -> Iterator[Piece]:
        """What decodes, in order, from a little before the span to its end."""
        from av.error import FFmpegError

        self.damaged = 0
        length = self.end - self.start
        after: Fraction | None = None
        for seconds, packet in self.packets(Fraction(_PREROLL_SECONDS)):
            inside = 0 <= seconds < length
            try:
                frames = packet.decode()
            except FFmpegError:
                self.damaged += inside
                continue
            for frame in frames:
                if frame.is_corrupt or frame.samples == 0 or frame.sample_rate <= 0:
                    self.damaged += inside
                    continue
                if frame.pts is not None:
                    begin = frame.pts * frame.time_base - self.start
                else:
                    begin = after if after is not None else seconds
                piece = Piece(begin, frame)
                after = piece.end
                if piece.seconds >= length:
                    return
                yield piece


def in_step(pieces: Iterator[Piece], rate: int, layout: str, length: Fraction) -> Iterator[np.ndarray]:
    """float32 [channels, samples] blocks, one after the other: the first ``length`` seconds, up to the last sound in them."""
    channels = 1 if layout == "mono" else 2
    total = round(length * rate)
    position = 0
    for begin, block in _placed(pieces, rate, layout):
        while position < min(begin, total):  # a hole
            silence = min(begin, total, position + rate) - position
            yield np.zeros((channels, silence), np.float32)
            position += silence
        block = block[:, max(0, position - begin) : max(0, total - begin)]
        if block.shape[1]:
            # An encoder of AAC fails on what is not a number.
            yield np.nan_to_num(block, nan=0.0, posinf=1.0, neginf=-1.0).clip(-1, 1)
            position += block.shape[1]


def _placed(pieces: Iterator[Piece], rate: int, layout: str) -> Iterator[tuple[int, np.ndarray]]:
    """(first sample's place, float32 [channels, samples]); places may leave holes, overlap, and be negative."""
    run: _Run | None = None
    for piece in pieces:
        if run is None or not run.goes_on_with(piece):
            if run is not None:
                yield from run.rest()
            run = _Run(piece, rate, layout)
        yield from run.push(piece)
    if run is not None:
        yield from run.rest()


class _Run:
    """Pieces of one form that follow each other without a hole."""

    def __init__(self, first: Piece, rate: int, layout: str) -> None:
        from av import AudioResampler

        self._form, self._end, self._place = first.form, first.seconds, round(first.seconds * rate)
        self._channels = 1 if layout == "mono" else 2
        self._mixes = first.frame.layout.nb_channels <= 2 or _told(first.frame.layout.name)
        # Packed where channels may be many: PyAV reads planes beyond the eighth from the wrong place.
        way = {"format": "fltp", "layout": layout} if self._mixes else {"format": "flt"}
        self._resampler = AudioResampler(rate=rate, **way)

    def goes_on_with(self, piece: Piece) -> bool:
        return piece.form == self._form and abs(piece.seconds - self._end) <= TOLERANCE_SECONDS

    def push(self, piece: Piece) -> Iterator[tuple[int, np.ndarray]]:
        self._end += Fraction(piece.frame.samples, piece.frame.sample_rate)
        piece.frame.pts = None
        yield from self._out(piece.frame)

    def rest(self) -> Iterator[tuple[int, np.ndarray]]:
        yield from self._out(None)

    def _out(self, frame: Any) -> Iterator[tuple[int, np.ndarray]]:
        for ready in self._resampler.resample(frame):
            block = ready.to_ndarray()
            if not self._mixes:
                # Channels that do not say where they belong are microphones beside each other: all are heard alike.
                mean = block.reshape(ready.samples, -1).mean(1, dtype=np.float32)
                block = np.repeat(mean[None], self._channels, 0)
            yield self._place, block
            self._place += block.shape[1]


def _told(layout: str) -> bool:
    """Whether a layout says where its channels belong: ``5.1(side)`` does, ``6 channels`` does not."""
    return "channels" not in layout
