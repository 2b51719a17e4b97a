"""The result in a sentence, and each target met or missed. Words follow the figures: a loss is called a loss."""

from wfm.evaluation.page.config import Target
from wfm.evaluation.page.data import Verdict
from wfm.evaluation.page.intervals import method_name
from wfm.evaluation.schema import Estimate, Gain, Metrics

SUBSETS = {
    "all": "all windows",
    "moving": "the camera moves",
    "static": "the camera rests",
    "fixed_rate": "the camera turns at a fixed rate",
    "changing_action": "an action changes",
}
FIGURES = {
    "gain": "gain over repeat-last",
    "share_of_windows": "windows better than repeat-last",
    "way_closed": "way to the tokenizer's ceiling",
    "gain_over_flow": "gain over optical flow",
    "action_gain": "right over shuffled action",
}
SHARES = ("share_of_windows", "way_closed")


def headline(metrics_list: list[Metrics]) -> str:
    """One or two sentences that a reader may quote."""
    told = [sentence for metrics in metrics_list if (sentence := _sentence(metrics))]
    if not told:
        return "Nothing was evaluated."
    first = metrics_list[0]
    seconds = first.predicted_frames / first.fps
    given = f"Given {first.past_frames} frames, predicting the next {first.predicted_frames} ({seconds:.1f} s)"
    return f"{given}: {'; '.join(told)}."


def _sentence(metrics: Metrics) -> str:
    subset = next((s for s in ("fixed_rate", "all") if s in metrics.subsets and not metrics.subsets[s].absent), "")
    if not subset:
        return ""
    report, name = metrics.subsets[subset], metrics.headline_variant
    gain = report.gains.get(name, {}).get("repeat_last")
    if gain is None or gain.psnr_gain_db is None or gain.share_of_windows is None:
        return ""
    mean, low, high = gain.psnr_gain_db.mean, gain.psnr_gain_db.low, gain.psnr_gain_db.high
    sure = low > 0 or high < 0
    nearer = "nearer to" if mean >= 0 else "further from"
    doubt = "" if sure else ", not told apart from none"
    where = f"where {SUBSETS[subset]}" if subset != "all" else "over all windows"
    tail = f", better on {gain.share_of_windows.mean * 100:.0f} % of {report.windows} held-out windows"
    flow = report.gains[name].get("flow")
    if flow and flow.psnr_gain_db:
        tail += f" and {flow.psnr_gain_db.mean:+.1f} dB against optical flow"
    label = method_name(metrics.family, name).replace(", ", " (") + ")"
    return f"{label} is {abs(mean):.1f} dB [{low:+.1f}, {high:+.1f}] {nearer} the truth than the last frame held, {where}{doubt}{tail}"


def judge(targets: tuple[Target, ...], metrics_list: list[Metrics]) -> list[Verdict]:
    """Every target against what was measured."""
    return [_judge(target, metrics_list) for target in targets]


def _judge(target: Target, metrics_list: list[Metrics]) -> Verdict:
    percent = target.figure in SHARES
    end = "lower end of the interval" if target.end == "low" else "mean"
    wanted = f"{target.at_least * 100:.0f} %" if percent else f"{target.at_least:g} dB"
    more = "above" if target.at_least == 0 else "at least"
    text = (
        f"{method_name(target.family, target.variant)}: {FIGURES[target.figure]} {more} {wanted} ({end}), "
        f"{'where ' if target.subset != 'all' else ''}{SUBSETS.get(target.subset, target.subset)}"
    )
    estimate, reason = _find(target, metrics_list)
    if estimate is None:
        return Verdict(text=text, measured=f"not measured: {reason}", met=None)
    value = estimate.low if target.end == "low" else estimate.mean
    met = value > target.at_least if target.at_least == 0 else value >= target.at_least
    factor, unit = (100, " %") if percent else (1, " dB")
    digits = 0 if percent else 2
    numbers = [f"{v * factor:.{digits}f}" for v in (estimate.mean, estimate.low, estimate.high)]
    return Verdict(text=text, measured=f"{numbers[0]}{unit} [{numbers[1]}, {numbers[2]}]", met=met)


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
    return found.share_of_windows if target.figure == "share_of_windows" else found.psnr_gain_db, "no window"
