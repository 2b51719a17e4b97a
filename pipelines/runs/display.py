"""What a person sees of a run: a live table on a terminal, plain lines elsewhere; the same final table on both."""

import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from pipelines.runs.state import GOOD, NodeState, RunState
from wfm.log import printable
from wfm.terminal_table import Cell, Table

if TYPE_CHECKING:
    from rich.console import Console

_MARKS = {
    "waiting": ("·", "dim"),
    "running": ("▶", "cyan"),
    "retrying": ("↻", "yellow"),
    "done": ("✔", "green"),
    "cached": ("=", "green"),
    "failed": ("✘", "red"),
    "cancelled": ("■", "yellow"),
    "not_run": ("–", "dim"),
    "silent": ("?", "yellow"),
    "lost": ("✘", "red"),
}
_FIRST = (("running", "retrying", "silent"), ("failed", "lost"))
"""What is shown before the rest, which stays in the order of the work."""
_PROGRESS = re.compile(r"wfm\.progress: (?P<text>.*?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?:/\S+)? .*)$")
_CLOCK = re.compile(r"^\d\d:\d\d:\d\d ")
"""A stage's own time, which the display shows already."""
_LEFT = re.compile(r", (\d+) s left")


class Display(Protocol):
    """What the engine tells of a run."""

    def changed(self, node: str) -> None:
        """A node's state is another than before."""

    def line(self, node: str, text: str) -> None:
        """A stage wrote a line."""


def note_progress(state: NodeState, text: str) -> None:
    """Take a progress line of a stage into its state."""
    found = _PROGRESS.search(text)
    if found:
        state.note = found.group("text")
        left = _LEFT.search(text)
        state.ends_at = time.time() + float(left.group(1)) if left else 0.0


def in_words(counts: Mapping[str, int], skipped: Mapping[str, int]) -> str:
    """What a finished stage counted: ``16 in, 9 out; left out: truncated 6, too_short 1``, most frequent reason first."""
    words = ", ".join(f"{counts[of]} {word}" for of, word in (("inputs", "in"), ("outputs", "out")) if of in counts)
    order = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    reasons = ", ".join(f"{reason} {count}" for reason, count in order if count)
    return f"{words}; left out: {reasons}" if words and reasons else words


def training_in_words(extra: Mapping[str, Any]) -> str:
    """What a finished training waited for, and what it left out; empty for any other stage, and where nothing stands out."""
    waited = {"data": extra.get("waited_for_data"), "the store": extra.get("waited")}
    long = [
        f"{seconds:.0f} s for {what}" for what, seconds in waited.items() if isinstance(seconds, float) and seconds >= 1
    ]
    left = extra.get("batches_left_out")
    words = [f"waited {' and '.join(long)}"] if long else []
    words += [f"{len(left)} batches left out"] if isinstance(left, list) and left else []
    return "; ".join(words)


def careful_console(stderr: bool, width: int | None = None) -> "Console":
    """A rich console where only rich itself commands the terminal: what stands in texts and tables is shown, not obeyed."""
    from rich.console import Console
    from rich.segment import Segment

    class Careful(Console):
        def render(self, *args: Any, **more: Any) -> Iterator[Segment]:
            for part in super().render(*args, **more):
                yield part if part.control else Segment(printable(part.text), part.style)

    return Careful(stderr=stderr, width=width, markup=False, highlight=False)


def _clock() -> str:
    """The time of a line, UTC as in the stages' own logs."""
    return time.strftime("%H:%M:%S", time.gmtime())


class PlainDisplay:
    """One line per event, for logs and pipes."""

    def __init__(self, state: RunState, quiet: bool = False) -> None:
        self._state, self._quiet = state, quiet
        self._lock = threading.Lock()

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def changed(self, node: str) -> None:
        state = self._state.nodes[node]
        words = [state.state]
        if state.state in ("running", "retrying") and state.attempts > 1:
            words.append(f"(try {state.attempts})")
        if state.state in ("done", "failed", "cancelled") and state.started:
            words.append(f"in {duration(state.seconds())}")
        if state.reason:
            words.append(f"- {state.outcome + ': ' if state.outcome else ''}{state.reason}")
        elif state.state == "running":
            words.append(f"- {state.why}")
        elif state.state in GOOD and state.note:
            words.append(f"- {state.note}")
        self._print(node, " ".join(words))

    def line(self, node: str, text: str) -> None:
        note_progress(self._state.nodes[node], text)
        if not self._quiet:
            self._print(node, _CLOCK.sub("", text))

    def _print(self, node: str, text: str) -> None:
        with self._lock:
            print(printable(f"{_clock()} [{node}] {text}"), file=sys.stderr, flush=True)


class LiveDisplay:
    """A table that redraws itself, with the stages' lines scrolling above it."""

    def __init__(self, state: RunState, usual_seconds: Mapping[str, float], quiet: bool = False) -> None:
        from rich.live import Live

        self._state, self._usual, self._quiet = state, usual_seconds, quiet
        self._console = careful_console(stderr=True)
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=2, transient=True)

    def __enter__(self) -> "LiveDisplay":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def changed(self, node: str) -> None:
        state = self._state.nodes[node]
        if state.state in ("failed", "retrying", "cancelled") and state.reason:
            self._say(node, f"{state.state}: {state.reason}", "red")

    def line(self, node: str, text: str) -> None:
        note_progress(self._state.nodes[node], text)
        if not self._quiet:
            self._say(node, _CLOCK.sub("", text), "")

    def _say(self, node: str, text: str, style: str) -> None:
        from rich.text import Text

        self._console.print(Text(f"{_clock()} [{node}] {text}", style=style or "dim"), highlight=False)

    def _table(self) -> Any:
        return node_table(self._state, self._usual, title=f"{self._state.pipeline} {self._state.run_id}")


def node_table(state: RunState, usual_seconds: Mapping[str, float], title: str) -> Table:
    """The nodes of a run: state, time, time left, and the last word of each. What runs comes first, then what went wrong."""
    table = Table("", "stage", "state", "time", "left", "peak", prose="", title=title)
    for name, node in sorted(state.nodes.items(), key=lambda item: _order(item[1].state)):
        mark, style = _MARKS.get(node.state, ("?", ""))
        words = node.note if node.state in ("running", *GOOD) else node.reason
        tries = f" (try {node.attempts})" if node.attempts > 1 else ""
        spent = duration(node.seconds()) if node.started and node.state != "cached" else ""
        memory = f"{node.peak_bytes / 2**20:.0f} MiB" if node.peak_bytes else ""
        left = time_left(node, usual_seconds.get(name))
        table.row(Cell(mark, style), name, Cell(node.state + tries, style), spent, left, memory, words)
    return table


def _order(state: str) -> int:
    return next((place for place, states in enumerate(_FIRST) if state in states), len(_FIRST))


def time_left(node: NodeState, usual_seconds: float | None) -> str:
    """What the stage itself says, else what it took the last time."""
    if node.state == "running" and node.ends_at:
        return duration(max(node.ends_at - time.time(), 0.0))
    if node.state in ("waiting", "running") and usual_seconds:
        return f"~{duration(max(usual_seconds - node.seconds(), 0.0))}"
    return ""


def duration(seconds: float) -> str:
    """``8.3 s``, ``2:05``, ``1:02:05``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
