"""Who looks at a video in one pass: shots, frames kept in one form, frames for the embedding.

Each gives exactly what the step that decodes for itself gives; the tests hold them side by side.
"""

from collections.abc import Callable

import numpy as np

from wfm.curation.one_pass import Geometry, Moment, Wanted


class Gather:
    """Keeps the pictures that were wanted: for a few frames of any size, or for small ones."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._pictures: list[np.ndarray] = []
        self._seconds: list[float] = []
        self.video_seconds = np.zeros(0)
        "float64 [T]: when each frame of the whole video is shown; known from the pass's beginning on."

    def wants(self) -> Wanted:
        return self._wanted

    def begin(self, geometry: Geometry) -> None:
        self._pictures, self._seconds = [], []
        self.video_seconds = geometry.seconds

    def feed(self, moment: Moment) -> None:
        if moment.picture is not None:
            self._pictures.append(moment.picture)
            self._seconds.append(moment.seconds)

    def finish(self) -> None:
        pass

    def pictures(self) -> np.ndarray:
        """uint8 [N, H, W] or [N, H, W, 3]."""
        return np.stack(self._pictures)

    def seconds(self) -> np.ndarray:
        """float64 [N]."""
        return np.array(self._seconds)


def spread_frames(count: int, size: tuple[int, int]) -> Gather:
    """Upright RGB frames at the middles of ``count`` equal stretches of the video, as `embed.sample_frames` takes them.

    A frame that serves two stretches is kept once: use `at_middles` to have ``count`` again.
    """
    return Gather(
        Wanted("rgb24", lambda height, width: size, upright=True, frames=lambda g: set(middles(g.seconds, count)))
    )


def middles(seconds: np.ndarray, count: int) -> list[int]:
    """Indices of the frames shown at the middles of ``count`` equal stretches; ``seconds`` float64 [T], T >= 1."""
    frame = (seconds[-1] - seconds[0]) / max(len(seconds) - 1, 1)
    moments = seconds[0] + (np.arange(count) + 0.5) / count * (seconds[-1] - seconds[0] + frame)
    shown = np.clip(np.searchsorted(seconds, moments + 1e-6, side="right") - 1, 0, len(seconds) - 1)
    return [int(index) for index in shown]


def at_middles(pictures: np.ndarray, seconds: np.ndarray, count: int) -> np.ndarray:
    """[count, ...] of the pictures `spread_frames` kept; ``seconds`` are those of the whole video."""
    wanted = middles(seconds, count)
    place = {index: k for k, index in enumerate(sorted(set(wanted)))}
    return pictures[[place[index] for index in wanted]]


class Cuts:
    """The frames that begin a new shot, by any detector of pictures: (index, BGR picture) -> indices."""

    def __init__(self, make: Callable[[], Callable[[int, np.ndarray], list[int]]], shorter_side: int = 128) -> None:
        self._make, self._side = make, shorter_side
        self._detector = make()
        self._cuts: set[int] = set()

    def wants(self) -> Wanted:
        return Wanted("bgr24", self._size)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        scale = min(1.0, self._side / min(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def begin(self, geometry: Geometry) -> None:
        self._detector, self._cuts = self._make(), set()

    def feed(self, moment: Moment) -> None:
        assert moment.picture is not None
        self._cuts.update(self._detector(moment.index, moment.picture))

    def finish(self) -> None:
        pass

    def result(self) -> list[int]:
        """In order."""
        return sorted(self._cuts)
