"""What kind of video a clip is, and the numbers that is read from: `wfm.curation.measure.video_type`."""

from wfm.curation.measure.measurement import Measurement

_PLACE = 130
MEASUREMENTS = (
    Measurement(
        name="rest_share",
        time=True,
        words="Share of frame pairs at rest.",
        share=True,
        of=lambda seen: seen.look.rest_share,
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="jumps",
        time=True,
        kind=int,
        words="Times at which a still picture is replaced by another.",
        of=lambda seen: seen.look.jumps,
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="flat_share",
        words="Share of pixels equal to their neighbours.",
        share=True,
        of=lambda seen: seen.look.flat_share,
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="hard_share",
        words="Share of the other pixels at which brightness jumps: drawn outlines and letters.",
        share=True,
        of=lambda seen: seen.look.hard_share,
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="shades",
        kind=int,
        words="Grey levels that hold 60 % of a still's pixels.",
        of=lambda seen: seen.look.shades,
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="video_type",
        time=True,
        kind=str,
        words="still, slideshow, screen, animation, fixed, moving.",
        of=lambda seen: seen.video_type,
        null=False,
        place=_PLACE,
    ),
)
