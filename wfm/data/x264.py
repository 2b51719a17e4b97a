"""Options that make x264 give the same bytes for the same frames, which keys and resumed runs rely on.

One thread is not enough: at widths that are no multiple of 128 its macroblock tree (measured; the assembly reads past what it
was given) gives other bytes from call to call. Without the tree, and without code chosen by the CPU, it does not.
"""

from typing import Literal

__all__ = ["STEADY", "Speed"]

Speed = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"]
"""Its presets."""
STEADY = {"threads": "1", "x264-params": "cpu-independent=1:mbtree=0"}
