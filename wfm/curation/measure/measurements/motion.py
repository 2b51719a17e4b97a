"""How fast a clip moves: `wfm.curation.measure.motion`."""

from wfm.curation.measure.measurement import Limit, Measurement

_PLACE = 10
MEASUREMENTS = (
    Measurement(
        name="motion",
        time=True,
        table="scores",
        of=lambda seen: seen.motion.speed,
        limits=(
            Limit(
                reason="low_motion",
                option="minimum_motion",
                evidence="motion {:.3f} picture sides a second",
                place=30,
            ),
        ),
        place=_PLACE,
    ),
    Measurement(
        name="motion_patch_minimum", table="scores", time=True, of=lambda seen: seen.motion.patch_minimum, place=_PLACE
    ),
    Measurement(name="pan_x", table="scores", time=True, of=lambda seen: seen.motion.pan_x, place=_PLACE),
    Measurement(name="pan_y", table="scores", time=True, of=lambda seen: seen.motion.pan_y, place=_PLACE),
    Measurement(
        name="motion_source", table="scores", time=True, kind=str, of=lambda seen: seen.motion.source, place=_PLACE
    ),
)
