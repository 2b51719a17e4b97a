"""A metric is a declared row: what shows of it follows from the row alone."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from components import derivation
from wfm import registry
from wfm.errors import ConfigError
from wfm.evaluation import metrics
from wfm.evaluation.config import EvaluationConfig
from wfm.evaluation.measure import measure
from wfm.evaluation.metric import FrameMetric, Metric
from wfm.evaluation.page.config import Target
from wfm.evaluation.page.data import PageData
from wfm.evaluation.page.gather import horizon_charts
from wfm.evaluation.page.verdict import judge
from wfm.evaluation.page.write import render
from wfm.evaluation.report import evaluate
from wfm.evaluation.results import result_table
from wfm.registry import uses

CONFIG = EvaluationConfig(split="val", resamples=100)
PLANTED = """
import numpy as np
from wfm.evaluation.metric import FrameMetric

METRIC = FrameMetric(
    name="mean_error",
    title="mean error",
    unit="levels",
    better="lower",
    definition="mean absolute difference, in 8-bit levels",
    of=lambda clips, truth: np.abs(clips.video.astype(int) - truth.video).mean((2, 3, 4)),
    place=15,
    terminal=True,
    charts=("static",),
    limit="Mean error is planted by a test.",
)
"""

Plant = Callable[[str, str], None]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    """Puts a file among the metrics."""
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    names: list[str] = []

    def put(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        names.append(f"{metrics.__name__}.{name}")
        metrics.all_metrics.cache_clear()

    yield put
    metrics.all_metrics.cache_clear()
    for name in names:
        sys.modules.pop(name, None)


def test_the_first_four_stand_in_their_order_and_load_no_torch() -> None:
    names = [row.name for row in metrics.all_metrics()]
    assert [
        name for name in names if name in (first := ("psnr_db", "ssim", "perceptual_distance", "kernel_distance"))
    ] == [*first]
    code = (
        "import sys; from wfm.evaluation.metrics import all_metrics; all_metrics()\n"
        "print([name for name in ('torch', 'cv2', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("row", metrics.all_metrics(), ids=lambda row: row.name)
def test_every_row_speaks(row: Metric) -> None:
    assert row.definition
    assert not row.definition.endswith(".")
    assert not row.limit or row.limit.endswith(".")
    if isinstance(row, FrameMetric):
        assert row.gain(np.array([2.0]), np.array([1.0])) == (1.0 if row.better == "higher" else -1.0)


def test_a_planted_file_is_a_metric_from_report_to_page(make, plant: Plant) -> None:
    plant("mean_error", PLANTED)
    made = make(6)
    found, rows = evaluate(made, None, CONFIG)
    every = found.subsets["all"]
    assert list(dict(every.videos["sampled"]))[:2] == ["psnr_db", "mean_error"]
    truth, video = (made.videos[name][:, made.past_frames :].astype(int) for name in ("truth", "sampled"))
    error = every.videos["sampled"].estimate("mean_error")
    assert error is not None
    assert error.mean == pytest.approx(np.abs(truth - video).mean())
    gain = every.gains["sampled"]["repeat_last"].estimate("mean_error_gain")
    held = every.videos["repeat_last"].estimate("mean_error")
    assert gain is not None
    assert held is not None
    assert gain.mean == pytest.approx(held.mean - error.mean)  # lower is better
    assert found.definitions["mean_error"] == "mean absolute difference, in 8-bit levels"
    by_window = [row["mean_error"] for row in rows if row["video"] == "sampled"]
    assert np.mean(by_window) == pytest.approx(error.mean)
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(result_table([found]))
    assert "mean error" in console.export_text()
    assert "Mean error, where the camera rests" in [chart.title for chart in horizon_charts([found])]
    page = render(PageData(title="t", headline="h", metrics=[found]))
    assert '<th scope="col">mean error, levels</th>' in page
    assert "mean absolute difference, in 8-bit levels" in page
    target = Target.parse(
        {"family": "diffusion", "variant": "sampled", "figure": "gain", "metric": "mean_error", "at_least": 0.5}
    )
    verdict = judge((target,), [found])[0]
    assert "mean error gain over repeat-last at least 0.5 levels" in verdict.text
    assert verdict.met is not None


def test_a_planted_figure_of_a_world_stands_beside_the_others(make, plant: Plant) -> None:
    plant(
        "fastest",
        """
import numpy as np
from wfm.evaluation.metric import WorldMetric

METRICS = (
    WorldMetric(
        name="fastest_flow",
        section="camera",
        title="fastest flow against {rate_name}",
        unit="px/frame",
        better="lower",
        definition="planted",
        of=lambda moved: (np.abs(moved.flow).max((1, 2, 3, 4)), np.ones(len(moved.flow))),
        place=145,
    ),
)
""",
    )
    found, _ = evaluate(make(6), None, CONFIG)
    scores = found.camera.videos["sampled"]
    assert list(dict(scores)) == ["flow_error_px", "fastest_flow", "rate_error"]
    fastest = scores.estimate("fastest_flow")
    assert fastest is not None
    assert fastest.mean > 1
    page = render(PageData(title="t", headline="h", metrics=[found]))
    heads = ("flow error, px/frame", "fastest flow against camera_orbit_rate, px/frame", "camera rate error, deg/s")
    assert "".join(f'<th scope="col">{head}</th>' for head in heads) in page
    assert "object found again" not in page, "nobody knows these worlds"


def test_a_metric_of_another_package_is_measured_where_it_is_named_and_enters_the_key(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, about = tmp_path / "far_metrics", tmp_path / "far_metrics-1.dist-info"
    for folder in (package, about):
        folder.mkdir()
    (package / "__init__.py").write_text(PLANTED)
    (about / "METADATA").write_text("Name: far-metrics\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[wfm.metrics]\nfar = far_metrics:METRIC\nnone = far_metrics:np\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._plug_ins.cache_clear()
    try:
        asked = CONFIG.override(['metrics=["far"]'])
        found, _ = evaluate(make(6), None, asked)
        assert found.subsets["all"].videos["sampled"].estimate("mean_error") is not None
        assert "mean_error" in found.definitions
        assert evaluate(make(6), None, CONFIG)[0].subsets["all"].videos["sampled"].estimate("mean_error") is None
        assert "metrics" not in CONFIG.what()
        assert asked.what()["metrics"] == ["far"]
        before = derivation.module_hashes("evaluate_model", uses(asked))
        (package / "__init__.py").write_text(PLANTED.replace("levels", "LEVELS"))
        after = derivation.module_hashes("evaluate_model", uses(asked))
        assert [name for name in after if before.get(name) != after[name]] == ["far_metrics/__init__.py"]
        assert derivation.module_hashes("evaluate_model", uses(CONFIG)).keys() == before.keys() - {
            "far_metrics/__init__.py"
        }
        with pytest.raises(
            ConfigError, match=r"metric 'none' \(far_metrics:np\): it must be a FrameMetric or a SetMetric"
        ):
            metrics.all_metrics(("none",))
        with pytest.raises(ConfigError, match=r"unknown metric 'near'\. Choices: far, none"):
            metrics.all_metrics(("near",))
    finally:
        registry._plug_ins.cache_clear()
        sys.modules.pop("far_metrics", None)


def test_a_report_is_shown_without_the_metric_that_wrote_it(make, plant: Plant) -> None:
    plant("mean_error", PLANTED)
    found, _ = evaluate(make(6), None, CONFIG)
    (Path(metrics.__path__[-1]) / "mean_error.py").unlink()
    metrics.all_metrics.cache_clear()
    assert '<th scope="col">mean error</th>' in render(PageData(title="t", headline="h", metrics=[found]))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty", "x = 1\n", "empty: no METRIC"),
        ("again", PLANTED.replace("mean_error", "ssim"), "a metric 'ssim' is there already"),
        ("taken", PLANTED.replace("mean_error", "clip_id"), "name it in snake_case"),
        ("spoken", PLANTED.replace("mean_error", "Mean error"), "name it in snake_case"),
    ],
)
def test_a_file_that_declares_no_metric_of_its_own_is_refused(plant: Plant, name: str, text: str, message: str) -> None:
    plant(name, text)
    with pytest.raises(ConfigError, match=message):
        metrics.all_metrics()


def test_a_figure_that_is_not_one_a_frame_is_refused() -> None:
    video = np.zeros((2, 3, 16, 16, 3), np.uint8)
    row = metrics.frame_metric("psnr_db")
    for wrong in (lambda clips, truth: np.zeros(3), lambda clips, truth: np.full((1, 3), np.nan)):
        broken = FrameMetric(name="x", title="x", better="lower", definition="x", of=wrong, place=1)
        with pytest.raises(ValueError, match="metric x"):
            measure({"a": video}, video, (row, broken))


def test_a_target_names_its_metric() -> None:
    target = {"family": "diffusion", "variant": "sampled", "figure": "gain", "at_least": 0.01}
    assert "metric" not in Target.parse(target).what()  # targets of before keep their key
    assert Target.parse({**target, "metric": "ssim"}).what()["metric"] == "ssim"
    with pytest.raises(ConfigError, match=r"no metric 'lpips' with gains; choices: psnr_db, ssim, perceptual_distance"):
        Target.parse({**target, "metric": "lpips"})
    with pytest.raises(ConfigError, match="choose the figure gain or gain_over_flow"):
        Target.parse({**target, "metric": "ssim", "figure": "way_closed"})


@pytest.mark.parametrize("component", ["evaluate_model", "write_report"])
def test_every_metric_is_in_the_code_id(component: str) -> None:
    """Else a new file would leave the reports of before as they are."""
    here = {f"{metrics.__name__}.{path.stem}" for path in Path(metrics.__path__[0]).glob("*.py")}
    assert here - {f"{metrics.__name__}.__init__"} <= set(derivation.closure(component))
