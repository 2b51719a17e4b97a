"""Clips -> numbers, all of them in one decode; `select` chooses thresholds later.

In reading order:

    score           the step; frame_sampling: which frames are looked at
    small_frames    numbers from every frame, stretch by stretch: motion, static (what does not move)
    block_flow      how a picture moves, without the codec's help -> camera_moves
    sharpness, quality, text_overlay    stills: sharpness and light, technical faults, text and logos without a network
    text_detector, text_tracks          text by a network, followed through time
    safety          nudity, by a network
    video_type      what kind of video it is
    measurement, measurements/          the declared rows: column, words, limits; a file each
"""

__all__ = [
    "block_flow",
    "camera_moves",
    "frame_sampling",
    "measurement",
    "measurements",
    "motion",
    "quality",
    "safety",
    "score",
    "sharpness",
    "small_frames",
    "static",
    "text_detector",
    "text_overlay",
    "text_tracks",
    "video_type",
]
