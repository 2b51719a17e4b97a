"""Nudity, by a network: `wfm.curation.measure.safety`."""

from wfm.curation.measure.measurement import Limit, Measurement

MEASUREMENTS = (
    Measurement(
        name="nsfw",
        words="Highest probability over stills, 0 to 1; null: not asked for.",
        share=True,
        of=lambda seen: seen.nsfw,
        asked="nsfw=true",
        limits=(Limit(reason="unsafe", option="measured.maximum_nsfw", place=180),),
        place=150,
    ),
)
