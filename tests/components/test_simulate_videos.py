"""The stage on a real store: parts, counts, nothing done twice, the same bytes for any number of workers."""

import dataclasses
from pathlib import Path

import pytest

from components import simulate_videos
from components.context import Context
from components.derivation import code_id
from wfm.artifacts import Store
from wfm.simulation.config import SimulationConfig

CONFIG = SimulationConfig(
    sessions=2,
    views=2,
    shots_per_video=1,
    seconds_per_shot=(0.5, 0.6),
    junk_seconds=(0.3, 0.4),
    size=64,
    fps=8,
    workers=1,
)


def context(root: Path, config: SimulationConfig) -> Context[SimulationConfig]:
    root.mkdir(exist_ok=True)
    return Context(
        stage="simulate_videos",
        component="simulate_videos",
        node="simulate_videos",
        run_id="run",
        key="0" * 64,
        code_id=code_id("simulate_videos"),
        config=config,
        store=Store.open(str(root / "store")),
        inputs={},
        out=root / "out",
        scratch=root / "scratch",
    )


def test_one_part_a_session_and_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = context(tmp_path, CONFIG)
    result = simulate_videos.run(ctx)
    assert [part.name for part in result.parts] == ["session_0000", "session_0001"]
    assert result.counts["inputs"] == 2
    assert result.counts["outputs"] == result.counts["videos"] == 4
    part = ctx.store.part(result.parts[1].key)
    paths = {entry.path for entry in part.files()}
    assert {
        "videos/session_0001_view_0.mp4",
        "actions/session_0001_view_0.parquet",
        "attributes/session_0001_view_0.json",
        "truth/session_0001_view_0.parquet",
        "truth/session_0001.json",
    } <= paths
    monkeypatch.setattr("wfm.simulation.corpus.simulate_session", lambda *_: pytest.fail("simulated again"))
    assert simulate_videos.run(ctx).parts == result.parts


def test_workers_change_no_byte(tmp_path: Path) -> None:
    alone = simulate_videos.run(context(tmp_path / "one", CONFIG)).parts
    ctx = context(tmp_path / "two", CONFIG.override(["workers=2"]))
    together = simulate_videos.run(ctx).parts
    assert [dataclasses.astuple(part)[:3] for part in alone] == [dataclasses.astuple(part)[:3] for part in together]
    assert ctx.remote_usage["cpu_seconds"] > 0
    assert ctx.scheduler == "", (
        "children are counted with this process: as workers elsewhere they would be counted again"
    )
    assert ctx.parts_made == {"made": 2, "of": 2}
