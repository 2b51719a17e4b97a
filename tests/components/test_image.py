"""A stage whose code or image is another than the planner saw is refused, and says which of them it is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.derivation import ROOT, code_id
from components.image import FILE, IMAGE, faults, identity, refuse_other
from pipelines.engines.compile import compile_plan
from pipelines.nodes import code_of
from pipelines.plan import resolve
from pipelines.stages import STAGES
from wfm.artifacts import Store
from wfm.errors import InputError

A, B = "registry.example/wfm-training@sha256:" + "a" * 64, "registry.example/wfm-training@sha256:" + "b" * 64


def stage(folder: Path, planned: dict[str, str], **environment: str) -> tuple[int, dict[str, Any]]:
    """A real stage over an empty folder; its exit code and outcome."""
    (folder / "films").mkdir(parents=True)
    store = Store.open(folder / "store")
    run = store.runs.create({"pipeline": "image"})
    spec = {
        "schema_version": 1, "store": store.url, "run_id": run.id, "node": "ingest", "stage": "ingest_videos",
        "component": "ingest_videos", "kind": "videos", "config": {"videos": str(folder / "films")}, "redo": "",
        "promote": "", "reads_truth": False, **planned,
    }  # fmt: skip
    url = run.write("specs/ingest.json", json.dumps(spec))
    done = subprocess.run(
        [sys.executable, "-m", "components.ingest_videos", "--spec", url, "--key-out", str(folder / "key")],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    (outcome,) = [one.outcome for one in run.read_outcomes("ingest")]
    assert outcome is not None, done.stderr
    return done.returncode, outcome


def test_a_stage_of_other_code_than_the_plan_ends_as_wrong_input_before_it_works(tmp_path: Path) -> None:
    code, outcome = stage(tmp_path, {"code": "v1+other", "image_reference": A}, **{IMAGE: B})
    assert (code, outcome["outcome"], outcome["key"]) == (78, "wrong_input", "")
    for said in ("ingest", "code v1+other", A, B, code_id("ingest_videos"), "or plan again"):
        assert said in outcome["reason"]


def test_a_stage_of_the_planned_code_works(tmp_path: Path) -> None:
    code, outcome = stage(tmp_path, {"code": code_id("ingest_videos"), "image_reference": A}, **{IMAGE: A})
    assert code == 78
    assert "nothing else in it" in outcome["reason"], "it came as far as the empty folder"


def test_the_image_is_told_from_the_code_and_what_nobody_knows_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    spec: dict[str, Any] = {"node": "train", "code": "v4", "image_reference": A}
    monkeypatch.setenv(IMAGE, B)
    with pytest.raises(
        InputError, match=r"train: the plan names the image .*a{64}, the launcher runs in .*b{64}.*same \(v4\)"
    ):
        refuse_other(spec, "v4", who="the launcher")
    monkeypatch.setenv(IMAGE, A)
    refuse_other(spec, "v4")
    monkeypatch.delenv(IMAGE)
    refuse_other(spec, "v4")
    refuse_other({"node": "train"}, "v4")
    refuse_other({"node": "train", "code": "v4"}, "v4")
    with pytest.raises(InputError, match=r"code v4 \(image: none\), this stage runs code v5 \(image: no image\)"):
        refuse_other({"node": "train", "code": "v4"}, "v5")


def test_every_spec_that_a_planner_writes_says_its_code_and_the_image_it_knows_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cluster.json").write_text(json.dumps({"images": {"training": A}}))
    monkeypatch.setenv("WFM_CLUSTER", str(tmp_path / "cluster.json"))
    store = Store.open(tmp_path / "store", {"fsync": False})
    plan = resolve("world_model", profile="smoke", store=store)
    for step in compile_plan(plan, store.runs.create({"pipeline": "p"}), store, STAGES):
        spec = json.loads(Path(step.spec.removeprefix("file://")).read_text())
        assert spec["code"] == code_of(plan.node(step.node))
        assert spec["image_reference"] == (A if step.image == "training" else "")


def test_an_image_says_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(identity(tmp_path)) == "no image"
    (tmp_path / FILE).write_text(json.dumps({"role": "training", "code": "c" * 64}))
    assert str(identity(tmp_path)) == f"a training image whose starter set no WFM_IMAGE, code {'c' * 12}"
    monkeypatch.setenv(IMAGE, A)
    assert str(identity(tmp_path)) == f"{A}, code {'c' * 12}"
    for text in ("", "[]", '{"role": "training"}'):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(InputError, match="does not say which image this is"):
            identity(tmp_path)


def test_the_health_check_names_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WFM_CACHE", "/proc/none")
    wrong = "; ".join(faults(tmp_path))
    for said in ("this is no image of wfm", "can write the code", "WFM_CACHE is '/proc/none'"):
        assert said in wrong
    assert ("runs as root" in wrong) == (os.getuid() == 0)
