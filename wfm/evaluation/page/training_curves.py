"""What a training tells of itself, as charts: its loss, also by noise level and by kind of sample, what was watched on
validation, and how fast it went.

The curves are files of the artifact (`metrics.jsonl`, which the clock does not touch); rates of speed are in its manifest.
"""

import itertools
import json
import math
from typing import TYPE_CHECKING, Any

from wfm.evaluation.page.data import Chart, Series

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

_ROLES = ("model_0", "model_1", "flow", "validation", "ceiling_0", "training")
_SHARES = {
    "mfu": "share of the peak arithmetic used",
    "padding": "padding",
    "waiting_for_data": "waiting for data",
    "waiting_for_store": "waiting for the store",
}
_NOISE = "loss_noise_"


def curves_of(title: str, artifact: "Artifact") -> list[Chart]:
    """Every chart that there is something for."""
    points = read_points(artifact)
    rates = artifact.manifest.extra.get("rates")
    rates = [one for one in rates if isinstance(one, dict)] if isinstance(rates, list) else []
    charts = (
        _loss(title, points),
        _by_noise(title, points),
        _by_kind(title, points),
        _decibels(title, points),
        _speed(title, rates),
        _shares(title, rates),
        _memory(title, rates),
    )
    return [chart for chart in charts if chart is not None]


def read_points(artifact: "Artifact") -> list[dict[str, Any]]:
    """The lines of an artifact's `metrics.jsonl`; none where it has no such file."""
    if not artifact.has_file("metrics.jsonl"):
        return []
    with artifact.open("metrics.jsonl") as file:
        return [json.loads(line) for line in file.read().decode().splitlines() if line.strip()]


def _column(points: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    known = [(float(p["step"]), float(p[name])) for p in points if isinstance(p.get(name), int | float)]
    known = [(x, y) for x, y in known if math.isfinite(y)]
    return [x for x, _ in known], [y for _, y in known]


def thinned(xs: list[float], ys: list[float], most: int = 160) -> tuple[list[float], list[float]]:
    """At most `most` points, each the mean of a stretch, so that a long run does not make a heavy page."""
    if len(xs) <= most:
        return xs, ys
    borders = [round(k * len(xs) / most) for k in range(most + 1)]
    spans = list(itertools.pairwise(borders))
    return [xs[b - 1] for _, b in spans], [sum(ys[a:b]) / (b - a) for a, b in spans]


def _loss(title: str, points: list[dict[str, Any]]) -> Chart | None:
    series = []
    for name, label, role in (("loss", "training", "training"), ("validation_loss", "validation", "validation")):
        xs, ys = _column(points, name)
        if xs:
            xs, ys = thinned(xs, ys)
            series.append(Series(name=label, role=role, x=xs, y=ys))
    if not series:
        return None
    values = [y for one in series for y in one.y]
    log = min(values) > 0 and max(values) > 4 * min(values)
    return Chart(
        title=f"{title}: loss", x_label="step", y_label="loss", series=series, log_y=log, note=_left_out(points)
    )


def _decibels(title: str, points: list[dict[str, Any]]) -> Chart | None:
    names = sorted({name for point in points for name in point if name.startswith("validation_") and "psnr" in name})
    series = []
    for place, name in enumerate(names):
        xs, ys = _column(points, name)
        if xs:
            label = name.removeprefix("validation_").removesuffix("_db").replace("_", " ")
            roles = ("validation", "training", "flow", "ceiling_0")
            series.append(Series(name=label, role=roles[place % len(roles)], x=xs, y=ys))
    if not series:
        return None
    return Chart(title=f"{title}: validation PSNR", x_label="step", y_label="dB", series=series)


def _left_out(points: list[dict[str, Any]]) -> str:
    """What the guard left out, in words."""
    left = [point["left_out"] for point in points if isinstance(point.get("left_out"), dict)]
    if not left:
        return ""
    reasons = [str(one.get("reason", "")) for one in left]
    counts = ", ".join(f"{reason} {reasons.count(reason)}" for reason in sorted(set(reasons)))
    steps = ", ".join(str(one.get("step", "?")) for one in left[:8]) + (", …" if len(left) > 8 else "")
    return f"{len(left)} batches were left out ({counts}), at the steps {steps}"


def _lines(
    points: list[dict[str, Any]], names: dict[str, str], title: str, y_label: str, *, scale: float = 1.0
) -> Chart | None:
    """A chart of numbers by the words for them; None where there is none of them, or nothing but zeros."""
    series = []
    for place, (name, words) in enumerate(names.items()):
        xs, ys = _column(points, name)
        if any(ys):
            xs, ys = thinned(xs, [y * scale for y in ys])
            series.append(Series(name=words, role=_ROLES[place % len(_ROLES)], x=xs, y=ys))
    return Chart(title=title, x_label="step", y_label=y_label, series=series) if series else None


def _by_noise(title: str, points: list[dict[str, Any]]) -> Chart | None:
    found = {name: None for point in points for name in point if name.startswith(_NOISE)}
    names = {name: name.removeprefix(_NOISE).replace("_", " ") for name in sorted(found, key=_low_to_high)}
    chart = _lines(points, names, f"{title}: loss by noise level", "loss")
    note = "Noise over the deviation of the data; each point is the mean over all samples since the one before."
    return None if chart is None else chart.model_copy(update={"note": note})


def _low_to_high(name: str) -> tuple[float, bool]:
    """Where a span of levels begins: `below_0.25`, `0.25_to_1`, `above_4`."""
    numbers = [float(word) for word in name.split("_") if word.replace(".", "", 1).isdigit()]
    return (-1.0 if "below" in name else min(numbers, default=0.0)), "above" in name


def _by_kind(title: str, points: list[dict[str, Any]]) -> Chart | None:
    """Only where there are both."""
    names = {"loss_video": "videos", "loss_image": "single images"}
    if not all(any(name in point for point in points) for name in names):
        return None
    return _lines(points, names, f"{title}: loss of videos and of images", "loss")


def _speed(title: str, rates: list[dict[str, Any]]) -> Chart | None:
    return _lines(rates, {"tokens_per_second": "tokens a second"}, f"{title}: speed", "tokens / s")


def _shares(title: str, rates: list[dict[str, Any]]) -> Chart | None:
    chart = _lines(rates, _SHARES, f"{title}: shares of time and of places", "%", scale=100.0)
    _, balance = _column(rates, "balance")
    if chart is None or max(balance, default=1.0) < 1.05:
        return chart
    return chart.model_copy(update={"note": f"The slowest rank computed up to {max(balance):.2f} times the mean."})


def _memory(title: str, rates: list[dict[str, Any]]) -> Chart | None:
    names = {"memory_bytes": "largest process", "device_memory_bytes": "largest device"}
    return _lines(rates, names, f"{title}: memory", "MiB", scale=2.0**-20)
