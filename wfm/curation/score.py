"""Everything that is measured about a clip's pixels, in one decode. All scores are kept; `select` chooses thresholds later.

A clip is decoded once (`one_pass`), and whoever measures is fed from it: codec vectors go to `motion`, small grey frames (every
frame) to `static` and `block_flow`, larger grey stills spread over the whole clip to `sharpness`, `overlay`, `quality` and
`video_type`, stills at full size to `quality.Seams`; and, if asked for, larger frames to the text detector (`overlay_tracks`)
and the safety classifier (`safety`). Two tables come of it: ``scores`` (`rows.Score`) and ``measures`` (`measures.Measures`).
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pydantic

from wfm.config import how
from wfm.curation import motion, overlay, quality, sharpness, static
from wfm.curation.arrays import array_module
from wfm.curation.block_flow import block_flow
from wfm.curation.camera_moves import camera_moves
from wfm.curation.measures import Measures
from wfm.curation.one_pass import Geometry, one_pass
from wfm.curation.one_pass_consumers import SignalsOfClip
from wfm.curation.overlay_tracks import TextConfig, TextTracks, TrackedText
from wfm.curation.part import PartLike
from wfm.curation.per_clip import Fetch, or_skip, run_per_clip
from wfm.curation.rows import Score
from wfm.curation.safety import SafetyStills
from wfm.curation.signals import SignalConfig, Signals, read_signals, still_indices
from wfm.curation.video_type import look, video_type
from wfm.errors import ConfigError
from wfm.records import Clip

if TYPE_CHECKING:
    from wfm.curation.one_pass import Consumer
    from wfm.data.orientation import Orientation


class ScoreConfig(SignalConfig):
    """What is measured, and on frames of what size."""

    gap_seconds: float = 0.25
    "Time between the frames whose difference says whether a clip is static [s]."
    measures: bool = False
    "Whether the second table is filled too: about one and a half times the work of the first."
    text_detector: Literal["", "ppocr"] = ""
    "A neural detector of text beside the classical measure: ppocr (extra curate-models), or none. Needs measures."
    text: TextConfig = TextConfig()
    "How the detector's boxes become tracks."
    nsfw: bool = False
    "Whether stills are judged by the safety classifier (extra curate-models). Needs measures."
    nsfw_stills: int = pydantic.Field(8, ge=1)
    "Stills a clip that it looks at."
    device: str = how("cpu")
    "Where the array maths runs: cpu (numpy) or cuda (cupy)."


def score_part(part: PartLike) -> tuple[dict[str, int], dict[str, int]]:
    """Score the clips of one part; writes ``scores.parquet`` and ``measures.parquet``. Returns (counts, skipped by reason)."""
    import pyarrow.parquet as pq

    measured: list[Measures] = []
    answer = run_per_clip(part, lambda fetch: ScoreClip(part.config, fetch, measured), Score, "scores")
    pq.write_table(Measures.to_table(measured), part.out / "measures.parquet", compression="zstd")
    return answer


class ScoreClip:
    """The step: one `Clip` -> its `Score`, and its `Measures` into the list given. Skips a clip that cannot be decoded."""

    name = "score"

    def __init__(self, config: ScoreConfig, fetch: Fetch, measured: list[Measures] | None = None) -> None:
        self.config = config
        self._fetch = fetch
        if (config.text_detector or config.nsfw) and not config.measures:
            raise ConfigError(
                "score_clips: text_detector and nsfw write into the measures: add --set score_clips.measures=true"
            )
        self._measured = measured if measured is not None else []

    def __call__(self, item: Clip) -> Iterable[Score]:
        """One row. Raises `Skip` with the decoder's reason code."""
        path = self._fetch(item.path)
        if not self.config.measures:
            signals = or_skip(read_signals, path, self.config, expected_frames=item.num_frames)
            return [score_of(item, signals, self.config)]
        watch = Watch(self.config)
        or_skip(one_pass, path, watch.consumers)
        signals = watch.signals.result()
        score = score_of(item, signals, self.config)
        self._measured.append(measures_of(item, path, signals, watch, self.config))
        return [score]


class Watch:
    """Everybody who looks at a clip: add ``consumers`` to a pass, then ask each."""

    def __init__(self, config: ScoreConfig) -> None:
        self.signals = SignalsOfClip(config)
        self.seams = quality.Seams(lambda geometry: still_indices(config.stills, len(geometry.seconds)))
        self.text = TextTracks(config.text) if config.text_detector == "ppocr" else None
        self.safety = SafetyStills(config.nsfw_stills) if config.nsfw else None
        self._turned = _Turned(self.seams)

    @property
    def consumers(self) -> "list[Consumer]":
        more: list[Consumer] = [one for one in (self.text, self.safety) if one is not None]
        return [*self.signals.consumers, self._turned, *more]

    @property
    def turn(self) -> "Orientation":
        """How the stored picture is turned upright; known after the pass."""
        assert self._turned.turn is not None
        return self._turned.turn


class _Turned:
    """The seams' consumer, which also notes how the picture stands."""

    def __init__(self, inner: quality.Seams) -> None:
        self.wants, self.feed, self.finish = inner.wants, inner.feed, inner.finish
        self._inner = inner
        self.turn: Orientation | None = None

    def begin(self, geometry: Geometry) -> None:
        self.turn = geometry.turn
        self._inner.begin(geometry)


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


def measures_of(clip: Clip, path: Path, signals: Signals, watch: Watch, config: ScoreConfig) -> Measures:
    """The second row of one clip. ``path`` is its file, ``watch`` has seen it."""
    xp = array_module(config.device)
    thumbnails, stills = _unit(xp, signals.thumbnails), _unit(xp, signals.stills)
    turn = watch.turn
    camera = camera_moves(block_flow(thumbnails, signals.seconds)).turned(turn.transpose, turn.mirror_x, turn.mirror_y)
    stored = quality.borders(stills)
    edges = stored.turned(turn.transpose, turn.mirror_x, turn.mirror_y)
    under, over = quality.clipped_shares(stored.inside(stills))
    seen = look(thumbnails, stills)
    pixels = max(clip.width * clip.height * len(signals.seconds), 1)
    text = watch.text.result() if watch.text is not None else TrackedText(None, None, None)
    return Measures(
        clip_id=clip.clip_id,
        clip_sha256=clip.clip_sha256,
        flow=camera.speed,
        flow_minimum=camera.calmest,
        camera_pan=camera.pan,
        camera_tilt=camera.tilt,
        camera_zoom=camera.zoom,
        camera_roll=camera.roll,
        camera_shake=camera.shake,
        own_motion=camera.own_motion,
        camera_known=camera.known,
        camera_tags=" ".join(camera.tags),
        **{f"border_{name}": share for name, share in dataclasses.asdict(edges).items()},
        border_share=edges.share,
        border_kind=edges.kind,
        under_share=under,
        over_share=over,
        blockiness=watch.seams.result(),
        bits_per_pixel=path.stat().st_size * 8 / pixels,
        longest_freeze=quality.longest_freeze(thumbnails, signals.seconds, static.FROZEN_DIFFERENCE),
        rest_share=seen.rest_share,
        jumps=seen.jumps,
        flat_share=seen.flat_share,
        shades=seen.shades,
        video_type=video_type(seen, camera),
        ocr_share=text.overlay_share,
        ocr_corner=text.corner,
        ocr_scene_share=text.scene_share,
        nsfw=watch.safety.result() if watch.safety is not None else None,
    )


def _unit(xp: Any, frames: np.ndarray) -> Any:
    """uint8 -> float32 in 0..1, on the device."""
    return xp.astype(xp.asarray(frames), xp.float32) / 255
