"""Decoded frames on the time line: each at a time of its own, in the order they are shown, with those that cannot be trusted.

A decoder gives pictures in the order they are shown. A container need not know that order: AVI keeps no time but that of
decoding, and what was copied out of it keeps such times as if they were those of showing. So frames wait until everything that
was sent before them has come out (with B frames some pictures, else none); then times that follow the order of decoding are
dealt out anew in the order of showing.

The same wait tells damage. A decoder that misses data fills the hole from what it has, and every picture that is made from the
damaged one is wrong too, up to the next key frame, though nothing marks it. What was decoded from the damaged packet on is
therefore not trusted, pictures that are shown before it included, until a key frame is shown.
"""

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import av

_AS_SENT = frozenset(
    {"vp3", "vp4", "vp5", "vp6", "vp6f", "vp7", "vp8", "vp9", "libvpx", "libvpx-vp9", "libdav1d", "av1"}
)
"Codecs whose pictures come out in the order they are sent; some packets show none."
_STARTS_ANYWHERE = frozenset(
    {
        *("mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "h263", "flv"),
        *("wmv1", "wmv2", "vc1", "wmv3"),
    }
)
"Decoders that show pictures made from nothing when a stream begins without a key frame; the others wait for one."
_BACK_SECONDS = 0.5
"Decoding times never fall in a whole stream, least of all at a key frame; some writers round badly."
_LONGEST_WAIT = 20
"Frames; codecs put at most 16 pictures before one that was sent earlier."


class Shown(NamedTuple):
    """A frame in its place."""

    frame: "av.VideoFrame"
    damaged: bool
    joint: bool
    "Whether a piece with a clock of its own begins here."


class FrameOrder:
    """Tell it of each packet before it is decoded and of each frame that comes out; it hands the frames on in their places."""

    def __init__(self, codec: str, container: str = "") -> None:
        # The codec library gives the time of a program stream's packet to two pictures of H.264, one of them wrongly.
        self._one_owner: dict[int, int] | None = {} if container == "mpeg" else None
        self.put_right = False
        """Whether times followed the order of decoding and were dealt out anew, frames came in another order than theirs, or
        two had one."""
        self._as_sent, self._starts_anywhere = codec in _AS_SENT, codec in _STARTS_ANYWHERE
        self._count = 0
        self._sent: dict[int, int | None] = {}  # packets whose frame is still to come, with their times
        self._keys: set[int] = set()
        self._keys_told = False  # some containers call every packet one
        self._joints: list[int] = []
        self._held: list[tuple[av.VideoFrame, int]] = []
        self._marked: dict[int, bool] = {}  # held frames by their number, those that are damaged
        self._marks: set[int] = set()
        self._gradual = self._begun = False

    def send(self, packet: Any, time: int | None, *, joint: bool, damaged: bool) -> None:
        """A packet that is about to be decoded, and the time it has; its own clock gives way to its number.

        joint: a piece with a clock of its own begins here. damaged: its data is known not to be whole.
        """
        number = self._count
        self._count += 1
        packet.pts = packet.dts = number  # decoders hand a packet's pts on with its picture, whatever it is
        self._sent[number] = self._owned(time, number)
        if packet.is_keyframe:
            self._keys.add(number)
        else:
            self._keys_told = True
        if joint:
            self._joints.append(number)
        if damaged:
            self._mark(number)

    def _owned(self, time: int | None, number: int) -> int | None:
        """The time, unless another picture was sent with it not long ago: then neither of them has one."""
        if self._one_owner is None or time is None:
            return time
        other = self._one_owner.get(time)
        self._one_owner[time] = number
        if len(self._one_owner) > _LONGEST_WAIT:
            del self._one_owner[next(iter(self._one_owner))]
        if other is None:
            return time
        self.put_right = True
        if other in self._sent:
            self._sent[other] = None
        for frame, held in self._held:
            if held == other:
                frame.pts = None
        return None

    def refused(self) -> None:
        """The packet that was sent last cannot be decoded."""
        self._mark(self._count - 1)

    def came(self, frame: "av.VideoFrame") -> Iterator[Shown]:
        """A frame that came out of the decoder; the frames whose place is sure now."""
        number = frame.pts if frame.pts is not None else next(iter(self._sent), self._count - 1)
        frame.pts = self._sent.pop(number, None)  # a second picture of a packet has no time of its own
        self._judge(frame, number)
        self._held.append((frame, number))
        for early in [sent for sent in self._sent if sent < (number if frame.key_frame else number - _LONGEST_WAIT)]:
            del self._sent[early]  # it will show nothing any more
        latest = max(number for _, number in self._held)
        waits = not self._as_sent and next(iter(self._sent), latest) < latest
        if not waits or len(self._held) > _LONGEST_WAIT:
            yield from self._release()

    def rest(self) -> Iterator[Shown]:
        """The frames that are left when the stream has ended."""
        yield from self._release()

    def _judge(self, frame: "av.VideoFrame", number: int) -> None:
        key = frame.key_frame or (self._keys_told and number in self._keys)
        if not self._begun:
            self._begun = True
            if self._starts_anywhere and not key:
                self._marks.add(-1)
        if key and self._marks and min(self._marks) < number:
            # Where pictures are refreshed bit by bit, the next such point is the first at which all of it was.
            if frame.key_frame or self._gradual:
                self._marks = {mark for mark in self._marks if mark >= number}
            self._gradual = not frame.key_frame and not self._gradual
        self._keys = {other for other in self._keys if other > number}
        self._marked[number] = bool(self._marks) and min(self._marks) <= number
        if frame.is_corrupt:
            self._mark(number)

    def _mark(self, number: int) -> None:
        self._marks.add(number)
        for held in self._marked:
            self._marked[held] = self._marked[held] or held >= number

    def _release(self) -> Iterator[Shown]:
        times = [frame.pts for frame, _ in self._held]
        if None not in times and any(later < time for time, later in itertools.pairwise(times)):
            self.put_right = True
            by_sending = [frame.pts for frame, _ in sorted(self._held, key=lambda held: held[1])]
            if by_sending == sorted(times):
                for (frame, _), time in zip(self._held, by_sending, strict=True):
                    frame.pts = time
            else:
                self._held.sort(key=lambda held: held[0].pts)
        for frame, number in self._held:
            joint = bool(self._joints) and number >= self._joints[0]
            if joint:
                del self._joints[0]
            yield Shown(frame, self._marked[number], joint)
        self._held, self._marked = [], {}


class Joined(NamedTuple):
    """One of the pieces, each with a clock of its own, that a file was joined of end to end."""

    begin: Fraction
    "When its first picture is shown, on the clock that `Clock` made of all [s]."
    shift: Fraction
    "What its own clock lacks to that one [s]."
    first: int
    "Where in the file its first packet of the video stands [bytes]."
    last: int
    "And its last one."


class Clock:
    """Keeps a stream's decoding times rising where pieces with clocks of their own were joined end to end."""

    def __init__(self, tick: int, time_base: Fraction) -> None:
        """``tick``: how long a frame lasts where nothing tells, in ticks of ``time_base`` seconds."""
        self._tick, self._seconds = tick, time_base
        self._latest: int | None = None
        self._shift = 0

    @property
    def shift(self) -> Fraction:
        """How far the packets of the piece at hand are moved [s]."""
        return self._shift * self._seconds

    def joins(self, packet: Any) -> bool:
        """Move the packet's times to where those before it ended; whether a piece begins with it."""
        if packet.dts is None:
            return False
        fell = False
        if self._latest is not None:
            back = self._latest - packet.dts - self._shift
            fell = back * self._seconds > _BACK_SECONDS or (packet.is_keyframe and 2 * back > self._tick)
            if fell:
                self._shift = self._latest + self._tick - packet.dts
        if self._shift:
            packet.pts = packet.pts + self._shift if packet.pts is not None else None
            packet.dts += self._shift
        self._latest = packet.dts
        return fell
