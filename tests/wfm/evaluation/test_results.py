import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from wfm.actions import ActionSpec
from wfm.evaluation.config import EvaluationConfig
from wfm.evaluation.report import evaluate
from wfm.evaluation.results import gain_by_window, number, result_table, write_results
from wfm.evaluation.schema import Estimate, read_metrics

CONFIG = EvaluationConfig(split="val", resamples=100, examples=3)


def shown(metrics_list, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(result_table(metrics_list))
    return console.export_text()


def test_files_say_what_was_measured(make, tmp_path):
    made = make(6)
    metrics, rows = evaluate(made, None, CONFIG)
    assert write_results(metrics, rows, made, CONFIG, tmp_path) == 3
    assert read_metrics(tmp_path / "metrics.json") == metrics
    table = pq.read_table(tmp_path / "windows.parquet").to_pylist()
    sampled = [row["psnr_db"] for row in table if row["video"] == "sampled"]
    assert np.mean(sampled) == pytest.approx(metrics.subsets["all"].videos["sampled"].psnr_db.mean)
    index = json.loads((tmp_path / "examples" / "index.json").read_text())["examples"]
    assert all((tmp_path / example["file"]).stat().st_size > 500 for example in index)
    assert index[0]["rank"] == "1 of 6"
    assert index[-1]["psnr_gain_db"] == pytest.approx(gain_by_window(rows, "sampled").max())


@pytest.mark.parametrize("width", [80, 110])
def test_the_table_holds_every_figure_at_any_width(make, width):
    both = [evaluate(make(6, family=family), None, CONFIG)[0] for family in ("diffusion", "autoregressive")]
    text = shown(both, width)
    for figure in ("diffusion sampled", "autoregressive greedy", "repeat last frame", "optical flow", "val split"):
        assert figure in text
    gain = both[0].subsets["fixed_rate"].gains["sampled"]["repeat_last"].psnr_gain_db
    assert f"{gain.mean:+.2f}" in text
    assert f"[{gain.low:.2f}," in text
    assert f"[{gain.low:.2f},\u00a0{gain.high:.2f}]" in text, "no figure is torn in two"
    assert max(len(line) for line in text.splitlines()) <= width


def test_what_is_absent_is_said(make):
    null = np.zeros((6, 13, 0), np.float32)
    metrics, _ = evaluate(make(6, spec=ActionSpec.null(), actions=null, shuffled_actions=null), None, CONFIG)
    assert "no action named" in " ".join(shown([metrics], 110).split())


def test_numbers_carry_their_interval():
    estimate = Estimate(mean=0.5, low=0.25, high=0.75, windows=3, sessions=2)
    assert number(estimate, sign=True) == "+0.50 [0.25,\u00a00.75]"
    assert number(estimate, 0, percent=True) == "50\u00a0% [25,\u00a075]"
    assert number(None) == "–"
    alone = Estimate(mean=0.5, low=None, high=None, windows=3, sessions=1)
    assert number(alone, sign=True) == "+0.50 [one session]"
