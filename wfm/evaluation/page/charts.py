"""Line charts as inline SVG: axes with units, bands for intervals, colours from the page's style sheet."""

import json
import math

from markupsafe import Markup, escape

from wfm.evaluation.page.data import Chart, Series

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 48, 20, 12, 40
ROLES = (
    "truth",
    *(f"model_{place}{variant}" for place in range(4) for variant in ("", "_1", "_2")),
    "flow",
    "repeat_last",
    *(f"ceiling_{place}" for place in range(4)),
    "validation",
    "training",
)
"""Roles the style sheet has a colour for; any other gets the neutral one."""


def role_class(role: str) -> str:
    """CSS class of a role; never anything but one of ours."""
    return f"role-{role}" if role in ROLES else "role-other"


def ticks(low: float, high: float, number: int = 6) -> list[float]:
    """Round values that cover [low, high], about `number` of them."""
    span = (high - low) or abs(high) or 1.0
    rough = span / max(number - 1, 1)
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(s * magnitude for s in (1, 2, 2.5, 5, 10) if s * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def plain(value: float) -> str:
    """A tick in as few digits as it needs."""
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:.6g}"


class _Scale:
    """Data to pixels on one axis."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool = False) -> None:
        self.log = log
        self.low, self.high = (math.log10(low), math.log10(high)) if log else (low, high)
        if self.high <= self.low:
            self.high = self.low + 1.0
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if not self.log:
            return ticks(self.low, self.high)
        whole = [10.0**e for e in range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1)]
        if len(whole) >= 3:
            return whole
        fine = [s * 10.0**e for e in range(math.floor(self.low), math.ceil(self.high) + 1) for s in (1, 2, 5)]
        return [value for value in fine if self.low - 1e-9 <= math.log10(value) <= self.high + 1e-9]


def _extent(series: list[Series], *, log: bool) -> tuple[float, float]:
    values = [v for one in series for v in (*one.y, *one.low, *one.high) if math.isfinite(v) and (v > 0 or not log)]
    if not values:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = min(values), max(values)
    if log:
        return low * 0.95, high * 1.05
    margin = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def line_chart(chart: Chart) -> Markup:
    """The SVG of a chart. Values that cannot be drawn (not finite; not positive on a log axis) are left out."""
    series = [one for one in chart.series if one.y]
    xs = [x for one in series for x in one.x]
    across = _Scale(min(xs, default=0.0), max(xs, default=1.0), LEFT, WIDTH - RIGHT)
    up = _Scale(*_extent(series, log=chart.log_y), HEIGHT - BOTTOM, TOP, log=chart.log_y)
    parts = [_axes(across, up, chart)]
    for one in series:
        if one.low and one.high:
            forth = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in zip(one.x, one.high, strict=True))
            back = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in reversed(list(zip(one.x, one.low, strict=True))))
            parts.append(f'<polygon class="band {role_class(one.role)}" points="{forth} {back}"/>')
    for one in series:
        drawn = [(x, y) for x, y in zip(one.x, one.y, strict=True) if math.isfinite(y) and (y > 0 or not chart.log_y)]
        path = "M" + "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in drawn) if drawn else ""
        dash = " dashed" if one.dashed else ""
        if len(drawn) == 1:
            x, y = drawn[0]
            parts.append(f'<circle class="dot {role_class(one.role)}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="3"/>')
        elif path:
            parts.append(f'<path class="line {role_class(one.role)}{dash}" d="{path}"/>')
    data = {
        "box": [LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM],
        "x": [across.low, across.high],
        "label": chart.x_label,
        "series": [{"name": one.name, "role": role_class(one.role), "x": one.x, "y": one.y} for one in series],
    }
    spoken = f"{chart.title}. {chart.y_label} by {chart.x_label}. " + "; ".join(
        f"{one.name}: {plain(round(one.y[0], 3))} to {plain(round(one.y[-1], 3))}" for one in series
    )
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(spoken)}" '
        f'data-chart="{escape(json.dumps(data, separators=(",", ":")))}">{"".join(parts)}<g class="cursor"></g></svg>'
    )


def _axes(across: _Scale, up: _Scale, chart: Chart) -> str:
    bottom = HEIGHT - BOTTOM
    out = []
    for value in up.ticks():
        y = up(value)
        out.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        out.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{plain(value)}</text>')
    for value in across.ticks():
        x = across(value)
        out.append(f'<path class="grid" d="M{x:.1f} {bottom}v4"/>')
        out.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{plain(value)}</text>')
    out.append(f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>')
    for text, place in (
        (chart.x_label, f'x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}"'),
        (chart.y_label, f'transform="translate(12 {(TOP + bottom) / 2}) rotate(-90)"'),
    ):
        out.append(f'<text class="label" {place} text-anchor="middle">{escape(text)}</text>')
    return "".join(out)


def chart_rows(chart: Chart, most: int = 24) -> list[tuple[str, list[str]]]:
    """The chart as a table for whoever cannot see it: at most about `most` places along x, each series' nearest value."""
    series = [one for one in chart.series if one.x]
    if not series:
        return []
    xs = max((one.x for one in series), key=len)
    every = math.ceil(len(xs) / most)
    places = [x for index, x in enumerate(xs) if index % every == 0 or index == len(xs) - 1]

    def near(one: Series, x: float) -> float:
        return one.y[min(range(len(one.x)), key=lambda index: abs(one.x[index] - x))]

    return [(plain(float(f"{x:.4g}")), [f"{near(one, x):.4g}" for one in series]) for x in places]
