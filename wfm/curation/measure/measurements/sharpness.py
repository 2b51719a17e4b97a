"""Sharpness and light of stills: `wfm.curation.measure.sharpness`."""

from wfm.curation.measure.measurement import Limit, Measurement

_PLACE = 30
MEASUREMENTS = (
    Measurement(
        name="sharpness",
        table="scores",
        of=lambda seen: seen.sharpness,
        limits=(Limit(reason="blurred", option="minimum_sharpness", evidence="sharpness {:.2f}", place=60),),
        place=_PLACE,
    ),
    Measurement(name="brightness", table="scores", share=True, of=lambda seen: seen.exposure[0], place=_PLACE),
    Measurement(
        name="contrast",
        table="scores",
        share=True,
        of=lambda seen: seen.exposure[1],
        limits=(Limit(reason="low_contrast", option="minimum_contrast", evidence="contrast {:.3f}", place=70),),
        place=_PLACE,
    ),
)
