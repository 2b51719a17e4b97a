"""What an evaluation leaves behind: files, and the table a terminal shows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.evaluation.config import EvaluationConfig
from wfm.evaluation.metric import Metric
from wfm.evaluation.metrics import all_metrics
from wfm.evaluation.schema import Estimate, Metrics, SubsetReport
from wfm.terminal_table import Table

if TYPE_CHECKING:
    from wfm.evaluation.generated import GeneratedVideos

LABELS = {"repeat_last": "repeat last frame", "flow": "optical flow, carried on", "tokenizer": "tokenizer"}
SHORT = {
    "all": "every window",
    "moving": "camera moves",
    "static": "camera rests",
    "fixed_rate": "camera at a fixed rate",
    "changing_action": "action changes",
}
MAIN_SUBSETS = ("fixed_rate", "static")
"""Subsets of the short table: where the margin is expected, and where it is not."""


def write_results(
    metrics: Metrics, rows: list[dict[str, Any]], made: "GeneratedVideos", config: EvaluationConfig, out: Path
) -> int:
    """Write `metrics.json`, `windows.parquet` and `examples/*.mp4` into `out`; returns the number of examples."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from wfm.data.motion import repeat_last
    from wfm.evaluation.example_videos import encode_mp4, panel_grid, spread

    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics.model_dump(mode="json"), indent=1, allow_nan=False))
    table = pa.Table.from_pylist(rows).replace_schema_metadata({b"wfm": b"EvaluatedWindow/1"})
    pq.write_table(table, out / "windows.parquet")
    gains = gain_by_window(rows, metrics.headline_variant)
    chosen = spread(gains, config.examples)
    (out / "examples").mkdir(exist_ok=True)
    index = []
    for place, window in enumerate(chosen):
        held = repeat_last(made.truth[window : window + 1, : made.past_frames], metrics.predicted_frames)[0]
        still = np.concatenate([made.truth[window, : made.past_frames], held])
        panels = [made.truth[window], made.videos[metrics.headline_variant][window], still]
        name = f"{place:02d}.mp4"
        (out / "examples" / name).write_bytes(encode_mp4(panel_grid(panels, columns=3), made.fps))
        sample = made.samples[window]
        index.append(
            {
                "file": f"examples/{name}",
                "panels": ["truth", metrics.headline_variant, "repeat_last"],
                "sample_id": str(sample["sample_id"]),
                "psnr_gain_db": float(gains[window]),
                "rank": f"{int(np.argsort(np.argsort(gains, kind='stable'))[window]) + 1} of {len(gains)}",
            }
        )
    (out / "examples" / "index.json").write_text(json.dumps({"schema_version": 1, "examples": index}, indent=1))
    return len(chosen)


def gain_by_window(rows: list[dict[str, Any]], variant: str, over: str = "repeat_last") -> np.ndarray:
    """PSNR gain [N] of `variant` over a baseline in the order of the windows, from the rows of `windows.parquet`."""
    psnr = {name: [row["psnr_db"] for row in rows if row["video"] == name] for name in (variant, over)}
    return np.array(psnr[variant]) - np.array(psnr[over])


def number(estimate: Estimate | None, digits: int = 2, *, percent: bool = False, sign: bool = False) -> str:
    """A mean with its interval, "+3.10 [2.80, 3.41]"; "[one session]" where it has none, "-" for no mean."""
    if estimate is None:
        return "–"
    factor, unit = (100, "\N{NO-BREAK SPACE}%") if percent else (1, "")
    form = f"{'+' if sign else ''}.{digits}f"
    mean = f"{format(estimate.mean * factor, form)}{unit}"
    if estimate.low is None or estimate.high is None:
        return f"{mean} [one session]"
    return f"{mean} [{estimate.low * factor:.{digits}f},\N{NO-BREAK SPACE}{estimate.high * factor:.{digits}f}]"


def result_table(metrics_list: Sequence[Metrics]) -> Table:
    """The result in one table: each model and baseline, where the camera turns at a fixed rate and where it rests."""
    splits = ", ".join(sorted({metrics.split for metrics in metrics_list})) or "no split"
    shown = [metric for metric in all_metrics() if metric.terminal]
    headings = (*(metric.title for metric in shown), "over repeat-last", "gain", "over flow", "way closed")
    rows: list[list[str]] = []
    notes = []
    for subset in MAIN_SUBSETS:
        known = [m for m in metrics_list if subset in m.subsets and not m.subsets[subset].absent]
        for metrics in metrics_list:
            if metrics not in known:
                reason = metrics.subsets[subset].absent if subset in metrics.subsets else "not evaluated"
                notes.append(f"{SHORT[subset]}, {metrics.family}: {reason}.")
        for order, metrics in enumerate(known):
            rows += _rows_of(metrics, subset, shown, first=order == 0)
    for order, metrics in enumerate(metrics_list):
        for variant, one in metrics.action_sensitivity.items():
            if one.psnr_gain_db is None or one.share_of_windows is None:
                notes.append(f"Action, {metrics.family}: {one.absent}.")
                continue
            if order == 0:
                rows.append([f"right over shuffled action ({one.windows_with_another_action})"])
            gain = number(one.psnr_gain_db, sign=True)
            share = f"{one.share_of_windows.mean * 100:.0f}\N{NO-BREAK SPACE}%"
            rows.append([f"  {metrics.family} {variant}", *[""] * len(shown), gain, share])
    caption = (
        "Mean [95 % interval], dB. In brackets behind a heading: windows. gain: share of windows above repeat-last, or above "
        "the shuffled action. way closed: from repeat-last to the ceiling."
    )
    table = Table(
        "video", *headings, title=f"Predicted frames against the truth ({splits} split)",
        caption=" ".join([caption, *notes]),
    )  # fmt: skip
    for row in rows:
        table.row(*row, style="bold" if len(row) == 1 else "")
    return table


def _rows_of(metrics: Metrics, subset: str, shown: list[Metric], *, first: bool) -> list[list[str]]:
    report = metrics.subsets[subset]
    rows = []
    if first:
        rows.append([f"{SHORT[subset]} ({report.windows})"])
        rows += [_row(report, name, LABELS[name], shown) for name in ("repeat_last", "flow") if name in report.videos]
    for name in metrics.variants:
        if name != "shuffled_action":
            rows.append(_row(report, name, f"{metrics.family} {name}", shown))
    if "tokenizer" in report.videos:
        rows.append(_row(report, "tokenizer", f"{metrics.family} ceiling", shown))
    return rows


def _row(report: SubsetReport, name: str, label: str, shown: list[Metric]) -> list[str]:
    quality, gains = report.videos[name], report.gains.get(name, {})
    over, flow = gains.get("repeat_last"), gains.get("flow")
    return [
        f"  {label}",
        *(f"{one.mean:.{metric.digits}f}" if (one := quality.estimate(metric.name)) else "–" for metric in shown),
        number(over.psnr_gain_db, sign=True) if over else "",
        f"{over.share_of_windows.mean * 100:.0f}\N{NO-BREAK SPACE}%" if over and over.share_of_windows else "",
        number(flow.psnr_gain_db, sign=True) if flow else "",
        number(report.way_closed[name], 0, percent=True) if name in report.way_closed else "",
    ]
