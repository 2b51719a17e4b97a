"""What the simulator knows about a window: its objects, frame by frame. The only place that opens `truth/`."""

import io
import posixpath
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.errors import DataError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

SCHEME = "wfm://"


class Worlds:
    """Reads `truth/<name>.parquet` of a raw_videos artifact and its parts, one file at a time, and cuts windows from it."""

    def __init__(self, raw: "Artifact") -> None:
        self._raw = raw
        # A source names the part that holds it by key; a part's files lie below its name.
        self._folders = {raw.key: ""} | {part.key: f"parts/{part.name}/" for part in raw.iterate_parts()}
        self._path = ""
        self._rows: list[dict[str, Any]] = []
        self._times = np.zeros(0)

    def objects(self, source: str, seconds: np.ndarray) -> list[list[dict[str, Any]]] | None:
        """The objects at each of `seconds` (in the video's own time), or None where `source` is no simulated world of
        this artifact.

        Raises DataError where the times do not meet the recorded frames within half a frame.
        """
        path = self.truth_of(source)
        if path is None:
            return None
        self._load(path)
        if not len(self._times):
            return None
        nearest = np.abs(self._times[None, :] - seconds[:, None]).argmin(axis=1)  # [T]
        apart = np.abs(self._times[nearest] - seconds)
        frame = float(np.median(np.diff(self._times))) if len(self._times) > 1 else 1.0
        if apart.max() > frame / 2:
            raise DataError(
                f"{source}: the window's frames miss the simulator's by up to {apart.max():.3f} s (a frame lasts {frame:.3f} s)"
            )
        return [self._rows[index]["objects"] or [] for index in nearest]

    def truth_of(self, source: str) -> str | None:
        """The path of what is known of a video, or None. `source` is `wfm://<key of artifact or part>/videos/<name>.mp4`."""
        if not source.startswith(SCHEME):
            return None
        key, _, inner = source.removeprefix(SCHEME).partition("/")
        folder, name = posixpath.split(inner)
        if key not in self._folders or folder != "videos":
            return None
        path = f"{self._folders[key]}truth/{posixpath.splitext(name)[0]}.parquet"
        return path if self._raw.has_file(path) else None

    def _load(self, path: str) -> None:
        import pyarrow.parquet as pq

        if path == self._path:
            return
        with self._raw.open(path) as file:
            table = pq.read_table(io.BytesIO(file.read()), columns=["pts_seconds", "objects"])
        self._path, self._rows = path, table.to_pylist()
        self._times = np.array([row["pts_seconds"] for row in self._rows], dtype=float)
