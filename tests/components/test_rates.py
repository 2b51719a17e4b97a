"""Every stage that works in parts says what goes through it a second, in units that mean something."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from components.context import rates
from wfm.artifacts import Artifact

Stage = Callable[..., Artifact]


def test_rates_have_units() -> None:
    assert rates({"clips": 30, "video_seconds": 90, "bytes": 2_000_000}, 10) == (
        "3 clips/s, 9 video-seconds/s, 0.2 MB/s"
    )
    assert rates({}, 0) == "", "parts that were there already are no work"


def test_stages_tell_their_rates(
    run_stage: Stage, film: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "wfm.progress"):
        clips = run_stage(
            "split_clips", videos=run_stage("ingest_videos", {"videos": str(film(tmp_path / "film.mp4", 1))})
        )
        run_stage("score_clips", clips=clips)
    told = [line for line in caplog.messages if " parts in " in line and "/s" in line]
    of = [re.findall(r"[\d.e+-]+ (\S+)/s", line) for line in told]
    assert of == [["videos", "MB"], ["videos", "video-seconds", "MB"], ["clips", "video-seconds", "MB"]]
