"""Everything that is measured about a clip's pixels, in one decode. All scores are kept; `select` chooses thresholds later.

A clip is decoded once: codec vectors go to `motion`, small grey frames (every frame) to `static`, larger grey stills
spread over the whole clip to `sharpness` and `overlay`. Memory is bounded by the small frames: 64 x 64 bytes a frame.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from wfm.config import Config, how
from wfm.curation import motion, overlay, sharpness, static
from wfm.curation.arrays import array_module
from wfm.curation.ingest import PartLike
from wfm.curation.per_clip import Fetch, or_skip, run_per_clip
from wfm.records import Clip, Record


_GOLDEN = (5**0.5 - 1) / 2


class ScoreConfig(Config):
    """What is measured, and on frames of what size."""

    thumbnail_side: int = 64
    "Longer side of the frames that differences are taken of [pixels]."
    still_side: int = 256
    "Longest side of the stills for sharpness and text [pixels]; a smaller picture keeps its size."
    stills: int = 16
    "Stills a clip, spread over all of it."
    gap_seconds: float = 0.25
    "Time between the frames whose difference says whether a clip is static [s]."
    device: str = how("cpu")
    "Where the array maths runs: cpu (numpy) or cuda (cupy)."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score(Record):
    """The scores of one clip. Shares are of its frames or of its picture, 0 to 1."""

    clip_id: str
    clip_sha256: str
    "The clip bytes the scores were made from."
    motion: float
    "Mean speed, longer picture sides a second."
    motion_patch_minimum: float
    "The same in the calmest of 4 x 4 patches: about 0 with a camera at rest."
    pan_x: float
    "Mean velocity of the picture's content to the right, longer sides a second."
    pan_y: float
    "The same, downwards."
    motion_source: str
    "``codec_vectors``, or ``block_difference`` where the codec holds none."
    static_share: float
    frozen_share: float
    black_share: float
    sharpness: float
    brightness: float
    contrast: float
    text_score: float
    "Share of the picture under overlaid strokes."
    moving_share: float
    "Share of edge strength that does not stay in place: near 0, the text score says nothing."


@dataclasses.dataclass(frozen=True)
class Signals:
    """What one decode of a clip leaves."""

    motion: motion.Motion | None
    "From codec vectors; None if there are none."
    thumbnails: np.ndarray
    "uint8 [T, h, w], grey, every frame."
    seconds: np.ndarray
    "float64 [T]."
    stills: np.ndarray
    "uint8 [S, H, W], grey, spread over the clip."
    colours: np.ndarray
    "uint8 [S, h, w, 3], the same moments in colour, as small as the thumbnails."


def score_part(part: PartLike) -> tuple[dict[str, int], dict[str, int]]:
    """Score the clips of one part; writes ``scores.parquet``. Returns (counts, skipped by reason)."""
    return run_per_clip(part, lambda fetch: ScoreClip(part.config, fetch), Score, "scores")


class ScoreClip:
    """The step: one `Clip` -> its `Score`. Skips a clip that cannot be decoded."""

    name = "score"

    def __init__(self, config: ScoreConfig, fetch: Fetch) -> None:
        self.config = config
        self._fetch = fetch

    def __call__(self, item: Clip) -> Iterable[Score]:
        """One row. Raises `Skip` with the decoder's reason code."""
        signals = or_skip(read_signals, self._fetch(item.path), self.config, expected_frames=item.num_frames)
        return [score_of(item, signals, self.config)]


def score_of(clip: Clip, signals: Signals, config: ScoreConfig) -> Score:
    """The row of one clip."""
    xp = array_module(config.device)
    thumbnails = _unit(xp, signals.thumbnails)
    stills = _unit(xp, signals.stills)
    moved = signals.motion or motion.block_motion(thumbnails, signals.seconds)
    brightness, contrast = sharpness.exposure(stills)
    return Score(
        clip_id=clip.clip_id,
        clip_sha256=clip.clip_sha256,
        motion=moved.speed,
        motion_patch_minimum=moved.patch_minimum,
        pan_x=moved.pan_x,
        pan_y=moved.pan_y,
        motion_source=moved.source,
        static_share=static.static_share(thumbnails, signals.seconds, gap_seconds=config.gap_seconds),
        frozen_share=static.frozen_share(thumbnails),
        black_share=static.black_share(thumbnails),
        sharpness=sharpness.sharpness(stills),
        brightness=brightness,
        contrast=contrast,
        text_score=overlay.overlay_score(stills),
        moving_share=overlay.moving_share(stills),
    )


def read_signals(path: Path, config: ScoreConfig, *, expected_frames: int) -> Signals:
    """Decode a clip once. Raises `DataError` if it cannot be decoded or holds no frame."""
    from wfm.data.decode import VideoError, open_video, to_array
    from wfm.data.orientation import Orientation

    wanted = still_indices(config.stills, expected_frames)
    thumbnails, stills, colours, seconds = [], [], [], []
    vectors, turn, small, large = None, Orientation(), (0, 0), (0, 0)
    with open_video(path) as video:
        video.stream.codec_context.options = {"flags2": "+export_mvs"}
        for index, frame in enumerate(video.frames()):
            if vectors is None:
                vectors, turn = motion.VectorMotion(frame.width, frame.height), Orientation.of(frame)
                small = _fitted(frame.height, frame.width, config.thumbnail_side, enlarge=True)
                large = _fitted(frame.height, frame.width, config.still_side, enlarge=False)
            vectors.add(frame)
            # Stored, not upright: scores do not change when the picture is turned, and the pan is turned below.
            thumbnails.append(to_array(frame, size=small, channels="gray", upright=False))
            seconds.append(video.seconds(frame.pts))
            if index in wanted:
                stills.append(to_array(frame, size=large, channels="gray", upright=False))
                colours.append(to_array(frame, size=small, upright=False))
    if vectors is None:
        raise VideoError(path, "no_frames", "the clip holds no frame")
    found = vectors.result()
    return Signals(
        motion=motion.turned(found, turn.transpose, turn.mirror_x, turn.mirror_y) if found is not None else None,
        thumbnails=np.stack(thumbnails),
        seconds=np.array(seconds),
        stills=np.stack(stills),
        colours=np.stack(colours),
    )


def still_indices(count: int, frames: int) -> set[int]:
    """``count`` frames spread over a clip by the golden ratio, the first one among them.

    Uneven on purpose: a moving pattern that repeats itself would look fixed at even steps, and overlaid text is what stays fixed.
    """
    return {int(k * _GOLDEN % 1 * max(frames, 1)) for k in range(count)}


def _fitted(height: int, width: int, longer_side: int, *, enlarge: bool) -> tuple[int, int]:
    """(height, width) of the picture with its longer side brought to ``longer_side``, at least 2 pixels each."""
    scale = longer_side / max(height, width)
    if scale > 1 and not enlarge:
        return height, width
    return max(2, round(height * scale)), max(2, round(width * scale))


def _unit(xp: Any, frames: np.ndarray) -> Any:
    """uint8 -> float32 in 0..1, on the device."""
    return xp.astype(xp.asarray(frames), xp.float32) / 255
