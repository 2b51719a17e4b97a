"""evaluate_model and write_report as the entry point runs them."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.derivation import closure_hash
from components.write_report import WriteReportConfig, external_inputs
from wfm.errors import InputError
from wfm.evaluation.schema import read_metrics

TESTS = Path(__file__).resolve().parent.parent / "wfm" / "evaluation"


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"fixtures_of_{path.parent.name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(store):
    """Inputs of write_report: a small run, committed."""
    made = {
        family: load(TESTS / "conftest.py").make_generated(6, family=family)
        for family in ("diffusion", "autoregressive")
    }
    return load(TESTS / "page" / "conftest.py").build_run(store, made)


def test_importing_a_component_loads_nothing_heavy():
    heavy = ("torch", "cv2", "av", "jinja2")
    code = f"import sys, components.evaluate_model, components.write_report; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_evaluate_then_report(run, run_stage, store):
    config = {"split": "val", "resamples": 50, "examples": 2, "threads": 1}
    report = run_stage("evaluate_model", config, generated=run["generated_diffusion"])
    metrics = read_metrics(report.fetch("metrics.json"))
    assert (metrics.family, metrics.split, metrics.windows) == ("diffusion", "val", 6)
    assert report.manifest.counts == {"inputs": 6, "outputs": 6, "examples": 2}
    assert len(report.table("windows")) == 6 * 6
    assert {entry.path for entry in report.files("examples/")} == {
        "examples/00.mp4",
        "examples/01.mp4",
        "examples/index.json",
    }

    page = run_stage(
        "write_report", {"examples": 1, "action_examples": 1, "rejected": 2}, **{**run, "evaluated_diffusion": report}
    )
    assert page.manifest.counts["videos"] == 3
    html = page.fetch("report/index.html").read_text()
    assert page.manifest.extra["headline"] in html
    assert page.manifest.counts["bytes"] == len(html.encode())


def test_a_split_that_was_not_generated_is_wrong_input(run, run_stage):
    with pytest.raises(InputError, match="'test'"):
        run_stage("evaluate_model", {}, generated=run["generated_diffusion"])


def test_threads_stay_out_of_the_key_and_what_is_looked_at_does_not():
    from components.evaluate_model import EvaluateModelConfig

    plain = EvaluateModelConfig()
    assert plain.override(["threads=3"]).what() == plain.what()
    for change in (
        "split=val",
        "resamples=10",
        "seed=1",
        "flow_gap_frames=3",
        "objects.placed_within_px=2",
        "subsets.fixed_rate_low=1",
    ):
        assert plain.override([change]).what() != plain.what(), change
    assert json.dumps(plain.what())


def test_the_look_of_the_page_is_in_its_key(monkeypatch, tmp_path):
    import wfm.evaluation.page.config as page

    before = external_inputs(WriteReportConfig(), {}, None)
    for path in page.template_parts():
        (tmp_path / path.name).write_text(path.read_text() + "\n")
    monkeypatch.setattr(page, "HERE", tmp_path)
    after = external_inputs(WriteReportConfig(), {}, None)
    assert set(before) == set(after) == set(page.PARTS)
    assert all(before[name] != after[name] for name in before)
    assert closure_hash("write_report")
