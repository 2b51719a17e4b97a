"""Curves as JSON lines: one object a line, with `step` and whatever was measured. Nothing in it depends on the
clock."""

import json
import math
from pathlib import Path

from wfm.artifacts.atomic import replace_on_disk

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


def read_curve(path: Path) -> list[dict[str, Number]]:
    """Every point of a file, in order; a last line cut short by a kill is left out."""
    points = []
    for line in path.read_text().splitlines():
        try:
            points.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return points


def _line(values: dict[str, Number]) -> str:
    plain = {name: float(f"{value:.7g}") if isinstance(value, float) else value for name, value in values.items()}
    if any(isinstance(value, float) and not math.isfinite(value) for value in plain.values()):
        raise ValueError(f"a curve holds finite numbers only: {plain}")
    return json.dumps(plain) + "\n"
