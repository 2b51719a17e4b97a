"""Text by a network, followed through time: `wfm.curation.measure.text_tracks`."""

from wfm.curation.measure.measurement import Limit, Measurement

_PLACE, _ASKED = 140, "text_detector=ppocr"
MEASUREMENTS = (
    Measurement(
        name="ocr_share",
        words="Share of the picture under overlaid text by the detector's tracks; null: not asked for.",
        share=True,
        of=lambda seen: seen.text.overlay_share,
        asked=_ASKED,
        limits=(Limit(reason="ocr_text", option="measured.maximum_ocr_share", place=170),),
        place=_PLACE,
    ),
    Measurement(
        name="ocr_corner",
        kind=bool,
        words="Whether a track stands in a corner: a logo or a clock; null: not asked for.",
        of=lambda seen: seen.text.corner,
        asked=_ASKED,
        place=_PLACE,
    ),
    Measurement(
        name="ocr_scene_share",
        time=True,
        words="Mean share of the picture under text that moves with the scene; null: not asked for.",
        share=True,
        of=lambda seen: seen.text.scene_share,
        asked=_ASKED,
        place=_PLACE,
    ),
)
