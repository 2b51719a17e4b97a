"""A predicted video: its frames, how it was made, and the mp4 and JSON that it is saved as."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wfm.artifacts.atomic import put_with_sidecar, require_free
from wfm.errors import InputError
from wfm.generation.write_video import write_mp4


class Written(NamedTuple):
    """The two files of a generation."""

    video: Path
    sidecar: Path


@dataclass(frozen=True, repr=False)
class Video:
    """What a model makes of a clip: the given frames, and the predicted ones after them."""

    frames: np.ndarray
    "uint8 [frames, height, width, 3], RGB; the first `past` of them are the given ones, as the model saw them."
    fps: float
    "Frames a second [1/s]."
    past: int
    "How many of the frames were given."
    windows: int
    "How many windows the future was drawn in; more than 1: it was rolled out."
    note: str
    "In words, what whoever looks at the video has to know: how far it goes beyond what the model was trained for."
    sidecar: Mapping[str, Any]
    "Everything that it was made from and by, as plain JSON values: model, seed, mode, past, actions, lineage."

    def __repr__(self) -> str:
        height, width = self.frames.shape[1:3]
        parts = f"{self.past} given, {len(self.future)} predicted" + (
            f" in {self.windows} windows" if self.rolled_out else ""
        )
        return f"Video({len(self.frames)} frames of {height}x{width} at {self.fps:g}/s: {parts})"

    @property
    def future(self) -> np.ndarray:
        """The predicted frames alone, uint8 ``[frames - past, height, width, 3]``."""
        return self.frames[self.past :]

    @property
    def seconds(self) -> float:
        """How far into the future it goes [s]."""
        return len(self.future) / self.fps

    @property
    def rolled_out(self) -> bool:
        """Whether it is longer than one window: each window after the first goes on from frames that were predicted."""
        return self.windows > 1

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Written:
        """Write ``path``, an mp4 (H.264), and beside it the sidecar, of the same name with ``.json``; returns both paths.

        Both appear whole or not at all. Raises InputError for a name that does not end in .mp4, a folder that is not there, and
        (without ``force``) for a file that is there already.
        """
        target = Path(path)
        check_target(target, force=force)
        beside = target.with_suffix(".json")
        content = json.dumps(dict(self.sidecar), indent=1, sort_keys=True) + "\n"
        made = target.with_name(f".{target.stem}.{os.getpid()}.mp4")
        try:
            write_mp4(made, self.frames, self.fps)
            put_with_sidecar(made, target, beside, content.encode(), force=force)
        finally:
            made.unlink(missing_ok=True)
        return Written(target, beside)


def check_target(target: Path, *, force: bool) -> None:
    """Raise InputError where a video cannot be written."""
    if target.suffix.lower() != ".mp4":
        raise InputError(f"{target}: the output is an mp4; give a name that ends in .mp4")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent}: no such folder to write into")
    require_free(target, target.with_suffix(".json"), force=force)
