"""What does not move, and what is black: `wfm.curation.measure.static`."""

from wfm.curation.measure.measurement import Limit, Measurement

_PLACE = 20
MEASUREMENTS = (
    Measurement(
        name="static_share",
        time=True,
        table="scores",
        share=True,
        of=lambda seen: seen.static_share,
        limits=(
            Limit(reason="static", option="maximum_static_share", evidence="{:.0%} of frames unchanged", place=20),
        ),
        place=_PLACE,
    ),
    Measurement(
        name="frozen_share", table="scores", time=True, share=True, of=lambda seen: seen.frozen_share, place=_PLACE
    ),
    Measurement(
        name="black_share",
        table="scores",
        share=True,
        of=lambda seen: float(seen.numbers.black.mean()),
        limits=(Limit(reason="black", option="maximum_black_share", evidence="{:.0%} of frames black", place=10),),
        place=_PLACE,
    ),
)
