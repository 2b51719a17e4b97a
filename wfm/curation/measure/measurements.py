"""The second table of scores: what is measured beside `rows.Score`, one row a clip, in ``measures.parquet`` of the scores.

Columns are documented with their units; a score that was not asked for, or whose model is not there, is null: never a guess.
"""

import dataclasses

from wfm.records import Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measures(Record):
    """Measures of one clip. Shares are of its frames or of its picture, 0 to 1; upright."""

    clip_id: str
    clip_sha256: str
    "The clip bytes they were made from."
    flow: float
    "Mean speed of textured blocks by the pixels alone [longer sides a second]: the same for every encoder."
    flow_minimum: float
    "The same in the calmest textured block."
    camera_pan: float
    "Camera to the right [longer sides a second]."
    camera_tilt: float
    "Camera upwards [longer sides a second]."
    camera_zoom: float
    "Growth of the content [1 a second]."
    camera_roll: float
    "Clockwise turn of the content [degrees a second]."
    camera_shake: float
    "Typical fast part of the camera's speed [longer sides a second]."
    own_motion: float
    "Speed beyond the camera's in the busiest 4 of 64 blocks [longer sides a second]."
    camera_known: float
    "Share of frame pairs from which the camera could be told."
    camera_tags: str
    "Tags, blank between them: pan_left, tilt_up, zoom_in, roll_left, shake, ..., static, unknown."
    border_top: float
    "Black lines above, share of the height."
    border_bottom: float
    "Below, share of the height."
    border_left: float
    "Share of the width."
    border_right: float
    "Share of the width."
    border_share: float
    "Share of the picture outside of the rectangle."
    border_kind: str
    "letterbox, pillarbox, windowbox, border, or empty."
    under_share: float
    "Share of the picture (without borders) that is crushed to black."
    over_share: float
    "Share clipped to white."
    blockiness: float
    "Jump at the seams of an 8-pixel grid beyond that elsewhere: 0 none, 1 twice."
    bits_per_pixel: float
    "Size of the clip's file over its pixels [bits]: of our own encoder where the clip was transcoded."
    longest_freeze: float
    "Longest time over which one picture is repeated [s]."
    rest_share: float
    "Share of frame pairs at rest."
    jumps: int
    "Times at which a still picture is replaced by another."
    flat_share: float
    "Share of pixels equal to their neighbours."
    hard_share: float
    "Share of the other pixels at which brightness jumps: drawn outlines and letters."
    shades: int
    "Grey levels that hold 60 % of a still's pixels."
    video_type: str
    "still, slideshow, screen, animation, fixed, moving."
    ocr_share: float | None = None
    "Share of the picture under overlaid text by the detector's tracks; null: not asked for."
    ocr_corner: bool | None = None
    "Whether a track stands in a corner: a logo or a clock; null: not asked for."
    ocr_scene_share: float | None = None
    "Mean share of the picture under text that moves with the scene; null: not asked for."
    nsfw: float | None = None
    "Highest probability over stills, 0 to 1; null: not asked for."
