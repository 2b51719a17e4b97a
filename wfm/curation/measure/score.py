"""Everything that is measured about a clip's pixels, in one decode. All scores are kept; `select` chooses thresholds later.

A clip is decoded once (`one_pass`), and whoever measures is fed from it: codec vectors go to `motion`, small grey frames (every
frame) to `static` and `block_flow`, larger grey stills spread over the whole clip to `sharpness`, `text_overlay`, `quality` and
`video_type`, stills at full size to `quality.Seams`; and, if asked for, larger frames to the text detector (`text_tracks`)
and the safety classifier (`safety`). Two tables, ``scores`` (`rows.Score`) and ``measures`` (`measurements.Measures`), whose
columns are declared in `measurements` and read from a `Seen`.
"""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from wfm.config import how
from wfm.curation.arrays import array_module, unit
from wfm.curation.embed.embed import EmbedConfig, Embedded, Embedder, EmbedWatch
from wfm.curation.measure import quality, sharpness, static, text_overlay
from wfm.curation.measure.camera_moves import CameraMoves, camera_moves
from wfm.curation.measure.frame_sampling import FrameSampling, still_indices
from wfm.curation.measure.measurements import Measures, measurements, values_of
from wfm.curation.measure.motion import Motion, VectorSum
from wfm.curation.measure.safety import SafetyStills
from wfm.curation.measure.small_frames import FrameNumbers, SmallFrames
from wfm.curation.measure.text_tracks import TextConfig, TextTracks, TrackedText
from wfm.curation.measure.video_type import Look, look, video_type
from wfm.curation.one_pass import Channels, Geometry, Wanted, fitted, one_pass
from wfm.curation.one_pass_consumers import Gather
from wfm.curation.per_clip import Fetch, or_skip, run_per_clip
from wfm.curation.rows import Score
from wfm.errors import ConfigError
from wfm.parts.part import PartLike
from wfm.records import Clip

if TYPE_CHECKING:
    from wfm.curation.one_pass import Consumer
    from wfm.data.orientation import Orientation


class ScoreConfig(FrameSampling):
    """What is measured, and on frames of what size."""

    gap_seconds: float = pydantic.Field(0.25, gt=0)
    "Time between the frames whose difference says whether a clip is static [s]."
    measures: bool = False
    "Whether the second table is filled too: about one and a half times the work of the first."
    seam_stills: int = pydantic.Field(8, ge=1)
    "Stills at full size in which seams of coding blocks are looked for: each costs about as much as its decoding."
    text_detector: Literal["", "ppocr"] = ""
    "A neural detector of text beside the classical measure: ppocr (extra curate-models), or none. Needs measures."
    text: TextConfig = TextConfig()
    "How the detector's boxes become tracks."
    nsfw: bool = False
    "Whether stills are judged by the safety classifier (extra curate-models). Needs measures."
    nsfw_stills: int = pydantic.Field(8, ge=1)
    "Stills a clip that it looks at."
    embed: EmbedConfig | None = None
    """Make these embeddings (and signatures) in the same pass over a clip; embed_clips with the same config takes them over.
    In the pipelines it is that of embed_clips if that needs no weights, unless it is given here; null: embed_clips decodes for
    itself."""
    device: Literal["cpu", "cuda"] = how("cpu")
    "Where the array maths runs: cpu (numpy) or cuda (cupy)."
    prefetch_bytes: int = how(64 << 20, ge=0, lt=2**63)
    "Decoded pictures that may wait for a neural model [bytes]; without one nothing is decoded ahead."


def score_part(part: PartLike) -> tuple[dict[str, int], dict[str, int]]:
    """Score the clips of one part; writes ``scores.parquet`` and ``measures.parquet``, and with ``embed`` that stage's tables.

    Returns (counts, skipped by reason).
    """
    import pyarrow.parquet as pq

    config: ScoreConfig = part.config
    measured: list[Measures] = []
    embedded = Embedded(Embedder(config.embed)) if config.embed is not None else None
    answer = run_per_clip(part, lambda fetch: ScoreClip(config, fetch, measured, embedded), Score, "scores")
    tables = {"measures": Measures.to_table(measured), **(embedded.tables() if embedded is not None else {})}
    for name, table in tables.items():
        pq.write_table(table, part.out / f"{name}.parquet", compression="zstd")
    return answer


class ScoreClip:
    """The step: one `Clip` -> its `Score`, and its `Measures` and embedding into what is given for them. Skips a clip that
    cannot be decoded."""

    name = "score"

    def __init__(
        self,
        config: ScoreConfig,
        fetch: Fetch,
        measured: list[Measures] | None = None,
        embedded: Embedded | None = None,
    ) -> None:
        self.config = config
        self._fetch = fetch
        if (config.text_detector or config.nsfw) and not config.measures:
            raise ConfigError(
                "score_clips: text_detector and nsfw write into the measures: add --set score_clips.measures=true"
            )
        self._measured = measured if measured is not None else []
        self._embedded = embedded
        neural = config.text_detector or config.nsfw or (embedded is not None and embedded.embedder.trained is not None)
        self._ahead = config.prefetch_bytes if neural else 0

    def __call__(self, item: Clip) -> Iterable[Score]:
        """One row. Raises `Skip` with the decoder's reason code."""
        path = self._fetch(item.path)
        watch = Watch(self.config, self._embedded.embedder if self._embedded is not None else None)
        or_skip(one_pass, path, watch.consumers, prefetch_bytes=self._ahead)
        seen = Seen(item, path, watch)
        of_clip: dict[str, Any] = {"clip_id": item.clip_id, "clip_sha256": item.clip_sha256}
        score = Score(**of_clip, **values_of("scores", seen))
        if self.config.measures:
            self._measured.append(Measures(**of_clip, **values_of("measures", seen)))
        if self._embedded is not None and watch.embed is not None:
            self._embedded.add(watch.embed, item)
        return [score]


class Watch:
    """Everybody who looks at a clip: add ``consumers`` to a pass, then ask each."""

    def __init__(self, config: ScoreConfig, embedder: Embedder | None = None) -> None:
        self.config = config
        self._vectors = VectorSum()
        self.small = SmallFrames(
            self._vectors,
            side=config.thumbnail_side,
            gap_seconds=config.gap_seconds,
            camera=config.measures,
            device=config.device,
        )
        self._stills = self.gather("gray", config.still_side)
        self.seams = quality.Seams(lambda geometry: still_indices(config.seam_stills, len(geometry.seconds)))
        self.text = TextTracks(config.text) if config.text_detector == "ppocr" else None
        self.safety = SafetyStills(config.nsfw_stills) if config.nsfw else None
        self.embed: EmbedWatch | None = embedder.watch() if embedder is not None else None
        self._turned = _Turned(self.seams)
        declared = measurements() if config.measures else ()
        self.own = {row.name: row.watch(self) for row in declared if row.watch is not None}

    def gather(self, channels: Channels, side: int) -> Gather:
        """A consumer that keeps stills spread over the clip, as stored, their longer side at most ``side`` [pixels]."""
        size, count = fitted(side, enlarge=False), self.config.stills
        return Gather(Wanted(channels, size, frames=lambda geometry: still_indices(count, len(geometry.seconds))))

    @property
    def consumers(self) -> "list[Consumer]":
        found: list[Consumer | None] = [self._vectors, self.small, self._stills]
        found += [self._turned if self.config.measures else None, self.text, self.safety, *self.own.values()]
        return [*(one for one in found if one is not None), *(self.embed.consumers if self.embed is not None else [])]

    def stills(self) -> Any:
        """float32 [S, H, W] in 0..1, on the device; after the pass."""
        return unit(array_module(self.config.device), self._stills.pictures())

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


class Seen:
    """What a measurement is read from: a clip after the pass. Each thing is worked out when it is first asked for."""

    def __init__(self, clip: Clip, path: Path, watch: Watch) -> None:
        """``path`` is the clip's file, ``watch`` has seen it."""
        self.clip, self.path, self._watch = clip, path, watch

    def own(self, name: str) -> Any:
        """The consumer that measurement ``name`` declared, fed; None where the table of measures was not asked for."""
        return self._watch.own.get(name)

    @functools.cached_property
    def stills(self) -> Any:
        """float32 [S, H, W] in 0..1, on the device: grey, as stored, spread over the clip."""
        return self._watch.stills()

    @functools.cached_property
    def numbers(self) -> FrameNumbers:
        """Of every frame."""
        return self._watch.small.numbers()

    @functools.cached_property
    def motion(self) -> Motion:
        """From the codec's vectors, or else from brightness."""
        return self._watch.small.motion()

    @property
    def static_share(self) -> float:
        return static.share_of_rest(self.numbers.gap_change)

    @property
    def frozen_share(self) -> float:
        return static.share_of_repeats(self.numbers.change)

    @property
    def sharpness(self) -> float:
        return sharpness.sharpness(self.stills)

    @functools.cached_property
    def exposure(self) -> tuple[float, float]:
        """(brightness, contrast)."""
        return sharpness.exposure(self.stills)

    @property
    def text_score(self) -> float:
        return text_overlay.overlay_score(self.stills)

    @property
    def moving_share(self) -> float:
        return text_overlay.moving_share(self.stills)

    @functools.cached_property
    def camera(self) -> CameraMoves:
        """Upright. From here on: with measures=true alone."""
        return camera_moves(self._watch.small.camera()).turned(*self._turn)

    @functools.cached_property
    def borders(self) -> quality.Borders:
        """Upright."""
        return self._stored.turned(*self._turn)

    @functools.cached_property
    def picture(self) -> Any:
        """The stills without their borders [S, h, w]."""
        return self._stored.inside(self.stills)

    @functools.cached_property
    def clipped(self) -> tuple[float, float]:
        """Shares of the picture that are crushed, and clipped."""
        return quality.clipped_shares(self.picture)

    @functools.cached_property
    def look(self) -> Look:
        return look(self.numbers.picture_change, self.numbers.block_change, self.picture)

    @property
    def video_type(self) -> str:
        return video_type(self.look, self.camera)

    @property
    def seams(self) -> float:
        return self._watch.seams.result()

    @property
    def bits_per_pixel(self) -> float:
        pixels = max(self.clip.width * self.clip.height * len(self.numbers.seconds), 1)
        return self.path.stat().st_size * 8 / pixels

    @property
    def longest_freeze(self) -> float:
        return quality.longest_freeze(static.repeats(self.numbers.change), self.numbers.seconds)

    @functools.cached_property
    def text(self) -> TrackedText:
        """None throughout where nobody asked for it."""
        return self._watch.text.result() if self._watch.text is not None else TrackedText(None, None, None)

    @property
    def nsfw(self) -> float | None:
        """None where nobody asked for it."""
        return self._watch.safety.result() if self._watch.safety is not None else None

    @functools.cached_property
    def _stored(self) -> quality.Borders:
        return quality.borders(self.stills)

    @property
    def _turn(self) -> tuple[bool, bool, bool]:
        turn = self._watch.turn
        return turn.transpose, turn.mirror_x, turn.mirror_y
