"""Kept or not, with one reason each, and on which side of the split: a pure step over tables, cheap to run again.

Filters run in a fixed order and the first to refuse names the reason: ``unscored, too_short, black, static, low_motion,
text_overlay, mark_overlay, blurred, low_contrast, low_aesthetic``, those of `measurement_limits`, and ``duplicate`` last.
Duplicates are judged among the clips that passed everything else, from the pairs that `dedup` stored: so every clip refused as
a duplicate has a kept neighbour in this very data set, and none is lost because its better copy was, say, too dark.

Splits: clips that share a source video, a session or a component of duplicates form a group; a group is never divided. The
hash of a group (the smallest hash of its sessions) puts groups in an order; the first ones are train, the next val, the rest
test, with the borders at the rounded cumulative shares, and at least one group each if there are three. Only groups with a
kept clip count. What holds when a video is added: if it joins a group, nothing else moves, unless it brings the group a
smaller hash or joins two groups; if it makes a new group, at most one old group crosses each of the two borders.
"""

import dataclasses
import hashlib
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self

import pydantic

from wfm.config import AtLeastZero, Config, Natural, Seed, Share
from wfm.curation.dedup.keepers import NO_REPEAT, Repeat, choose_keepers, connected
from wfm.curation.measure.measurements import Measures, limits
from wfm.curation.rows import SPLITS, AestheticRow, DuplicatePair, DuplicateRow, Score, Selection
from wfm.curation.select.measurement_limits import MeasuredLimits, MeasuredRule, measured_rules
from wfm.curation.step import Filter, reason_code
from wfm.errors import ConfigError, DataError
from wfm.records import Clip


class SplitRatio(Config):
    """Shares of groups on each side."""

    train: float = pydantic.Field(0.8, ge=0)
    val: float = pydantic.Field(0.1, ge=0)
    test: float = pydantic.Field(0.1, ge=0)
    seed: Seed = 0
    "Another seed puts the groups in another order."

    @pydantic.model_validator(mode="after")
    def _something(self) -> Self:
        if not 0 < self.train + self.val + self.test < 1e30:
            raise ValueError(
                f"train, val and test are {self.train:g}, {self.val:g}, {self.test:g}: one must be above 0"
            )
        return self


class SelectConfig(Config):
    """What is kept. A threshold of None is off."""

    minimum_frames: Natural = 33
    "Frames of the training window: a shorter clip cannot fill one."
    maximum_black_share: Share | None = 0.5
    "Share of frames that are black."
    maximum_static_share: Share | None = 0.95
    "Share of frames that equal the picture a quarter of a second later."
    minimum_motion: AtLeastZero | None = None
    "Mean speed, longer picture sides a second."
    maximum_text_score: AtLeastZero | None = 0.02
    """Share of the picture under overlaid strokes. A word of 7 letters takes 0.04; a busy car window behind a talking head
    took 0.013."""
    maximum_mark_score: AtLeastZero | None = 0.009
    """The same where the rest of the picture moves (moving_share above 0.33), so that what stays is on the screen: a mark of
    two letters took 0.010 there. Before a camera at rest, window frames took 0.018, at a moving_share below 0.26."""
    minimum_sharpness: AtLeastZero | None = 1.0
    "Variance of the Laplacian times 10,000."
    minimum_contrast: AtLeastZero | None = 0.02
    "Standard deviation of brightness within a frame, of 1."
    minimum_aesthetic: float | None = None
    "Score of the head over the embeddings, in its unit; a clip without one (no contrast) is refused too."
    measured: MeasuredLimits = MeasuredLimits()
    "Limits on what stands in the table of measures; all are off by default."
    drop_duplicates: bool = True
    split: SplitRatio = SplitRatio()


@dataclasses.dataclass(frozen=True)
class Scored:
    """What filters judge: a clip and its score, if it could be scored."""

    clip: Clip
    score: Score | None
    measures: Measures | None = None
    aesthetic: float | None = None


@dataclasses.dataclass(frozen=True)
class Judged:
    """What decided about a clip: which score, what it was, and the limit it did not keep."""

    measure: str
    score: float | str
    limit: float | str | None
    "None where no single number is the limit."


@dataclasses.dataclass
class TooShort:
    """Refuses a clip that has fewer frames than a window; a still image fills none and is not asked."""

    limit: int
    name: str = "too_short"

    def reason(self, item: Scored) -> str:
        """The filter's name, or empty to keep the item."""
        asked = item.score is not None and not item.clip.is_image
        return self.name if asked and item.clip.num_frames < self.limit else ""

    def judged(self, item: Scored) -> Judged | None:
        """The number of frames."""
        return None if item.score is None else Judged("num_frames", item.clip.num_frames, self.limit)


@dataclasses.dataclass
class Rule:
    """A `Filter` from a score and a limit that is declared on it: refuses what is above it, or below."""

    name: str
    measure: str
    value: Callable[[Score], float | None]
    limit: float
    above: bool

    def reason(self, item: Scored) -> str:
        """The rule's name, or empty to keep the item: a number that takes time says nothing of a still image."""
        value = self.value(item.score) if item.score is not None else None
        if value is None:
            return ""
        return self.name if (value > self.limit if self.above else value < self.limit) else ""

    def judged(self, item: Scored) -> Judged | None:
        """The number that it looks at."""
        value = self.value(item.score) if item.score is not None else None
        return None if value is None else Judged(self.measure, value, self.limit)


@dataclasses.dataclass
class Unscored:
    """Refuses what could not be measured: it cannot be judged."""

    name: str = "unscored"

    def reason(self, item: Scored) -> str:
        """``unscored``, or empty to keep the item."""
        return self.name if item.score is None else ""


@dataclasses.dataclass
class Unpleasing:
    """Refuses what a head over the embeddings scores below a limit, or could not score."""

    limit: float
    name: str = "low_aesthetic"

    def reason(self, item: Scored) -> str:
        """The filter's name, or empty to keep the item."""
        return "" if item.aesthetic is not None and item.aesthetic >= self.limit else self.name

    def judged(self, item: Scored) -> Judged | None:
        """The head's score; none for a clip that it could not score."""
        return None if item.aesthetic is None else Judged("aesthetic", item.aesthetic, self.limit)


@dataclasses.dataclass
class MeasuredFilter:
    """A `Filter` from a question about measures. Raises `DataError` where they are not there: never a silent yes."""

    name: str
    rule: MeasuredRule

    def reason(self, item: Scored) -> str:
        """The filter's name, or empty to keep the item; a measure that takes time says nothing of a still image."""
        if item.score is None or (self.rule.time and item.clip.is_image):
            return ""
        if item.measures is None:
            raise DataError(
                f"select_clips.measured: clip {item.clip.clip_id!r} has no measures: rerun score_clips with"
                " --set score_clips.measures=true"
            )
        return self.name if self.rule.refuses(item.measures) else ""

    def judged(self, item: Scored) -> Judged | None:
        """The measure that it looks at."""
        if item.measures is None:
            return None
        return Judged(self.rule.column, getattr(item.measures, self.rule.column), self.rule.limit)


def filters(config: SelectConfig) -> list[Filter[Scored]]:
    """The filters that are on, in the order in which they give reasons."""
    rules = [
        Rule(limit.reason, row.name, row.judged(limit), value, limit.above)
        for row, limit in limits("scores")
        if (value := operator.attrgetter(limit.option)(config)) is not None
    ]
    return [
        Unscored(),
        TooShort(config.minimum_frames),
        *rules,
        *([] if config.minimum_aesthetic is None else [Unpleasing(config.minimum_aesthetic)]),
        *(MeasuredFilter(rule.reason, rule) for rule in measured_rules(config.measured)),
    ]


def select_clips(
    clips: Sequence[Clip],
    scores: Iterable[Score],
    duplicates: Iterable[DuplicateRow],
    pairs: Iterable[DuplicatePair],
    config: SelectConfig,
    measures: Iterable[Measures] = (),
    aesthetic: Iterable[AestheticRow] | None = None,
) -> list[Selection]:
    """A row a clip, in order of clip id. Raises `DataError` when the tables do not speak of the same clips, `ConfigError` for a
    limit on an aesthetic score that nobody made (``aesthetic`` is None)."""
    if config.minimum_aesthetic is not None and aesthetic is None:
        raise ConfigError(
            f"select_clips.minimum_aesthetic = {config.minimum_aesthetic}, but the embeddings have no aesthetic score: run"
            " embed_clips with --set embed_clips.aesthetic.head=FILE (and aesthetic.sha256), or leave the limit off"
        )
    clips = sorted(clips, key=lambda clip: clip.clip_id)
    scored = join_scores(clips, scores, measures, aesthetic or ())
    found = {row.clip_id: row for row in duplicates}
    missing = [clip.clip_id for clip in clips if clip.clip_id not in found]
    if missing:
        raise DataError(f"the duplicates table lacks {len(missing)} clips, such as {missing[0]!r}: rerun dedup_clips")
    rules = filters(config)
    reasons = {
        item.clip.clip_id: next((reason for rule in rules if (reason := rule.reason(item))), "") for item in scored
    }
    repeats = {}
    if config.drop_duplicates:
        ranked = sorted(clips, key=lambda clip: found[clip.clip_id].quality_rank)
        repeats = choose_keepers(ranked, pairs, lambda clip: not reasons[clip.clip_id])
        reasons |= dict.fromkeys(repeats, "duplicate")
    groups = group_clips(clips, {row.clip_id: row.component for row in found.values()})
    sides = split_groups(clips, groups, {clip_id for clip_id, reason in reasons.items() if not reason}, config.split)
    return [
        _row(clip, reasons[clip.clip_id], repeats.get(clip.clip_id, NO_REPEAT), groups[clip.clip_id], sides)
        for clip in clips
    ]


def _row(clip: Clip, reason: str, repeat: Repeat, group: str, sides: Mapping[str, str]) -> Selection:
    return Selection(
        clip_id=clip.clip_id,
        kept=not reason,
        reason=reason_code(reason),
        duplicate_of=repeat.of,
        duplicate_tier=repeat.tier,
        duplicate_cosine=repeat.cosine,
        split="" if reason else sides[group],
        group=group,
    )


def group_clips(clips: Sequence[Clip], components: Mapping[str, str]) -> dict[str, str]:
    """Clip id -> its group: the smallest clip id that shares videos, sessions or components with it, at any number of steps."""
    links: list[tuple[str, str]] = []
    first: dict[tuple[str, str], str] = {}
    for clip in clips:
        units = ("video", clip.video_id), ("session", clip.session_id), ("component", components[clip.clip_id])
        for unit in units:
            links.append((first.setdefault(unit, clip.clip_id), clip.clip_id))
    return connected((clip.clip_id for clip in clips), links)


def split_groups(clips: Iterable[Clip], groups: Mapping[str, str], kept: set[str], ratio: SplitRatio) -> dict[str, str]:
    """Group -> ``train``, ``val`` or ``test``, for groups with a kept clip. See the module for what is guaranteed."""
    place: dict[str, str] = {}
    for clip in clips:
        group = groups[clip.clip_id]
        digest = hashlib.sha256(f"{ratio.seed}:{clip.session_id}".encode()).hexdigest()
        place[group] = min(place.get(group, digest), digest)
    used = {groups[clip_id] for clip_id in kept}
    order = sorted(used, key=lambda group: (place[group], group))
    numbers = apportion(len(order), (ratio.train, ratio.val, ratio.test))
    sides = [name for name, number in zip(SPLITS, numbers, strict=True) for _ in range(number)]
    return dict(zip(order, sides, strict=True))


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that add up to ``total``, the borders between them at the rounded cumulative shares.

    From as many items as there are shares above 0, none of these gets 0; with fewer items the first share gets one, then the
    last. A share of 0 gets 0. One item more moves each border by at most one. Raises `DataError` if all shares are 0.
    """
    wanted = [i for i, share in enumerate(shares) if share > 0]
    if not wanted:
        raise DataError(f"split shares {tuple(shares)} add up to nothing: give at least one above 0")
    if total < len(wanted):
        wanted = [wanted[i] for i in (0, -1, *range(1, len(wanted) - 1))][:total]
    numbers, border, cumulative = [0] * len(shares), 0, 0.0
    for rank, i in enumerate(sorted(wanted), start=1):
        cumulative += shares[i]
        rounded = math.floor(total * cumulative / sum(shares) + 0.5)
        reached = min(max(rounded, border + 1), total - (len(wanted) - rank))
        if rank == len(wanted):
            reached = total
        numbers[i], border = reached - border, reached
    return numbers


def counts_of(rows: Iterable[Selection]) -> tuple[dict[str, int], dict[str, int]]:
    """(inputs, outputs and clips by split; refused by reason)."""
    rows = list(rows)
    kept = [row for row in rows if row.kept]
    counts = {"inputs": len(rows), "outputs": len(kept), "groups": len({row.group for row in kept})}
    counts |= {f"clips_{name}": sum(row.split == name for row in kept) for name in SPLITS}
    return counts, dict(sorted(Counter(row.reason for row in rows if not row.kept).items()))


def join_scores(
    clips: Sequence[Clip], scores: Iterable[Score], measures: Iterable[Measures], aesthetic: Iterable[AestheticRow]
) -> list[Scored]:
    """Clips with all that was scored, refused if one was made from other bytes."""
    by_id = {score.clip_id: score for score in scores}
    measured = {row.clip_id: row for row in measures}
    pleasing = {row.clip_id: row for row in aesthetic}
    for clip in clips:
        for row in (by_id.get(clip.clip_id), measured.get(clip.clip_id), pleasing.get(clip.clip_id)):
            if row is not None and row.clip_sha256 != clip.clip_sha256:
                raise DataError(f"the score of clip {clip.clip_id!r} was made from other bytes: rerun score_clips")
    return [
        Scored(
            clip,
            by_id.get(clip.clip_id),
            measured.get(clip.clip_id),
            pleasing[clip.clip_id].aesthetic if clip.clip_id in pleasing else None,
        )
        for clip in clips
    ]
