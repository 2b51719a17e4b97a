"""Everything that is measured about a clip's pixels, in one decode. All scores are kept; `select` chooses thresholds later.

A clip is decoded once (`signals`): codec vectors go to `motion`, small grey frames (every frame) to `static`, larger grey
stills spread over the whole clip to `sharpness` and `overlay`.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from wfm.config import how
from wfm.curation import motion, overlay, sharpness, static
from wfm.curation.arrays import array_module
from wfm.curation.part import PartLike
from wfm.curation.per_clip import Fetch, or_skip, run_per_clip
from wfm.curation.rows import Score
from wfm.curation.signals import SignalConfig, Signals, read_signals
from wfm.records import Clip


class ScoreConfig(SignalConfig):
    """What is measured, and on frames of what size."""

    gap_seconds: float = 0.25
    "Time between the frames whose difference says whether a clip is static [s]."
    device: str = how("cpu")
    "Where the array maths runs: cpu (numpy) or cuda (cupy)."


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


def _unit(xp: Any, frames: np.ndarray) -> Any:
    """uint8 -> float32 in 0..1, on the device."""
    return xp.astype(xp.asarray(frames), xp.float32) / 255
