"""How a stored picture is turned upright: the display matrix that phones write beside sideways video."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av


@dataclasses.dataclass(frozen=True)
class Orientation:
    """How the stored picture is turned upright: transpose first, then mirror left-right, then top-bottom."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def degrees(self) -> int:
        """Clockwise turn applied, of 0, 90, 180, 270 (a mirror image counts as its turn)."""
        if self.transpose:
            return 90 if self.mirror_x else 270
        return 180 if self.mirror_y else 0

    @property
    def identity(self) -> bool:
        """Whether nothing has to be done."""
        return not (self.transpose or self.mirror_x or self.mirror_y)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """[H, W, C] as stored -> [H', W', C] upright."""
        if self.transpose:
            image = image.transpose(1, 0, 2)
        if self.mirror_x:
            image = image[:, ::-1]
        if self.mirror_y:
            image = image[::-1]
        return np.ascontiguousarray(image)

    @classmethod
    def of(cls, frame: "av.VideoFrame") -> "Orientation":
        """From a frame's display matrix: x' = a x + c y, y' = b x + d y, in pixels with y pointing down."""
        data = frame.side_data.get("DISPLAYMATRIX")
        if data is None:
            return cls()
        matrix = np.frombuffer(bytes(data), dtype=np.int32)
        if matrix.size < 5:
            return cls()
        a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
        if abs(b) + abs(c) > abs(a) + abs(d):  # nearest right angle
            return cls(transpose=True, mirror_x=c < 0, mirror_y=b < 0)
        return cls(mirror_x=a < 0, mirror_y=d < 0)
