"""`write_page(data, path)`: template, style and script in one file."""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from wfm.artifacts.atomic import replace_on_disk
from wfm.errors import MissingPackage
from wfm.evaluation.page.cast import Cast
from wfm.evaluation.page.charts import chart_rows, line_chart, role_class
from wfm.evaluation.page.config import HERE
from wfm.evaluation.page.data import PageData
from wfm.evaluation.page.intervals import GainAxis, columns, rows, video_order, world_columns
from wfm.evaluation.page.lineage import lineage_svg
from wfm.evaluation.page.losses import losses
from wfm.evaluation.page.words import SUBSETS, ends
from wfm.evaluation.results import SHORT
from wfm.evaluation.schema import Estimate, Metrics

if TYPE_CHECKING:
    from jinja2 import Environment


def write_page(data: PageData, path: Path) -> int:
    """Write the page atomically; returns its size in bytes. Raises MissingPackage without jinja2."""
    html = render(data).encode("utf-8", "replace")
    replace_on_disk(path, html, fsync=False)
    return len(html)


def render(data: PageData) -> str:
    """The page as text. Every value from `data` is escaped; only our own drawings are marked as safe."""
    script = (HERE / "script.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        templates()
        .get_template("page.html.j2")
        .render(
            data=data,
            style=style(),
            script=Markup(script),
            script_hash=digest,
            subsets=subsets(data.metrics),
            line_chart=line_chart,
            chart_rows=chart_rows,
            lineage=lineage_svg(data.lineage),
            role_class=role_class,
            cast=Cast(data.metrics),
            video_order=video_order,
            world_columns=world_columns,
        )
    )


def templates(*further: Path) -> "Environment":
    """Templates of the page, and of the folders `further`; all escape whatever is put into them. Raises MissingPackage."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingPackage("jinja2", extra="train", purpose="writing a page") from error
    environment = Environment(
        loader=FileSystemLoader([*further, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "estimate": estimate,
        "percent": percent,
        "duration": duration,
        "bytes": size,
        "number": number,
    }
    return environment


def style() -> Markup:
    """The page's style sheet."""
    return Markup((HERE / "style.css").read_text())


def subsets(metrics_list: list[Metrics]) -> list[dict[str, Any]]:
    """What the macro `gains` shows, one a subset that any of the models was judged on."""
    shown = [name for name in SUBSETS if any(name in metrics.subsets for metrics in metrics_list)]
    return [_subset(name, metrics_list) for name in shown]


def _subset(name: str, metrics_list: list[Metrics]) -> dict[str, Any]:
    """One subset of the result: its rows on one axis, or why there are none."""
    reports = [metrics.subsets[name] for metrics in metrics_list if name in metrics.subsets]
    found = rows(metrics_list, name)
    known = next((report for report in reports if not report.absent), None)
    return {
        "name": name,
        "short": SHORT[name].capitalize(),
        "heading": f"Where {SUBSETS[name]}" if name != "all" else "All windows",
        "description": reports[0].description,
        "windows": known.windows if known else 0,
        "sessions": known.sessions if known else 0,
        "absent": "" if known else "; ".join(dict.fromkeys(report.absent for report in reports)),
        "lost": _lost(name, metrics_list),
        "rows": found,
        "columns": columns(found),
        "axis": GainAxis(found),
    }


def _lost(name: str, metrics_list: list[Metrics]) -> list[tuple[str, str]]:
    """(model, what it loses to on a subset) of those that lose to something."""
    cast, told = Cast(metrics_list), []
    for metrics in metrics_list:
        if found := losses(metrics, name):
            text = ", ".join(loss.text for loss in found)
            told.append((cast.name(metrics.family, metrics.headline_variant), text))
    return told


def estimate(value: Estimate | None, digits: int = 2, sign: bool = False) -> Markup:
    """A mean and, smaller, its interval."""
    if value is None:
        return Markup('<span class="none">–</span>')

    def shown(one: float) -> str:
        return f"{one:{'+' if sign else ''}.{digits}f}".replace("-", "−")

    return Markup(f"<b>{shown(value.mean)}</b> {_interval(value, shown)}")


def percent(value: Estimate | None) -> Markup:
    """A share as a percentage with its interval."""
    if value is None:
        return Markup('<span class="none">–</span>')

    def shown(one: float) -> str:
        return f"{one * 100:.0f}".replace("-", "−")

    return Markup(f"<b>{shown(value.mean)}&#8239;%</b> {_interval(value, shown)}")


def _interval(value: Estimate, shown: Callable[[float], str]) -> str:
    """The interval; words in its place may be broken over lines, numbers may not."""
    kind = ' class="words"' if value.low is None or value.high is None else ""
    return f"<small{kind}>[{ends(value, shown)}]</small>"


def duration(seconds: float) -> str:
    """1.2 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def number(value: int) -> str:
    """Thousands apart."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
