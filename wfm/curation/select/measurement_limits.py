"""Limits on the table of measures, each a filter with a name of its own: what `select` refuses beside its own rules.

All are off until somebody chooses: `wfm curate report` shows what each would drop. A limit on a score that is null (nobody
asked the detector) is an error that says how to get it, never a yes.
"""

import dataclasses
from collections.abc import Callable

from wfm.config import AtLeastZero, Config, Share
from wfm.curation.measure.measurements import Measures
from wfm.curation.measure.video_type import TYPES
from wfm.errors import ConfigError

Question = Callable[[Measures], bool]


class MeasuredLimits(Config):
    """What is refused. None and empty are off."""

    minimum_flow: AtLeastZero | None = None
    "Mean speed of the pixels' own flow [longer sides a second]."
    maximum_shake: AtLeastZero | None = None
    "Fast part of the camera's speed [longer sides a second]; 0.06 is the tag's limit."
    maximum_longest_freeze: AtLeastZero | None = None
    "Longest time over which a picture is repeated [s]."
    maximum_border_share: Share | None = None
    "Share of the picture under black borders."
    maximum_under_share: Share | None = None
    "Share of the picture crushed to black."
    maximum_over_share: Share | None = None
    "Share of the picture clipped to white."
    maximum_blockiness: AtLeastZero | None = None
    "Jump at the seams of coding blocks beyond that elsewhere."
    minimum_bits_per_pixel: AtLeastZero | None = None
    maximum_ocr_share: Share | None = None
    "Share of the picture under overlaid text by the neural detector (score_clips.text_detector=ppocr)."
    drop_ocr_corner: bool = False
    "Refuse clips with overlaid text in a corner."
    maximum_nsfw: Share | None = None
    "Highest probability of the safety classifier (score_clips.nsfw=true); its authors call 0.2 safe, 0.8 not."
    drop_video_types: tuple[str, ...] = ()
    "Types refused, such as slideshow, screen."


UPPER = (
    ("shaky", "maximum_shake", "camera_shake"),
    ("frozen", "maximum_longest_freeze", "longest_freeze"),
    ("borders", "maximum_border_share", "border_share"),
    ("under_exposed", "maximum_under_share", "under_share"),
    ("over_exposed", "maximum_over_share", "over_share"),
    ("blocky", "maximum_blockiness", "blockiness"),
    ("ocr_text", "maximum_ocr_share", "ocr_share"),
    ("unsafe", "maximum_nsfw", "nsfw"),
)
"""(reason, limit, column): refused above."""
LOWER = (
    ("low_flow", "minimum_flow", "flow"),
    ("compressed", "minimum_bits_per_pixel", "bits_per_pixel"),
)
"""(reason, limit, column): refused below."""
_ASK = {"ocr_share": "text_detector=ppocr", "ocr_corner": "text_detector=ppocr", "nsfw": "nsfw=true"}


@dataclasses.dataclass(frozen=True)
class MeasuredRule:
    """One limit that is on: the reason it gives, the column it looks at, the limit, and the question it asks."""

    reason: str
    column: str
    limit: float | str
    refuses: Question


def measured_rules(limits: MeasuredLimits) -> list[MeasuredRule]:
    """The limits that are on, in a fixed order. Raises `ConfigError` for an unknown video type."""
    unknown = [name for name in limits.drop_video_types if name not in TYPES]
    if unknown:
        raise ConfigError(
            f"select_clips.measured.drop_video_types = {unknown[0]!r}: choices are {', '.join(TYPES)}; give a list of these"
        )
    rules = [
        MeasuredRule(reason, column, limit, question(column, limit))
        for rows, question in ((UPPER, _above), (LOWER, _below))
        for reason, name, column in rows
        if (limit := getattr(limits, name)) is not None
    ]
    if limits.drop_ocr_corner:
        rules.append(
            MeasuredRule("ocr_corner", "ocr_corner", "drop_ocr_corner", lambda row: bool(_value(row, "ocr_corner")))
        )
    rules += [
        MeasuredRule(f"type_{name}", "video_type", "drop_video_types", _is_type(name))
        for name in TYPES
        if name in limits.drop_video_types
    ]
    return rules


def _above(column: str, limit: float) -> Question:
    return lambda row: _value(row, column) > limit


def _below(column: str, limit: float) -> Question:
    return lambda row: _value(row, column) < limit


def _is_type(name: str) -> Question:
    return lambda row: row.video_type == name


def _value(row: Measures, column: str) -> float:
    """A measure that a limit asks for. Raises `ConfigError` if it was never made."""
    value = getattr(row, column)
    if value is None:
        raise ConfigError(
            f"a limit of select_clips.measured asks for {column!r}, which was not measured for clip {row.clip_id!r}: run"
            f" score_clips with --set score_clips.{_ASK[column]}, or leave the limit off"
        )
    return float(value)
