"""What the camera does, from the pixels alone: `wfm.curation.measure.camera_moves`. Upright."""

from wfm.curation.measure.measurement import Limit, Measurement

_PLACE = 110
MEASUREMENTS = (
    Measurement(
        name="flow",
        words="Mean speed of textured blocks by the pixels alone [longer sides a second]: the same for every encoder.",
        of=lambda seen: seen.camera.speed,
        limits=(Limit(reason="low_flow", option="measured.minimum_flow", place=190),),
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="flow_minimum",
        words="The same in the calmest textured block.",
        of=lambda seen: seen.camera.calmest,
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="camera_pan",
        words="Camera to the right [longer sides a second].",
        of=lambda seen: seen.camera.pan,
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="camera_tilt",
        words="Camera upwards [longer sides a second].",
        of=lambda seen: seen.camera.tilt,
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="camera_zoom",
        words="Growth of the content [1 a second].",
        of=lambda seen: seen.camera.zoom,
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="camera_roll",
        words="Clockwise turn of the content [degrees a second].",
        of=lambda seen: seen.camera.roll,
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="camera_shake",
        words="Typical fast part of the camera's speed [longer sides a second].",
        of=lambda seen: seen.camera.shake,
        limits=(Limit(reason="shaky", option="measured.maximum_shake", place=110),),
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="own_motion",
        words="Speed beyond the camera's in the busiest 4 of 64 blocks [longer sides a second].",
        of=lambda seen: seen.camera.own_motion,
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="camera_known",
        words="Share of frame pairs from which the camera could be told.",
        share=True,
        of=lambda seen: seen.camera.known,
        null=False,
        place=_PLACE,
    ),
    Measurement(
        name="camera_tags",
        kind=str,
        words="Tags, blank between them: pan_left, tilt_up, zoom_in, roll_left, shake, ..., static, unknown.",
        of=lambda seen: " ".join(seen.camera.tags),
        null=False,
        place=_PLACE,
    ),
)
