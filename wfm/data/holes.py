"""When time is missing between two frames of a video whose frames otherwise come evenly; free of codec libraries."""

HOLE_SECONDS = 1.0
"A frame that lasts longer is followed by a hole, and is no still picture."
