"""A compiled template of Kubeflow Pipelines, run by KFP's local runner with processes in place of containers."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import kfp.local
import pytest
from kfp.local.subprocess_task_handler import SubprocessTaskHandler

from components.derivation import ROOT
from pipelines.plan import resolve
from tests.pipelines.engines.kubeflow.local import flow_for, local_runner, outputs, stages_in_place, write_settings
from wfm.artifacts import Store
from wfm.cluster.settings import ClusterSettings, Image

pytestmark = [pytest.mark.smoke, pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")]
IMAGES = {role: f"registry.example/wfm-{role}@sha256:" + "0" * 64 for role in ("curation", "training", "control")}
SETTINGS = ClusterSettings.parse({"images": IMAGES})


Run = Callable[..., dict[str, dict[str, str]]]


def compiled(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, pipeline: str, *overrides: str) -> Run:
    """Compile for a store; what it gives runs that, and returns the outputs of each task that was started."""
    # of its own it starts Python functions alone
    monkeypatch.setattr(SubprocessTaskHandler, "validate_not_container_component", lambda *_: None)
    folder.mkdir()
    write_settings(SETTINGS, folder / "cluster.json")

    def environment(role: Image) -> Mapping[str, str]:
        places = {name: str(folder) for name in ("HOME", "TMPDIR", "WFM_CACHE")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"WFM_CLUSTER": str(folder / "cluster.json"), "WFM_IMAGE": IMAGES[role], "PYTHONPATH": str(ROOT)}
        return {**places, **own, "PATH": path, "WFM_HOME": str(folder)}

    flow = flow_for(pipeline, "smoke", store, *overrides)
    documents = stages_in_place(flow, SETTINGS, folder / "plan", environment, IMAGES.__getitem__)

    def run_here(**arguments: str) -> dict[str, dict[str, str]]:
        shutil.rmtree(folder / "plan", ignore_errors=True)  # each pod has its own
        root = Path(tempfile.mkdtemp(prefix="root-", dir=folder))
        with local_runner(kfp.local.SubprocessRunner(use_venv=False), root) as run:
            run(documents, **arguments)
        return outputs(root)

    return run_here


def test_of_a_run_that_is_made_the_plan_alone_is_started(
    smoke_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(smoke_store, tmp_path / "store", copy_function=os.link)
    store = Store.open(tmp_path / "store")
    plan = resolve("world_model", profile="smoke", store=store)
    run_here = compiled(store, tmp_path / "run", monkeypatch, "world_model")
    (said,) = run_here(run_id="whole").values()
    assert {said[f"make_{node.name}"] for node in plan.nodes} == {said["anything"]} == {"false"}
    assert said["specs"] == store.runs.of("whole").path_of("specs")
    page = str(plan.node("write_report").key)
    shutil.rmtree(tmp_path / "store" / "artifacts" / page)
    made = run_here(run_id="page")
    assert sorted(made) == ["launch-write-report", "plan"], "what is missing, and nothing else"
    assert store.has(page)


@pytest.mark.long
def test_it_makes_the_keys_of_every_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ("simulate_videos.sessions=2", "simulate_videos.views=1")
    store = Store.open(tmp_path / "store")
    plan = resolve("curate", profile="smoke", store=store, overrides=few)
    made = compiled(store, tmp_path / "run", monkeypatch, "curate", *few)()
    told = made.pop("plan")
    assert len(made) == len(plan.nodes) > 8
    for node in plan.nodes:
        assert told[f"make_{node.name}"] == "true"
        assert store.has(str(node.key)), node.name
        assert made[f"launch-{node.name.replace('_', '-')}"]["key"] == node.key
    assert store.resolve("dataset/curated-smoke") == plan.node("write_shards").key
    (run,) = store.runs.list()
    assert all((run.read_outcomes(node.name)[0].outcome or {})["outcome"] == "done" for node in plan.nodes)
