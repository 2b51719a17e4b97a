"""Curves as JSON lines: one object a line, with `step` and whatever was measured. Nothing in it depends on the
clock."""

import json
import math
from pathlib import Path
from typing import Any

from wfm.artifacts.atomic import replace_on_disk
from wfm.data.psnr import mean_psnr
from wfm.parallel.ranks import Ranks

Number = float | int


class Curve:
    """Appends to `metrics.jsonl`; a resumed run drops the points after the step it resumes from, which it will write
    again."""

    def __init__(self, path: Path, *, keep_until: int = 0) -> None:
        self.path = path
        kept = [point for point in read_curve(path) if point["step"] <= keep_until] if path.exists() else []
        replace_on_disk(path, "".join(_line(point) for point in kept).encode(), fsync=False)

    def add(self, step: int, values: dict[str, Number]) -> None:
        """One point after `step` steps."""
        with self.path.open("a") as file:
            file.write(_line({"step": step, **values}))

    def note(self, step: int, name: str, what: dict[str, Any]) -> None:
        """Something that happened after `step` steps, which is no number: `what` as JSON values under its name."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, name: what}) + "\n")


def read_curve(path: Path) -> list[dict[str, Any]]:
    """Every point of a file, in order, and what was noted; a last line cut short by a kill is left out."""
    points = []
    for line in path.read_text().splitlines():
        try:
            points.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return points


def mean_of_ranks(values: dict[str, Number], ranks: Ranks) -> dict[str, Number]:
    """Numbers that are each a mean over a rank's share of a batch -> their means over the batch. A PSNR is averaged as the
    squared error that it stands for."""
    if ranks.size == 1:
        return values
    found: list[tuple[float, dict[str, Number]]] = ranks.gather((ranks.share, values), "numbers")
    means = {}
    for name in {name: None for _, one in found for name in one}:
        rows = [(share, one[name]) for share, one in found if share and name in one]
        of_shares = math.fsum(share * value for share, value in rows) / math.fsum(share for share, _ in rows)
        means[name] = mean_psnr(rows) if name.endswith("psnr") else of_shares
    return means


def _line(values: dict[str, Number]) -> str:
    plain = {name: float(f"{value:.7g}") if isinstance(value, float) else value for name, value in values.items()}
    if any(isinstance(value, float) and not math.isfinite(value) for value in plain.values()):
        raise ValueError(f"a curve holds finite numbers only: {plain}")
    return json.dumps(plain) + "\n"
