"""The result in a sentence, and each target met or missed. Words follow the figures: a loss is called a loss."""

from wfm.evaluation.metric import HEADLINE
from wfm.evaluation.metrics import frame_metric
from wfm.evaluation.page.cast import Cast
from wfm.evaluation.page.config import Target
from wfm.evaluation.page.data import Verdict
from wfm.evaluation.page.losses import losses_told
from wfm.evaluation.page.words import ACROSS_ZERO, SUBSETS, absent, doubt, ends, signed
from wfm.evaluation.schema import Estimate, Gain, Metrics

FIGURES = {
    "gain": "{}gain over repeat-last",
    "share_of_windows": "windows better than repeat-last",
    "way_closed": "way to the tokenizer's ceiling",
    "gain_over_flow": "{}gain over optical flow",
    "action_gain": "right over shuffled action",
}
SHARES = ("share_of_windows", "way_closed")


def headline(metrics_list: list[Metrics]) -> tuple[str, list[str]]:
    """The result in one sentence that a reader may quote, about the first model; then a line for each model, and
    one of what it loses to, if anything."""
    if not metrics_list:
        return "Nothing was evaluated.", []
    cast = Cast(metrics_list)
    told = [line for metrics in metrics_list for line in (_line(cast, metrics), _lost(cast, metrics)) if line]
    return _sentence(cast, metrics_list[0]), told


def _main(metrics: Metrics) -> tuple[str, Estimate, Gain] | None:
    """(subset, PSNR gain, gain) that stand for a model: where its camera turns at a fixed rate, else over all windows."""
    for subset in ("fixed_rate", "all"):
        report = metrics.subsets.get(subset)
        gain = report.gains.get(metrics.headline_variant, {}).get("repeat_last") if report else None
        if gain is not None and gain.psnr_gain_db is not None and gain.share_of_windows is not None:
            return subset, gain.psnr_gain_db, gain
    return None


def _sentence(cast: Cast, metrics: Metrics) -> str:
    found = _main(metrics)
    if found is None:
        return "There is no figure over repeating the last frame."
    subset, psnr, _ = found
    seconds = metrics.predicted_frames / metrics.fps
    ahead = f"{seconds:.1f} s" if abs(seconds - 1) > 0.05 else "one second"
    model = cast.title(metrics.family)
    report = metrics.subsets[subset].gains[metrics.headline_variant].get("flow")
    flow = report.psnr_gain_db if report else None
    if doubt(psnr) == ACROSS_ZERO:
        result = f"no nearer to the truth than the last frame held ({signed(psnr.mean)} dB, {ACROSS_ZERO})"
    else:
        side = "nearer to the truth than" if psnr.mean > 0 else "further from the truth than"
        result = f"{abs(psnr.mean):.1f} dB {side} the last frame held"
        if why := doubt(psnr):
            result += f" ({why})"
        if flow is not None:
            over = "nearer than" if flow.mean > 0 else "further than"
            unsure = f" ({why})" if (why := doubt(flow)) else ""
            result += f", and {abs(flow.mean):.1f} dB {over} carrying on the optical flow{unsure}"
    where = f" where {SUBSETS[subset]}" if subset != "all" else ""
    return f"Given {metrics.past_frames} frames, the {model.lower()} model predicts {ahead} ahead{where}: {result}."


def _line(cast: Cast, metrics: Metrics) -> str:
    found = _main(metrics)
    if found is None:
        return ""
    subset, psnr, gain = found
    share = gain.share_of_windows.mean * 100 if gain.share_of_windows else 0.0
    where = "windows" if subset == "all" else f"windows where {SUBSETS[subset]}"
    count = metrics.subsets[subset].windows
    line = (
        f"{cast.name(metrics.family, metrics.headline_variant)}: {signed(psnr.mean)} dB "
        f"[{ends(psnr, signed)}] over repeat-last, better on {share:.0f} % of {count} {where}"
    )
    closed = metrics.subsets[subset].way_closed.get(metrics.headline_variant)
    line += f"; {closed.mean * 100:.0f} % of the way to its tokenizer's ceiling." if closed and closed.mean > 0 else "."
    return line


def _lost(cast: Cast, metrics: Metrics) -> str:
    lost = losses_told(metrics)
    return f"{cast.name(metrics.family, metrics.headline_variant)} loses: {lost}." if lost else ""


def judge(targets: tuple[Target, ...], metrics_list: list[Metrics]) -> list[Verdict]:
    """Every target against what was measured."""
    cast = Cast(metrics_list)
    return [_judge(cast, target, metrics_list) for target in targets]


def _judge(cast: Cast, target: Target, metrics_list: list[Metrics]) -> Verdict:
    percent = target.figure in SHARES
    metric = frame_metric(target.metric)
    unit = f" {metric.unit}" if metric.unit else ""
    end = "lower end" if target.end == "low" else "mean"
    wanted = f"{target.at_least * 100:.0f} %" if percent else f"{target.at_least:g}{unit}"
    more = "above" if target.at_least == 0 else "at least"
    figure = FIGURES[target.figure].format("" if target.metric == HEADLINE else f"{metric.title} ")
    text = f"{cast.name(target.family, target.variant)}: {figure} {more} {wanted}"
    where = f"where {SUBSETS.get(target.subset, target.subset)}" if target.subset != "all" else "all windows"
    basis = f"{end}, {where}"
    estimate, reason = _find(target, metrics_list)
    if estimate is None:
        return Verdict(text=text, basis=basis, measured=f"not measured: {reason}", met=None)
    value = estimate.low if target.end == "low" else estimate.mean
    if value is None:
        return Verdict(text=text, basis=basis, measured=f"not measured: {absent(estimate)}", met=None)
    met = value > target.at_least if target.at_least == 0 else value >= target.at_least
    factor, unit, digits = (100, " %", 0) if percent else (1, unit, metric.digits)

    def shown(value: float) -> str:
        return f"{value * factor:.{digits}f}".replace("-", "−")

    measured = f"{shown(estimate.mean)}{unit} [{ends(estimate, shown)}]"
    return Verdict(text=text, basis=basis, measured=measured, met=met)


def _find(target: Target, metrics_list: list[Metrics]) -> tuple[Estimate | None, str]:
    metrics = next((m for m in metrics_list if m.family == target.family), None)
    if metrics is None:
        return None, f"no {target.family} model was evaluated"
    report = metrics.subsets.get(target.subset)
    if report is None or report.absent:
        return None, report.absent if report else f"no subset {target.subset!r}"
    if target.figure == "action_gain":
        one = metrics.action_sensitivity.get(target.variant)
        gain = one.by_subset.get(target.subset) if one else None
        return gain.psnr_gain_db if gain else None, (one.absent if one else "") or "no shuffled action was generated"
    if target.figure == "way_closed":
        return report.way_closed.get(target.variant), "the tokenizer's ceiling is not above repeat-last here"
    gains = report.gains.get(target.variant, {})
    found: Gain | None = gains.get("flow" if target.figure == "gain_over_flow" else "repeat_last")
    if found is None:
        return None, f"no videos {target.variant!r}, or no such baseline"
    if target.figure == "share_of_windows":
        return found.share_of_windows, "no window"
    return found.estimate(frame_metric(target.metric).gain_key), f"no window, or no {target.metric} in this report"
