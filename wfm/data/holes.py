"""When the time between two frames of an even video is a hole, and no picture that stands still: it is longer than both."""

HOLE_SECONDS = 1.0
HOLE_FRAMES = 4
"Usual lengths of a frame: in slow videos each lasts long."
