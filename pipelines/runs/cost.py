"""What runs have cost: hours of processors and of GPUs, by run, by team or by stage, those of tries that made nothing apart.

Every try counts, also one that was killed (what its last beat says), and one that runs now until its last beat. A team is what
the run was submitted for (``--team``, ``WFM_TEAM``), on a cluster else its queue.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.runs.seen import Try, read_tries
from pipelines.runs.submission import submission_of
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts.runs import Run

BY = ("run", "team", "stage")
NO_TEAM = "(no team)"


@dataclass
class Cost:
    """One line."""

    name: str
    runs: int = 0
    tries: int = 0
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0
    wasted_tries: int = 0
    "Those that made nothing: failed, cancelled, lost."
    wasted_cpu_hours: float = 0.0
    wasted_gpu_hours: float = 0.0
    stopped_tries: int = 0
    "Those that a suspend stopped: the next goes on from what they saved, so that they are not wasted."
    stopped_cpu_hours: float = 0.0
    stopped_gpu_hours: float = 0.0

    def add(self, one: Try) -> None:
        """Count a try."""
        cpu, gpu = one.cpu_seconds / 3600, one.gpu_seconds / 3600
        self.tries += 1
        self.cpu_hours += cpu
        self.gpu_hours += gpu
        if one.wasted:
            self.wasted_tries += 1
            self.wasted_cpu_hours += cpu
            self.wasted_gpu_hours += gpu
        if one.stopped:
            self.stopped_tries += 1
            self.stopped_cpu_hours += cpu
            self.stopped_gpu_hours += gpu


def cost_of(
    runs: "Iterable[Run]", by: str = "run", since: float = 0.0, unreadable: list[str] | None = None
) -> tuple[list[Cost], Cost]:
    """A line for each run, team or stage, the most GPU-hours first, and all together. `since` [unix s]: tries that began before
    are left out. A run that cannot be read is told in `unreadable`; without one that raises InputError."""
    lines: dict[str, Cost] = {}
    total = Cost("all")
    for run in runs:
        try:
            spec = run.record("spec.json") or {}
            whose, tries = team(run, spec), [one for one in read_tries(run) if one.started >= since]
        except InputError as error:
            if unreadable is None:
                raise
            unreadable.append(f"{run.id}: {error}")
            continue
        stages = _stages(spec)
        named = [run.id if by == "run" else whose if by == "team" else stages.get(one.node, one.node) for one in tries]
        for name, one in zip(named, tries, strict=True):
            lines.setdefault(name, Cost(name)).add(one)
            total.add(one)
        for name in set(named):
            lines[name].runs += 1
        total.runs += bool(named)
    return sorted(lines.values(), key=lambda line: (-line.gpu_hours, -line.cpu_hours, line.name)), total


def _stages(spec: Mapping[str, Any]) -> dict[str, str]:
    """Node -> stage. Of what cannot be read nothing is believed."""
    nodes = spec.get("nodes")
    return {
        node["name"]: str(node.get("stage") or node["name"])
        for node in (nodes if isinstance(nodes, list) else ())
        if isinstance(node, dict) and isinstance(node.get("name"), str)
    }


def team(run: "Run", spec: Mapping[str, Any]) -> str:
    """Whose work a run is."""
    submission = submission_of(run)
    said = (submission.team if submission is not None else "") or spec.get("team")
    return said if isinstance(said, str) and said else NO_TEAM
