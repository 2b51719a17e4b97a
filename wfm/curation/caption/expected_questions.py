"""What a captioning model would be asked about clips, known before anything is asked: from the clips' table alone."""

import dataclasses
import math
from typing import TYPE_CHECKING

from wfm.curation.caption.caption_config import CaptionConfig
from wfm.curation.caption.caption_windows import windows
from wfm.records import is_image_path

if TYPE_CHECKING:
    from wfm.artifacts import Artifact


@dataclasses.dataclass(frozen=True)
class Expected:
    """Upper bounds: what was answered before is not asked again. A request's own tokens depend on the model's tokenizer."""

    clips: int
    too_short: int
    windows: int
    requests: int
    pictures: int
    answer_tokens: int

    def __str__(self) -> str:
        return (
            f"{self.clips} clips, {self.too_short} of them too short: {self.windows} windows, at most {self.requests} requests "
            f"with {self.pictures} pictures and {self.answer_tokens} tokens of answers"
        )


def expected(clips: "Artifact", config: CaptionConfig) -> Expected | None:
    """Counts for the clips of an artifact; None when no model is asked."""
    if config.source not in ("endpoint", "local"):
        return None
    shown, found, short, spans, pictures = config.shown, 0, 0, 0, 0
    for _, table in clips.iterate_table("clips", ["num_frames", "start_seconds", "end_seconds", "path"]):
        for row in table.to_pylist():
            here = windows(row["num_frames"], shown.window_frames, still=is_image_path(row["path"]))
            found, short, spans = found + 1, short + (not here), spans + len(here)
            pace = (row["end_seconds"] - row["start_seconds"]) / max(1, row["num_frames"])  # seconds a frame
            for start, end in here:
                pictures += min(end - start, math.floor((end - start - 1) * pace * shown.frames_per_second + 1e-6) + 1)
    requests = spans * (1 + len(config.rewrite.lengths))
    limit = config.endpoint.max_tokens if config.source == "endpoint" else config.local.max_tokens
    return Expected(found, short, spans, requests, pictures, requests * limit)
