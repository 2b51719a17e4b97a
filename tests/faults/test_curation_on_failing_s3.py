"""Curation of videos in a bucket that fails, into a store in it: the same files as without faults, and a key is made once."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.components.test_curation_stages import run_stage
from wfm.artifacts import Artifact, Store
from wfm.errors import TryAgain
from wfm.records import Video

FAULTS = ("500", "503", "drop_request", "drop_reply", "cut", "hang")
TRIES = 4
"As many as a run gives a stage."


def in_some_tries(store: Store, name: str, config: dict[str, Any] | None = None, **inputs: Artifact) -> Artifact:
    """A stage, tried again where it asks for it, as a run does."""
    for left in range(TRIES - 1, -1, -1):
        try:
            return run_stage(store, name, config, **inputs)
        except TryAgain:
            if not left:
                raise
    raise AssertionError("unreachable")


def curate(store: Store, source: str) -> list[Artifact]:
    videos = in_some_tries(store, "ingest_videos", {"videos": source})
    clips = in_some_tries(store, "split_clips", videos=videos)
    return [videos, clips]


def files_of(artifact: Artifact) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in artifact.files()}


def test_storms_change_no_byte(
    proxy: Any, film: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    calm = proxy.open()
    monkeypatch.setenv("WFM_STORE_OPTIONS", json.dumps(calm.options))
    client = {name: value for name, value in calm.options.items() if name != "retry_seconds"}
    bucket = proxy.url.rpartition("/")[0]
    for seed in range(2):
        s3fs.S3FileSystem(**client).put(str(film(tmp_path / f"{seed}.mp4", seed)), f"{bucket}/in/{seed}.mp4")
    expected = curate(calm, f"{bucket}/in")
    assert expected[0].manifest.counts == {"inputs": 2, "outputs": 2}

    dice, kinds, spoilt = random.Random(5), itertools.cycle(FAULTS), Counter[tuple[str, str]]()

    def storm(method: str, path: str) -> str | None:
        """The first request of every kind to every video fails, and one in twenty of the others."""
        if "/in/" not in path:
            return dice.choice(FAULTS) if dice.random() < 0.05 else None
        spoilt[method, path] += 1
        return next(kinds) if spoilt[method, path] == 1 else None

    monkeypatch.setenv("WFM_CACHE", str(tmp_path / "empty cache"))
    proxy.plan = staticmethod(storm)
    stormy = Store.open(f"{bucket}/stormy", calm.options)
    found = curate(stormy, f"{bucket}/in")
    proxy.plan = staticmethod(lambda method, path: None)
    assert len(spoilt) >= 4, "a HEAD and a GET for each video"
    assert [artifact.key for artifact in found] == [artifact.key for artifact in expected]
    assert [files_of(artifact) for artifact in found] == [files_of(artifact) for artifact in expected]
    assert {row.status for row in Video.from_table(found[0].table("videos"))} == {"ok"}
    assert all(stormy.verify(artifact.key).ok for artifact in found)
