"""Videos -> clips: one shot each, true to presentation timestamps, cut without loss where that is possible.

    source -> look (decode once: timeline and cuts) -> spans of a usable length -> cut (copy or encode) -> Clip rows

Every clip carries the actions of its span and the attributes of the shot it shows most of. What is left out (too short,
damaged, not decodable, without actions where its video has some) stands in the table ``skips`` with its reason; what decoding
a video found, beside what its packets promised, in the table ``decoded``.

Reason codes: below_minimum_length, damaged, decode_error and the other codes of `wfm.data.decode`, actions_missing,
interlaced, poisoned.

A still image meets no shot detection: it is one clip of one frame (`stills`).
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.config import Config, how
from wfm.curation.cut.cut_ahead import CutAhead
from wfm.curation.cut.cutter import CutConfig, Cutter, Written
from wfm.curation.cut.decoded import Decoded, decoded_of
from wfm.curation.cut.interlaced import FieldScan
from wfm.curation.cut.shot_detection import ShotConfig
from wfm.curation.cut.shots import Span, look, spans, spans_of_shot, tells_soon
from wfm.curation.cut.stills import keep_image
from wfm.curation.cut.timeline import STILL_SECONDS, Timeline
from wfm.curation.cut.transcode import rgb_of
from wfm.curation.poison import watch
from wfm.curation.source.sidecars import cut_actions, overlapping_shot, read_actions, read_attributes
from wfm.curation.step import Skip, SkippedRow, run_step, skipped_by_reason
from wfm.data.holes import HOLE_SECONDS
from wfm.data.local import known_hash
from wfm.data.source import open_source
from wfm.parts.part import PartLike
from wfm.records import Clip, Video, clip_id_of

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store
    from wfm.data.decode import OpenVideo


class SplitConfig(Config):
    """How videos are divided and cut."""

    shots: ShotConfig = ShotConfig()
    cut: CutConfig = CutConfig()
    held_bytes: int = how(256 << 20, ge=0, lt=2**63)
    "Decoded frames that may wait for the end of their shot, so that it need not be decoded again to be encoded [bytes]."
    prefetch_bytes: int = how(64 << 20, ge=0, lt=2**63)
    "Decoded frames that may wait for transnetv2 [bytes]; for the others nothing is decoded ahead."


def split_part(part: PartLike) -> tuple[dict[str, int], dict[str, int]]:
    """Split the readable videos of one part of ingest, whose key is in ``part.arguments["videos"]``.

    Writes ``clips.parquet``, ``skips.parquet``, ``decoded.parquet``, ``clips/<clip_id>.mp4`` (of still images ``.jpg``,
    ``.png``, ``.webp``) and ``actions/<clip_id>.parquet``.
    Returns (counts, skipped by reason). Raises `SourceGone` when a source has changed since it was ingested.
    """
    import pyarrow.parquet as pq

    store = part.open_store()
    videos = store.part(part.arguments["videos"])
    rows = [row for row in Video.from_table(videos.table("videos")) if row.status == "ok"]
    step = SplitVideo(part.config, store, videos, part.out)
    clips, left = run_step(step, rows)
    skips = step.skips + [
        SkippedRow(step=step.name, video_id=item.item.video_id, source=item.item.source, reason=item.reason)
        for item in left
    ]
    pq.write_table(Clip.to_table(clips), part.out / "clips.parquet")
    pq.write_table(SkippedRow.to_table(skips), part.out / "skips.parquet")
    pq.write_table(Decoded.to_table(step.decoded), part.out / "decoded.parquet")
    seconds = round(sum(row.duration_seconds for row in rows))
    part.work.update(videos=len(rows), video_seconds=seconds, bytes=sum(row.size_bytes for row in rows))
    copied = sum(clip.transcode == "copy" for clip in clips)
    counts = {"inputs": len(rows), "outputs": len(clips), "copied": copied, "encoded": len(clips) - copied}
    counts |= {"images": stills} if (stills := sum(clip.is_image for clip in clips)) else {}
    counts |= {"sound_lost": lost} if (lost := sum(clip.audio.startswith("lost") for clip in clips)) else {}
    return counts, skipped_by_reason(skips)


class SplitVideo:
    """The step: one `Video` -> its `Clip` rows, with files below ``out``. Spans that are left out gather in ``skips``."""

    name = "split"

    def __init__(self, config: SplitConfig, store: "Store", videos: "Artifact", out: Path) -> None:
        self.config = config
        self.skips: list[SkippedRow] = []
        self.decoded: list[Decoded] = []
        self._store = store
        self._videos = videos
        self._out = out
        self._files: list[Path] = []  # of the video at hand

    def __call__(self, row: Video) -> Iterator[Clip]:
        """Clips of a video in order. Raises `Skip` when it cannot be decoded; then no clip of it is kept."""
        from wfm.data.decode import VideoError, open_video

        path = open_source(self._store, row.source, row.video_id)
        self._files = []
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(watch(self._store, self.name, row.video_id, path, row.source))
                if row.is_image:
                    clips = [self._image(row, path)]
                else:
                    clips = list(self._clips(row, stack.enter_context(open_video(path))))
        except VideoError as error:
            self._forget(row)
            raise Skip(error.code, error.words) from error
        yield from clips

    def _clips(self, row: Video, video: "OpenVideo") -> Iterator[Clip]:
        config = self.config.shots
        scan = FieldScan.of_stream(video.stream)
        cutter = Cutter(video, self.config.cut, scan)
        ahead = self._cut_ahead(row, cutter) if tells_soon(config) and self.config.held_bytes else None
        prefetch_bytes = self.config.prefetch_bytes if config.detector == "transnetv2" else 0
        still = STILL_SECONDS if row.variable_frame_rate else HOLE_SECONDS
        timeline, cuts = look(video, config, ahead, prefetch_bytes=prefetch_bytes, longest_still=still, seen=scan.frame)
        self.decoded.append(decoded_of(row, video, timeline))
        for bad in timeline.damaged:
            words = f"{bad.num_frames} frames that were decoded from damaged data, or refer to such"
            self._skip(row, video.seconds(bad.start_pts), video.seconds(bad.end_pts), f"damaged: {words}")
        kept, short = spans(timeline, cuts, config)
        for span in short:
            seconds = timeline.seconds_between(span.first, span.last)
            words = f"{seconds:.3f} s, at least {self.config.shots.minimum_seconds:g} s are asked"
            self._skip(row, *_seconds(video, timeline, span), f"below_minimum_length: {words}")
        actions = read_actions(self._videos.fetch(row.actions)) if row.actions else None
        attributes = read_attributes(self._videos.fetch(row.attributes)) if row.attributes else {}
        done = ahead.written if ahead is not None else {}
        for span in kept:
            start, end = _seconds(video, timeline, span)
            if cutter.rejects(int(timeline.pts[span.first]), timeline.end_of(span.last)):
                self._skip(row, start, end, "interlaced: frames are woven of two moments")
                continue
            clip_id = clip_id_of(row.video_id, int(timeline.pts[span.first]), timeline.end_of(span.last))
            action_path = ""
            if actions is not None:
                frame_seconds = (end - start) / (span.last - span.first)
                cut = cut_actions(actions, start, end, frame_seconds)
                if cut is None:
                    self._skip(row, start, end, "actions_missing: the actions do not cover the span")
                    continue
                action_path = f"actions/{clip_id}.parquet"
                self._files.append(self._out / action_path)
                _write_table(cut, self._out / action_path)
            written = done.pop((int(timeline.pts[span.first]), timeline.end_of(span.last)), None)
            yield self._cut(
                row,
                video,
                timeline,
                span,
                written or cutter,
                clip_id,
                action_path,
                overlapping_shot(attributes, start, end),
            )
        for start_pts, end_pts in done:  # encoded, and then without actions
            self._target(row, start_pts, end_pts).unlink()

    def _image(self, row: Video, path: Path) -> Clip:
        """A still image: one frame, an empty span, no rate."""
        config = self.config.cut
        clip_id = clip_id_of(row.video_id, 0, 0)
        kept = keep_image(
            path,
            self._out / f"clips/{clip_id}",
            rgb_of(config.ground),
            premultiplied=config.alpha == "premultiplied",
            most=row.width * row.height,  # ingest has allowed so many
        )
        attributes = read_attributes(self._videos.fetch(row.attributes)) if row.attributes else {}
        return Clip(
            clip_id=clip_id,
            clip_sha256=known_hash(kept.path),
            video_id=row.video_id,
            source=row.source,
            session_id=row.session_id,
            view=row.view,
            start_seconds=0.0,
            end_seconds=0.0,
            start_pts=0,
            end_pts=0,
            time_base="1/1",
            num_frames=1,
            fps=0.0,
            width=kept.width,
            height=kept.height,
            path=kept.path.relative_to(self._out).as_posix(),
            transcode=kept.transcode,
            attributes_json=overlapping_shot(attributes, 0.0, 0.0),
        )

    def _cut_ahead(self, row: Video, cutter: Cutter) -> CutAhead:
        def wanted(timeline: Timeline, shot: Span) -> list[Span]:
            found = spans_of_shot(timeline, shot, self.config.shots)[0]
            return [one for one in found if not cutter.rejects(int(timeline.pts[one.first]), timeline.end_of(one.last))]

        return CutAhead(
            cutter,
            wanted,
            lambda start_pts, end_pts: self._target(row, start_pts, end_pts),
            self.config.held_bytes,
        )

    def _target(self, row: Video, start_pts: int, end_pts: int) -> Path:
        """Where a clip goes; remembered, in case that its video turns out to be broken."""
        path = self._out / f"clips/{clip_id_of(row.video_id, start_pts, end_pts)}.mp4"
        self._files.append(path)
        return path

    def _cut(
        self,
        row: Video,
        video: "OpenVideo",
        timeline: Timeline,
        span: Span,
        how: Cutter | Written,
        clip_id: str,
        action_path: str,
        attributes_json: str,
    ) -> Clip:
        start_pts, end_pts = int(timeline.pts[span.first]), timeline.end_of(span.last)
        path = self._target(row, start_pts, end_pts)
        written = how if isinstance(how, Written) else how.cut(start_pts, end_pts, span.last - span.first, path)
        start, end = _seconds(video, timeline, span)
        return Clip(
            clip_id=clip_id,
            clip_sha256=known_hash(path),
            video_id=row.video_id,
            source=row.source,
            session_id=row.session_id,
            view=row.view,
            start_seconds=start,
            end_seconds=end,
            start_pts=start_pts,
            end_pts=end_pts,
            time_base=f"{timeline.time_base.numerator}/{timeline.time_base.denominator}",
            num_frames=written.num_frames,
            fps=written.num_frames / (end - start),
            width=written.width,
            height=written.height,
            path=path.relative_to(self._out).as_posix(),
            transcode=written.transcode,
            action_path=action_path,
            attributes_json=attributes_json,
            audio=written.audio,
            interlaced=written.interlaced,
            uncommon=written.uncommon,
        )

    def _skip(self, row: Video, start: float, end: float, reason: str) -> None:
        self.skips.append(
            SkippedRow(
                step=self.name,
                video_id=row.video_id,
                source=row.source,
                start_seconds=start,
                end_seconds=end,
                reason=reason,
            )
        )

    def _forget(self, row: Video) -> None:
        """Take back what was noted of a video that turned out to be broken: it is skipped whole, and counted once."""
        for path in self._files:
            path.unlink(missing_ok=True)
        self.skips = [skip for skip in self.skips if skip.video_id != row.video_id]
        self.decoded = [one for one in self.decoded if one.video_id != row.video_id]


def _seconds(video: "OpenVideo", timeline: Timeline, span: Span) -> tuple[float, float]:
    return video.seconds(int(timeline.pts[span.first])), video.seconds(timeline.end_of(span.last))


def _write_table(table: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
