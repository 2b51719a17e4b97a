"""What the camera does in a clip: numbers first, and tags by stated thresholds, from the block grid of `block_flow`.

Directions are the camera's: ``pan_right`` when the content goes left, ``tilt_up`` when it goes down, ``zoom_in`` when it grows,
``roll_left`` when the content turns clockwise. Shifts of a camera that pans and of one that travels look alike from afar;
both are called pan and tilt.
"""

import dataclasses

import numpy as np

from wfm.curation.measure.block_flow import BlockFlow, camera_path

EXPLAINED = 0.35
"A pair of frames whose blocks follow the camera less than this (a cut, a flash, water) says nothing of the camera."
SLOW_SECONDS = 0.5
"Shake is what remains after the mean over this time."
PAN, ZOOM, ROLL, SHAKE = 0.02, 0.03, 2.0, 0.06
"Weakest moves that get a tag: longer sides a second, growth a second, degrees a second, longer sides a second."


@dataclasses.dataclass(frozen=True)
class CameraMoves:
    """A clip's camera, means over time."""

    speed: float
    "Mean speed of known blocks, longer sides a second; 0 if none is known."
    calmest: float
    "The same in the calmest known block."
    pan: float
    "Camera to the right, longer sides a second."
    tilt: float
    "Camera upwards, longer sides a second."
    zoom: float
    "Growth of the content a second."
    roll: float
    "Clockwise turn of the content, degrees a second."
    shake: float
    "Fast part of the shift's speed (its mean over half a second taken out), typical over time: a jump is no shake [same]."
    own_motion: float
    "Mean speed beyond the camera's of the 4 busiest blocks, longer sides a second."
    explained: float
    "Share of known blocks that follow the camera, mean over pairs."
    known: float
    "Share of pairs from which the camera could be told: near 0, the numbers say nothing."

    @property
    def moved(self) -> bool:
        """Whether any tag but ``static`` would be given."""
        return self.tags not in (["static"], ["unknown"])

    def turned(self, transpose: bool, mirror_x: bool, mirror_y: bool) -> "CameraMoves":
        """The camera of the upright picture, whose axes are swapped first and then mirrored."""
        # The content goes (-pan, tilt) in (right, down).
        right, down = (self.tilt, -self.pan) if transpose else (-self.pan, self.tilt)
        right, down = (-right if mirror_x else right), (-down if mirror_y else down)
        odd = (transpose + mirror_x + mirror_y) % 2 == 1
        return dataclasses.replace(self, pan=-right, tilt=down, roll=-self.roll if odd else self.roll)

    @property
    def tags(self) -> list[str]:
        """Names of the moves, in a fixed order; ``static`` if there is none, ``unknown`` if nothing could be told."""
        if self.known < 0.2:
            return ["unknown"]
        found = [
            name
            for value, limit, names in (
                (self.pan, PAN, ("pan_left", "pan_right")),
                (self.tilt, PAN, ("tilt_down", "tilt_up")),
                (self.zoom, ZOOM, ("zoom_out", "zoom_in")),
                (self.roll, ROLL, ("roll_right", "roll_left")),
            )
            if abs(value) > limit
            for name in [names[int(value > 0)]]
        ]
        if self.shake > SHAKE:
            found.append("shake")
        return found or ["static"]


@dataclasses.dataclass(frozen=True)
class CameraTrack:
    """What remains of a clip's flow: seven numbers a pair of frames, and sums for the 64 blocks."""

    pairs: np.ndarray
    "float64 [P, 7]: seconds; shift to the right and down; zoom; roll; share explained; the busiest blocks' own motion."
    speed: np.ndarray
    "float64 [64]: speeds of a block, summed over the pairs in which it is known."
    known: np.ndarray
    "int64 [64]: the number of these pairs."

    @classmethod
    def of(cls, flow: BlockFlow) -> "CameraTrack":
        """Of a clip, or of a stretch of one."""
        path = camera_path(flow)
        own = np.sort(np.where(flow.known, path.residual, 0), axis=1)[:, -4:].mean(axis=1)
        timed = flow.seconds > 0
        speed = np.linalg.norm(flow.shift[timed], axis=-1) / flow.seconds[timed, None] * flow.known[timed]
        columns = (flow.seconds, *path.shift.T, path.zoom, path.roll, path.explained, own)
        return cls(np.stack(columns, axis=1), speed.sum(axis=0), flow.known[timed].sum(axis=0))

    @classmethod
    def joined(cls, stretches: "list[CameraTrack]") -> "CameraTrack":
        """The stretches of a clip, in order."""
        pairs = np.concatenate([one.pairs for one in stretches])
        return cls(pairs, sum(one.speed for one in stretches), sum(one.known for one in stretches))  # type: ignore[arg-type]


def camera_moves(track: CameraTrack) -> CameraMoves:
    """The camera of a clip. A clip of one frame, or without texture, has all zeros and ``known`` 0."""
    seconds, right, down, zoom, roll, explained, own = track.pairs.T
    timed = seconds > 0
    told = timed & (explained > EXPLAINED)
    if not told.any():
        return CameraMoves(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    total = seconds[told].sum()
    shift = np.stack([right, down], axis=1)
    mean = shift[told].sum(axis=0) / total
    known = track.known > 0
    return CameraMoves(
        speed=float(track.speed.sum() / track.known.sum()) if known.any() else 0.0,
        calmest=float((track.speed[known] / track.known[known]).min()) if known.any() else 0.0,
        pan=float(-mean[0]),
        tilt=float(mean[1]),
        zoom=float(zoom[told].sum() / total),
        roll=float(np.degrees(roll[told].sum() / total)),
        shake=_shake(shift, seconds, told),
        own_motion=float(own[told].sum() / total),
        explained=float(explained[timed].mean()),
        known=float(told.sum() / max(timed.sum(), 1)),
    )


def _shake(shift: np.ndarray, seconds: np.ndarray, told: np.ndarray) -> float:
    """Fast part of the shift's speed: its median length, scaled to be the RMS for a tremble that is normal along both axes.

    A median, since a clip that stalls and then catches up has one jump, not a tremble. Pairs that say nothing are left out.
    """
    width = max(3, round(SLOW_SECONDS / max(float(np.median(seconds[told])), 1e-6)) | 1)
    speed = np.where(told[:, None], shift / np.maximum(seconds, 1e-9)[:, None], 0)
    window = np.ones(width)
    number = np.convolve(told.astype(float), window, "full")[width // 2 :][: len(told)]
    slow = np.stack([np.convolve(speed[:, axis], window, "full")[width // 2 :][: len(told)] for axis in (0, 1)], 1)
    fast = (speed - slow / np.maximum(number, 1)[:, None])[told]
    return float(np.median(np.linalg.norm(fast, axis=1)) * np.sqrt(1 / np.log(2)))
