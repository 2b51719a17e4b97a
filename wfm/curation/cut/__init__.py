"""Videos -> clips: one shot each, true to presentation timestamps, without loss where that is possible.

In reading order:

    split       the step
    shots       where to cut (shot_detection: the settings, and what a detector says; shots_gradual: dissolves by arithmetic;
                shots_transnet: by a network)
    timeline    gaps in time and damage; interlaced, combing: film woven of two moments; decoded: what decoding found beside
                what packets promised
    cutter      one span -> one file, its packets copied or its frames encoded (cut_ahead: while the video is still looked at;
                uncommon: what few decoders take)
    transcode   frames of any kind -> a clip (tone_map: HDR to SDR; alpha: on a ground; sound, sound_in_step)
    stills      a still image -> the file that is kept of it: its own bytes, or upright, sRGB and opaque
"""

__all__ = [
    "alpha",
    "combing",
    "cut_ahead",
    "cutter",
    "decoded",
    "interlaced",
    "shot_detection",
    "shots",
    "shots_gradual",
    "shots_transnet",
    "sound",
    "sound_in_step",
    "split",
    "stills",
    "timeline",
    "tone_map",
    "transcode",
    "uncommon",
]
