"""Text and logos that stay in place, without a network: `wfm.curation.measure.text_overlay`."""

from typing import Any

from wfm.curation.measure.measurement import Limit, Measurement

_MOVES = 0.33  # share of edge strength that does not stay in place
_PLACE = 40


def _mark(row: Any) -> float | None:
    """None for a still image, in which nothing moves."""
    if row.moving_share is None:
        return None
    return row.text_score if row.moving_share > _MOVES else 0.0


MEASUREMENTS = (
    Measurement(
        name="text_score",
        time=True,
        table="scores",
        share=True,
        of=lambda seen: seen.text_score,
        limits=(
            Limit(
                reason="text_overlay",
                option="maximum_text_score",
                evidence="{:.1%} of the picture under overlaid strokes",
                place=40,
            ),
            Limit(reason="mark_overlay", option="maximum_mark_score", evidence="", of=_mark, place=50),
        ),
        place=_PLACE,
    ),
    Measurement(
        name="moving_share", table="scores", time=True, share=True, of=lambda seen: seen.moving_share, place=_PLACE
    ),
)
