"""The signals that conditions make of a clip's frames, beside those of its sidecars."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from wfm.conditions.condition import Condition
from wfm.data.signals import ClipSignals
from wfm.data.windows import decode_sample
from wfm.errors import ConfigError

if TYPE_CHECKING:
    from wfm.data.shards import Sample


def with_tracks(
    signals: ClipSignals, sample: "Sample", makers: Mapping[str, Condition], size: tuple[int, int]
) -> ClipSignals:
    """The signals of a sample and what each of `makers` makes of its frames of `size` (height, width); no frame is decoded
    without one. Raises ConfigError for a condition that makes none, or whose name a sidecar has."""
    if not makers:
        return signals
    frames, fps = decode_sample(sample, size).frames, float(signals.row["fps"])
    made = {name: condition.track(frames, fps) for name, condition in makers.items()}
    for name, track in made.items():
        if track is None or name in signals.tracks:
            why = "makes no signal of frames" if track is None else "is a sidecar of the data set too"
            raise ConfigError(f"encode_signals.conditions.{name}: {name} {why}; leave it out")
    return replace(signals, tracks={**signals.tracks, **{name: one for name, one in made.items() if one is not None}})
