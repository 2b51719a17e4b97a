"""What decoding a whole video found, beside what its packets promised: how many frames, at which rate, how many are missing.

Ingest reads packets, and a packet need not give a frame: a stream that begins inside a group of pictures gives its first ones
later, some codecs send pictures that are not shown, two frames at one time are one too many. The tables that leave the line
hold what was decoded.
"""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

from wfm.records import Record, Video

if TYPE_CHECKING:
    from wfm.curation.cut.timeline import Timeline
    from wfm.data.decode import OpenVideo


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoded(Record):
    """One row per video that was decoded to its end."""

    video_id: str
    num_frames: int
    "Frames with a place of their own on the time line, damaged ones too."
    fps: float
    "Frames a second where they can be trusted; gaps do not count."
    frames_promised: int
    "Packets that ingest took for frames."
    frames_misplaced: int
    "Frames that were left out since their time was that of another, or earlier."
    frames_damaged: int
    "Frames in no clip, since data was missing or damaged, or since they refer to such."
    breaks: int
    "Places where time jumps, damage lasts, or files were joined; no clip spans one."


def decoded_of(row: Video, video: "OpenVideo", timeline: "Timeline") -> Decoded:
    """The row of a video that was looked at to its end."""
    sound, damaged = len(timeline.pts), sum(stretch.num_frames for stretch in timeline.damaged)
    lost = sum(int(timeline.pts[index]) - end for index, end in timeline.ends.items())
    shown = float((timeline.end_pts - int(timeline.pts[0]) - lost) * timeline.time_base)
    return Decoded(
        video_id=row.video_id,
        num_frames=sound + damaged,
        fps=sound / shown if shown > 0 else row.fps,
        frames_promised=row.num_frames,
        frames_misplaced=video.misplaced,
        frames_damaged=damaged,
        breaks=len(timeline.ends),
    )


def as_decoded(videos: Iterable[Video], found: Iterable[Decoded]) -> list[Video]:
    """The rows with the counts and rates of what was decoded, and in ``notes`` what that says of them."""
    by_id = {one.video_id: one for one in found}
    return [_noted(row, by_id[row.video_id]) if row.video_id in by_id else row for row in videos]


def _noted(row: Video, found: Decoded) -> Video:
    notes = [row.notes] if row.notes else []
    if found.frames_misplaced:
        notes.append(f"{found.frames_misplaced} frames left out: their times are those of others, or earlier")
    if found.frames_damaged:
        notes.append(f"{found.frames_damaged} damaged frames left out")
    if found.breaks:
        notes.append(f"{found.breaks} gap{'s' * (found.breaks > 1)} in time")
    unseen = found.frames_promised - found.num_frames - found.frames_misplaced
    if unseen:
        notes.append(
            f"{unseen} of {found.frames_promised} packets show no frame"
            if unseen > 0
            else f"{-unseen} frames more than packets"
        )
    return dataclasses.replace(row, num_frames=found.num_frames, fps=found.fps, notes="; ".join(notes))
