"""`--retry-failed`, `--limit` and the estimate of `--dry-run`, on real stages and a real store."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.estimate import estimate
from pipelines.nodes import Node, Plan
from pipelines.plan import refresh
from pipelines.retry_failed import failed_before, is_failure, retry_failed
from wfm.artifacts import Artifact, Store
from wfm.curation.poison import Note, poisoned
from wfm.data.local import known_hash
from wfm.records import Clip, Video

Stage = Callable[..., Artifact]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three videos of 2 s."""
    import av

    (tmp_path / "in").mkdir()
    for seed in range(3):
        picture = np.random.default_rng(seed).integers(0, 256, (8, 24, 3), dtype=np.uint8)
        wide = np.kron(picture, np.ones((8, 8, 1), np.uint8))
        with av.open(str(tmp_path / "in" / f"{seed}.mp4"), "w") as out:
            stream: Any = out.add_stream("libx264", rate=24)
            stream.width = stream.height = 64
            stream.pix_fmt, stream.options = "yuv420p", {"preset": "veryfast", "threads": "1"}
            for t in range(48):
                frame = np.ascontiguousarray(wide[:, 2 * t : 2 * t + 64])
                out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            out.mux(stream.encode())
    return tmp_path / "in"


def plan_of(store: Store, folder: Path, **config: Any) -> Plan:
    """Ingest and split, keyed."""
    nodes = [
        Node("ingest_videos", "ingest_videos", "ingest_videos", {"videos": str(folder), **config}, {}),
        Node("split_clips", "split_clips", "split_clips", {}, {"videos": "ingest_videos"}),
    ]
    plan = Plan("curate", "smoke", nodes, {})
    refresh(plan, store)
    return plan


def statuses(artifact: Artifact) -> dict[str, str]:
    return {row.name: row.status for row in Video.from_table(artifact.table("videos"))}


def test_what_was_poisoned_is_left_out_and_tried_again_when_asked(run_stage: Stage, store: Store, folder: Path) -> None:
    in_ingest, in_split = (known_hash(folder / name) for name in ("0.mp4", "1.mp4"))
    Note("probe", in_ingest, "0.mp4", poisoned="decoding ended by SIGSEGV, 3 times").write(store)
    Note("split", in_split, "1.mp4", poisoned="decoding ended by SIGSEGV, 3 times").write(store)
    config = {"videos": str(folder)}
    videos = run_stage("ingest_videos", config)
    assert statuses(videos) == {"0.mp4": "failed", "1.mp4": "ok", "2.mp4": "ok"}
    assert videos.manifest.skipped == {"poisoned": 1}
    clips = run_stage("split_clips", videos=videos)
    assert clips.manifest.skipped == {"poisoned": 1}
    assert {row.source for row in Clip.from_table(clips.table("clips"))} == {str(folder / "2.mp4")}
    sound = {entry.key for entry in clips.parts if entry.counts["outputs"]}

    plan = plan_of(store, folder)
    assert all(node.done for node in plan.nodes), "nothing is tried again unasked"
    assert failed_before(plan, store) == {"poisoned": 2}
    assert all(node.done for node in plan_of(store, folder).nodes), "asking changes nothing"
    assert retry_failed(plan, store) == {"poisoned": 2}
    assert poisoned(store) == []
    assert not any(node.done for node in plan_of(store, folder).nodes)
    again = run_stage("ingest_videos", config)
    assert set(statuses(again).values()) == {"ok"}
    clips = run_stage("split_clips", videos=again)
    assert clips.manifest.skipped == {}
    assert len({row.source for row in Clip.from_table(clips.table("clips"))}) == 3
    assert sound <= {entry.key for entry in clips.parts}, "what was whole is not made again"
    assert retry_failed(plan_of(store, folder), store) == {}
    assert all(node.done for node in plan_of(store, folder).nodes), "without failures nothing is marked"


def test_choices_are_no_failures() -> None:
    assert all(is_failure(code) for code in ("poisoned", "decode_error", "no_decoder:vvc", "caption_garbled"))
    assert not any(
        is_failure(code) for code in ("purged", "static", "duplicate", "below_minimum_length", "duplicate_bytes")
    )


def test_a_limit_takes_the_first_and_shares_their_parts(run_stage: Stage, store: Store, folder: Path) -> None:
    two = run_stage("ingest_videos", {"videos": str(folder), "limit": 2})
    assert sorted(statuses(two)) == ["0.mp4", "1.mp4"]
    everything = run_stage("ingest_videos", {"videos": str(folder)})
    assert len(statuses(everything)) == 3
    assert {entry.key for entry in two.parts} <= {entry.key for entry in everything.parts}
    assert run_stage("ingest_videos", {"videos": str(folder), "limit": 3}).key == everything.key, (
        "as if no more were there"
    )


def test_an_estimate_comes_from_measured_rates_or_not_at_all(store: Store, folder: Path) -> None:
    costs = estimate(plan_of(store, folder), store)
    assert [(cost.files, cost.seconds) for cost in costs.values()] == [(3, None), (3, None)]
    now = time.time()
    earlier = store.attempt("a" * 64).commit(
        stage="ingest_videos", kind="videos", counts={"inputs": 10}, timings={"started": now - 5, "finished": now},
        resources={"cpu_seconds": 8.0},
    )  # fmt: skip
    store.attempt("b" * 64).commit(
        stage="split_clips", kind="clips", inputs={"videos": earlier.key}, timings={"started": now - 20, "finished": now},
        resources={"cpu_seconds": 40.0},
    )  # fmt: skip
    costs = estimate(plan_of(store, folder), store)
    assert costs["ingest_videos"].seconds == pytest.approx(1.5)
    assert costs["split_clips"].seconds == pytest.approx(6.0)
    assert costs["split_clips"].cpu_seconds == pytest.approx(12.0)
    store.attempt("c" * 64).commit(
        stage="split_clips", kind="clips", inputs={"videos": earlier.key}, timings={"started": now - 1, "finished": now},
        extra={"parts_made": {"made": 1, "of": 20}},
    )  # fmt: skip
    assert estimate(plan_of(store, folder), store)["split_clips"].seconds == pytest.approx(6.0), (
        "a run that found nearly all there says little of what the whole takes"
    )
    limited = estimate(plan_of(store, folder, limit=1), store)
    assert limited["split_clips"].seconds == pytest.approx(2.0)


def test_curate_is_a_command_and_has_commands(
    wfm: Callable[..., Any], store: Store, folder: Path, tmp_path: Path
) -> None:
    """A group of the same name must not hide it, nor the options that make a first try small."""
    place = tmp_path / "store"
    shown = wfm("curate", "--videos", str(folder), "--profile", "smoke", "--limit", "2", "--dry-run", store=place)
    assert "8 of 8 stages would run" in shown.stdout
    assert "no estimate" in shown.stdout
    assert "DATASET" in wfm("curate", "exclude", "--help", store=place).stdout
    assert wfm("curate", store=place, check=False).returncode != 0


def test_what_was_left_out_is_listed_one_by_one(
    run_stage: Stage, store: Store, folder: Path, wfm: Callable[..., Any], film: Callable[..., Path]
) -> None:
    film(folder / "short.mp4", 9, frames=60)  # two shots of 1.25 s
    (folder / "new\nline.mp4").write_text("no video")
    videos = run_stage("ingest_videos", {"videos": str(folder)})
    clips = run_stage("split_clips", videos=videos)
    shown = wfm("artifacts", "skipped", clips.key, store=store.address.root).stdout.splitlines()
    found = [(row["stage"], row["reason"].split(": ")[0], Path(row["source"]).name) for row in map(json.loads, shown)]
    short = ("split_clips", "below_minimum_length", "short.mp4")
    assert found == [("ingest_videos", "not_a_video", "new\nline.mp4"), short, short]
    only = wfm("artifacts", "skipped", clips.key, "--reason", "not_a_video", store=store.address.root).stdout
    assert len(only.splitlines()) == 1
    none = wfm("artifacts", "skipped", clips.key, "--reason", "typo", store=store.address.root, check=False)
    assert "not_a_video" in none.stderr
