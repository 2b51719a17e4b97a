"""Numbers with which a step could only crash, or find nothing, are refused by name before anything runs."""

import pytest

from wfm.config import Config
from wfm.curation.cut.cutter import CutConfig
from wfm.curation.dedup.dedup import DedupConfig
from wfm.curation.embed.embed import EmbedConfig
from wfm.curation.measure.score import ScoreConfig
from wfm.curation.source.ingest import IngestConfig
from wfm.errors import ConfigError

WRONG: list[tuple[type[Config], str, float]] = [
    *((CutConfig, "crf", value) for value in (-1, 64)),
    *((CutConfig, name, 0) for name in ("keyframe_seconds", "hdr_peak_nits")),
    *((ScoreConfig, name, 0) for name in ("thumbnail_side", "still_side", "stills", "gap_seconds")),
    *((EmbedConfig, name, 0) for name in ("frames", "side")),
    *((DedupConfig, name, 0) for name in ("threshold", "leaf", "most_probes", "block")),
    (DedupConfig, "threshold", 1.1),
    *((IngestConfig, name, 0) for name in ("minimum_frames", "maximum_pixels", "part_prefix_length", "part_bytes")),
    (IngestConfig, "part_prefix_length", 65),
]


@pytest.mark.parametrize(("config", "field", "value"), WRONG)
def test_a_number_that_cannot_work_is_refused(config: type[Config], field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field):
        config.parse({field: value})
