"""Stages run in this process, as the entry point would run them."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.context import Context, check_yield
from components.derivation import code_id
from components.entrypoint import node_key
from components.part_range import PartRange
from pipelines.stages import stage
from wfm.artifacts import Artifact, Store
from wfm.registry import uses

StageRunner = Callable[..., Artifact]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def run_stage(store: Store, tmp_path: Path) -> StageRunner:
    """``run_stage("split_clips", {"shots": {…}}, videos=artifact)`` -> the committed artifact."""
    return runner_of(store, tmp_path / "scratch")


@pytest.fixture(scope="session")
def stage_runner() -> Callable[[Store, Path], StageRunner]:
    """``stage_runner(store, scratch)`` -> the same over a store of one's own."""
    return runner_of


def runner_of(
    store: Store, scratch: Path, *, scheduler: str = "", redo: str = "", part_range: PartRange | None = None
) -> StageRunner:
    """``scheduler``: of Dask workers for parts; ``redo``: a nonce, with which everything is made again; ``part_range``: of a
    range, which ends with `RangeDone`."""

    def run(name: str, config: dict[str, Any] | None = None, **inputs: Artifact) -> Artifact:
        module = importlib.import_module(f"components.{name}")
        keys = {of: artifact.key for of, artifact in inputs.items()}
        key = node_key({"component": name, "stage": name, "config": config or {}, "redo": redo}, keys, store)
        if store.has(key):
            return store.artifact(key)
        attempt = store.attempt(key)
        parsed = module.CONFIG.parse(config or {})
        context = Context(
            stage=name,
            component=name,
            node=name,
            run_id="test",
            key=key,
            code_id=code_id(name, uses(parsed)),
            config=parsed,
            store=store,
            inputs=inputs,
            out=attempt.path,
            scratch=scratch / key,
            scheduler=scheduler,
            redo=redo,
            part_range=part_range,
        )
        result = module.run(context)
        check_yield(result, name)
        return attempt.commit(
            stage=name,
            kind=stage(name).output,
            counts=result.counts,
            skipped=result.skipped,
            inputs=keys,
            parts=result.parts,
            extra={**result.extra, "parts_made": context.parts_made},
            config=context.config.resolved(),
        )

    return run
