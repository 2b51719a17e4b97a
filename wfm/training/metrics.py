"""Curves as JSON lines: one object a line, with `step` and whatever was measured. Nothing in it depends on the
clock."""

import json
import math
from pathlib import Path
from typing import Any

from wfm.artifacts.atomic import replace_on_disk
from wfm.training.divergence import TrainingDiverged

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


def _line(values: dict[str, Number]) -> str:
    """A point as text. Raises TrainingDiverged, naming them, for numbers that are not finite."""
    bad = {name: value for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)}
    if bad:
        told = ", ".join(f"{name} {value}" for name, value in bad.items())
        raise TrainingDiverged(
            f"after step {values['step']}: {told}: no finite number. The weights have gone astray, or the data or the figure "
            "itself is at fault: look at the curves up to here, lower training.learning_rate, or let batches that would spoil "
            "the weights be left out (training.guard.most_left_out)"
        )
    plain = {name: float(f"{value:.7g}") if isinstance(value, float) else value for name, value in values.items()}
    return json.dumps(plain) + "\n"
