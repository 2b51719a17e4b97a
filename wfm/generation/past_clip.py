"""The past, from any video file: its last frames at the model's rate, cropped and scaled to the model's size, every
choice stated."""

import collections
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from wfm.errors import InputError
from wfm.generation.world_model import WorldCard

RATE_TOLERANCE = 0.01
"""Rates that differ by less than this share count as equal."""


@dataclasses.dataclass(frozen=True)
class Past:
    """What a model is given, and how it was made from the file."""

    frames: np.ndarray
    "uint8 [P, H, W, 3]."
    choices: dict[str, Any]
    "Plain JSON values: times of the frames used, crop, scale, resampling."


def read_past(path: Path, card: WorldCard) -> Past:
    """The last ``past_frames`` moments of a video at ``card.fps``, ending with its last frame.

    A file of another rate is resampled by taking, for each moment, the newest frame that was shown by then; nothing is
    blended. The picture is cropped to the model's aspect about its centre and then scaled by area. Raises InputError
    for a file that is missing or too short, VideoError (a DataError) for one that is not a video.
    """
    from wfm.data.probe import probe

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    info = probe(path)
    span = (card.past_frames - 1) / card.fps
    frames, seconds = _tail(path, span + 2.0 / card.fps, card.past_frames)
    same_rate = not info.variable_frame_rate and abs(info.fps - card.fps) <= RATE_TOLERANCE * card.fps
    moments = seconds[-1:] - np.arange(card.past_frames)[::-1] / card.fps
    rounding = _rounding(float(info.time_base), seconds)
    enough = len(frames) >= card.past_frames if same_rate else len(frames) and seconds[0] <= moments[0] + rounding
    if not enough:
        held = seconds[-1] - seconds[0] if len(seconds) else 0.0
        raise InputError(
            f"{path}: {len(frames)} frames over {held:.3f} s of video, {span:.3f} s are needed ({card.past_frames} frames at "
            f"{card.fps:g}/s)"
        )
    if same_rate:
        index = np.arange(len(frames) - card.past_frames, len(frames))
    else:
        index = np.searchsorted(seconds, moments + rounding, side="right") - 1
    picked, cropped = _brought_to([frames[i] for i in index], (info.height, info.width), card.size)
    return Past(
        picked,
        {
            "file": path.name,
            "file_size": [info.height, info.width],
            "file_fps": info.fps,
            "seconds_used": [round(float(seconds[i]), 6) for i in index],
            "resampled": not same_rate,
            **cropped,
        },
    )


def past_of_frames(frames: np.ndarray, card: WorldCard) -> Past:
    """The last ``past_frames`` of frames uint8 ``[T, H, W, 3]`` that are taken to come at ``card.fps``; cropped and scaled as
    those of a file are. Raises InputError for another dtype or shape, and for too few."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise InputError(
            f"past: frames are {frames.dtype} {frames.shape}; wanted uint8 [frames, height, width, 3], RGB"
        )
    if len(frames) < card.past_frames:
        raise InputError(f"past: {len(frames)} frames, {card.past_frames} are needed, {card.fps:g} a second")
    height, width = frames.shape[1:3]
    picked, cropped = _brought_to(list(frames[-card.past_frames :]), (height, width), card.size)
    facts = {"file": "", "file_size": [height, width], "file_fps": card.fps, "resampled": False, **cropped}
    return Past(picked, facts)


def _brought_to(
    frames: list[np.ndarray], shown: tuple[int, int], size: tuple[int, int]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Frames uint8 of the size `shown` -> uint8 ``[P, H, W, 3]`` of `size`, and what was done to the picture."""
    top, left, height, width = centre_crop(*shown, size)
    picked = [_scaled(frame[top : top + height, left : left + width], size) for frame in frames]
    return np.stack(picked), {"crop_top_left_height_width": [top, left, height, width], "scaled_to": list(size)}


def centre_crop(height: int, width: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest box (top, left, height, width) of the aspect of ``size`` in the middle of the picture."""
    scale = min(height / size[0], width / size[1])
    box_height, box_width = min(height, round(size[0] * scale)), min(width, round(size[1] * scale))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def _rounding(tick: float, seconds: np.ndarray) -> float:
    """How far the distance of two times [s] may be off, because the file rounds each to its ``tick``: Matroska, FLV and ASF
    count in 1/1000 s. Where ticks are as long as frames (AVI) the times are exact."""
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
    return max(tick if 3 * tick < step else 0.0, 1e-4) + 1e-6


def _tail(path: Path, seconds: float, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The frames of the last ``seconds`` of a file, ``count`` of them at least, and their times, without holding more."""
    from wfm.data.decode import iter_frames

    kept: collections.deque[tuple[np.ndarray, float]] = collections.deque()
    for frame, when in iter_frames(path):
        kept.append((frame, when))
        while len(kept) > count and kept[0][1] < when - seconds:
            kept.popleft()
    return [frame for frame, _ in kept], np.array([when for _, when in kept])


def _scaled(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 ``[h, w, 3]`` -> uint8 ``[H, W, 3]`` by area, as the training frames were scaled."""
    import av

    if picture.shape[:2] == size:
        return picture
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return frame.reformat(width=size[1], height=size[0], format="rgb24", interpolation="AREA").to_ndarray()
