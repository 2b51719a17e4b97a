"""Technical faults of a picture: borders, exposure, compression, frames that stand still (`wfm.curation.measure.quality`)."""

from wfm.curation.measure.measurement import Limit, Measurement

_PLACE = 120


def _edge(name: str, words: str) -> Measurement:
    return Measurement(
        name=f"border_{name}",
        words=words,
        share=True,
        of=lambda seen: getattr(seen.borders, name),
        null=False,
        place=_PLACE,
    )


MEASUREMENTS = (
    _edge("top", "Black lines above, share of the height."),
    _edge("bottom", "Below, share of the height."),
    _edge("left", "Share of the width."),
    _edge("right", "Share of the width."),
    Measurement(
        name="border_share",
        words="Share of the picture outside of the rectangle.",
        share=True,
        of=lambda seen: seen.borders.share,
        limits=(Limit(reason="borders", option="measured.maximum_border_share", place=130),),
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="border_kind",
        kind=str,
        words="letterbox, pillarbox, windowbox, border, or empty.",
        of=lambda seen: seen.borders.kind,
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="under_share",
        words="Share of the picture (without borders) that is crushed to black.",
        share=True,
        of=lambda seen: seen.clipped[0],
        limits=(Limit(reason="under_exposed", option="measured.maximum_under_share", place=140),),
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="over_share",
        words="Share clipped to white.",
        share=True,
        of=lambda seen: seen.clipped[1],
        limits=(Limit(reason="over_exposed", option="measured.maximum_over_share", place=150),),
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="blockiness",
        words="Jump at the seams of an 8-pixel grid beyond that elsewhere: 0 none, 1 twice.",
        of=lambda seen: seen.seams,
        limits=(Limit(reason="blocky", option="measured.maximum_blockiness", place=160),),
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="bits_per_pixel",
        words="Size of the clip's file over its pixels [bits]: of our own encoder where the clip was transcoded.",
        of=lambda seen: seen.bits_per_pixel,
        limits=(Limit(reason="compressed", option="measured.minimum_bits_per_pixel", place=200),),
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="longest_freeze",
        time=True,
        words="Longest time over which one picture is repeated [s].",
        of=lambda seen: seen.longest_freeze,
        limits=(Limit(reason="frozen", option="measured.maximum_longest_freeze", place=120),),
        null=False,
        place=_PLACE,
    ),
)
