"""Limits on what is measured, each a filter with a name of its own: what `select` refuses beside its own rules.

Each is declared in the row of its measurement (`wfm.curation.measure.measurement`). All are off until somebody chooses:
`wfm curate report` shows what each would drop. A limit on a score that is null (nobody asked the detector) is an error that
says how to get it, never a yes.
"""

import dataclasses
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pydantic

from wfm.config import AtLeastZero, Config, Share, added
from wfm.curation.measure.measurement import Limit, Measurement
from wfm.curation.measure.measurements import Measures, limits, measurements
from wfm.curation.measure.video_type import TYPES
from wfm.errors import ConfigError

Question = Callable[[Measures], bool]


class FirstLimits(Config):
    """What is refused. None and empty are off. Later options are made from the rows of measurements: see `MeasuredLimits`."""

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


_CATEGORIES = {"drop_ocr_corner": "ocr_corner", "drop_video_types": "video_type"}
"""Option that refuses by a word -> its column."""


def _younger() -> dict[str, Any]:
    """Options that rows declare and `FirstLimits` does not have -> (type, field); off, and out of keys while they are."""
    declared = {
        limit.ours: (row, limit) for table in ("scores", "measures") for row, limit in limits(table) if limit.ours
    }
    return {
        name: ((Share if row.share else AtLeastZero) | None, added(None, description=limit.words or row.words))
        for name, (row, limit) in declared.items()
        if name not in FirstLimits.model_fields
    }


if TYPE_CHECKING:
    MeasuredLimits = FirstLimits
else:
    MeasuredLimits = pydantic.create_model(
        "MeasuredLimits", __base__=FirstLimits, __module__=__name__, __doc__=FirstLimits.__doc__, **_younger()
    )


@dataclasses.dataclass(frozen=True)
class MeasuredRule:
    """One limit that is on: the reason it gives, the column it looks at, the limit, and the question it asks."""

    reason: str
    column: str
    limit: float | str
    refuses: Question
    time: bool = False
    "Whether the column takes time to see, so that the limit is none of a still image's."


def limited(option: str) -> Measurement:
    """The measurement on which an option of `MeasuredLimits` is a limit."""
    for row in measurements():
        if row.name == _CATEGORIES.get(option) or any(limit.ours == option for limit in row.limits):
            return row
    raise KeyError(option)


def measured_rules(given: MeasuredLimits) -> list[MeasuredRule]:
    """The limits that are on, in a fixed order. Raises `ConfigError` for an unknown video type."""
    unknown = [name for name in given.drop_video_types if name not in TYPES]
    if unknown:
        raise ConfigError(
            f"select_clips.measured.drop_video_types = {unknown[0]!r}: choices are {', '.join(TYPES)}; give a list of these"
        )
    rules = [
        MeasuredRule(limit.reason, row.name, value, _beyond(row, limit, value), row.time)
        for row, limit in limits("measures")
        if (value := getattr(given, limit.ours)) is not None
    ]
    if given.drop_ocr_corner:
        rules.append(
            MeasuredRule("ocr_corner", "ocr_corner", "drop_ocr_corner", lambda row: bool(_value(row, "ocr_corner")))
        )
    rules += [
        MeasuredRule(f"type_{name}", "video_type", "drop_video_types", _is_type(name), time=True)
        for name in TYPES
        if name in given.drop_video_types
    ]
    return rules


def _beyond(row: Measurement, limit: Limit, value: float) -> Question:
    """Whether a limit refuses."""

    def refuses(measures: Measures) -> bool:
        judged = _value(measures, row.name) if limit.of is None else limit.of(measures)
        return judged is not None and (judged > value if limit.above else judged < value)

    return refuses


def _is_type(name: str) -> Question:
    return lambda row: bool(operator.attrgetter("video_type")(row) == name)


def _value(row: Measures, column: str) -> float:
    """A measure that a limit asks for. Raises `ConfigError` if it was never made."""
    value = getattr(row, column)
    if value is None:
        asked = next(one.asked for one in measurements() if one.name == column) or "measures=true"
        raise ConfigError(
            f"a limit of select_clips.measured asks for {column!r}, which was not measured for clip {row.clip_id!r}: run"
            f" score_clips with --set score_clips.{asked}, or leave the limit off"
        )
    return float(value)
