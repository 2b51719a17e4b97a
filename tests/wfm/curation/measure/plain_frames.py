"""What a clip's scores are made of, the plain way: one loop over its frames, all kept. The twin of the shared pass."""

import dataclasses
from pathlib import Path

import numpy as np

from wfm.curation.measure.frame_sampling import FrameSampling, still_indices
from wfm.curation.measure.motion import Motion, VectorMotion, turned
from wfm.data.decode import open_video, to_array
from wfm.data.orientation import Orientation


@dataclasses.dataclass(frozen=True)
class PlainFrames:
    """What one decode of a clip leaves."""

    motion: Motion | None
    "From codec vectors; None if there are none."
    thumbnails: np.ndarray
    "uint8 [T, h, w], grey, every frame."
    seconds: np.ndarray
    "float64 [T]."
    stills: np.ndarray
    "uint8 [S, H, W], grey, spread over the clip."
    colours: np.ndarray
    "uint8 [S, h, w, 3], the same moments in colour, as small as the thumbnails."


def read_plain_frames(path: Path, config: FrameSampling, *, expected_frames: int) -> PlainFrames:
    """Decode a clip once."""
    wanted = still_indices(config.stills, expected_frames)
    thumbnails, stills, colours, seconds = [], [], [], []
    vectors, turn, small, large = None, Orientation(), (0, 0), (0, 0)
    with open_video(path) as video:
        video.stream.codec_context.options = {"flags2": "+export_mvs"}
        for index, frame in enumerate(video.frames()):
            if vectors is None:
                vectors, turn = VectorMotion(frame.width, frame.height), Orientation.of(frame)
                small = _fitted(frame.height, frame.width, config.thumbnail_side, enlarge=True)
                large = _fitted(frame.height, frame.width, config.still_side, enlarge=False)
            vectors.add(frame)
            # Stored, not upright: scores do not change when the picture is turned, and the pan is turned below.
            thumbnails.append(to_array(frame, size=small, channels="gray", upright=False))
            seconds.append(video.seconds(frame.pts))
            if index in wanted:
                stills.append(to_array(frame, size=large, channels="gray", upright=False))
                colours.append(to_array(frame, size=small, upright=False))
    assert vectors is not None
    found = vectors.result()
    return PlainFrames(
        motion=turned(found, turn.transpose, turn.mirror_x, turn.mirror_y) if found is not None else None,
        thumbnails=np.stack(thumbnails),
        seconds=np.array(seconds),
        stills=np.stack(stills),
        colours=np.stack(colours),
    )


def _fitted(height: int, width: int, longer_side: int, *, enlarge: bool) -> tuple[int, int]:
    """(height, width) of the picture with its longer side brought to ``longer_side``, at least 2 pixels each."""
    scale = longer_side / max(height, width)
    if scale > 1 and not enlarge:
        return height, width
    return max(2, round(height * scale)), max(2, round(width * scale))
