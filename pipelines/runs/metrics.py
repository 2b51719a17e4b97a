"""A run in Prometheus' words: a text file for node_exporter's collector, or a port to be scraped.

    WFM_METRICS=/var/lib/node_exporter/wfm.prom wfm run …      # rewritten whole at every heartbeat
    WFM_METRICS=127.0.0.1:9400 wfm run …                       # http://127.0.0.1:9400/metrics while the run lasts

Everything is read from the run's state (`state.py`) and, once a stage is through, from its manifest, at the moment it is asked
for: there is no second set of counters that could disagree. Labels are pipeline, run, node and stage; reasons are codes, so
no label grows with the corpus.
"""

import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.runs.state import GOOD, NodeState, RunState
from wfm.errors import InputError, MissingPackage, WfmError
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts import Store

VARIABLE = "WFM_METRICS"
REFRESH_SECONDS = 5.0
STATES = ("waiting", "running", "retrying", "done", "cached", "failed", "cancelled", "not_run")

_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_DONE = re.compile(rf": (?P<done>{_NUMBER})/(?P<total>{_NUMBER}) ")
_RATE = re.compile(rf", (?P<rate>{_NUMBER})/s")
_WORK = re.compile(rf", (?P<rate>{_NUMBER}) (?P<of>videos|clips|video-seconds|MB)/s")
_UNITS = {"video-seconds": ("video_seconds", 1.0), "MB": ("bytes", 1e6)}
_PORT = re.compile(r"(?:(?P<host>[^:/]*):)?(?P<port>\d{1,5})")
_LABELS = ("pipeline", "run", "node", "stage")


class RunCollector:
    """What a registry asks: the metrics of one run as it stands now."""

    def __init__(self, state: RunState, store: "Store | None" = None) -> None:
        self._state, self._store = state, store
        self._counts: dict[str, tuple[dict[str, int], dict[str, int]]] = {}

    def collect(self) -> Iterator[Any]:
        """Every metric family, each with one sample a node (or a reason)."""
        from prometheus_client.core import GaugeMetricFamily as Gauge

        state = Gauge("wfm_node_state", "1 for the state a node is in.", labels=[*_LABELS, "state"])
        plain = {
            "seconds": Gauge("wfm_node_seconds", "Wall time of a node so far [s].", labels=_LABELS),
            "cpu_seconds": Gauge("wfm_node_cpu_seconds", "Processor time of its ended tries [s].", labels=_LABELS),
            "gpu_seconds": Gauge("wfm_node_gpu_seconds", "Time x devices held by its ended tries [s].", labels=_LABELS),
            "peak_bytes": Gauge("wfm_node_peak_bytes", "Largest resident set of its ended tries.", labels=_LABELS),
            "attempts": Gauge("wfm_node_attempts", "Tries in this run.", labels=_LABELS),
        }
        done = Gauge("wfm_node_progress_done", "Parts or items through, as the stage tells.", labels=_LABELS)
        total = Gauge("wfm_node_progress_total", "Parts or items in all, as the stage tells.", labels=_LABELS)
        rate = Gauge("wfm_node_progress_rate", "Parts or items a second, as the stage tells.", labels=_LABELS)
        work = Gauge("wfm_node_rate", "What goes through a stage a second, as it tells.", labels=[*_LABELS, "of"])
        left = Gauge("wfm_node_ends_at", "Unix time at which the stage says it is through [s].", labels=_LABELS)
        counted = Gauge("wfm_node_items", "What a finished stage counted.", labels=[*_LABELS, "what"])
        skipped = Gauge("wfm_node_skipped", "Items a finished stage left out, by reason.", labels=[*_LABELS, "reason"])
        for name, node in list(self._state.nodes.items()):
            labels = [self._state.pipeline, self._state.run_id, name, node.stage]
            for each in STATES:
                state.add_metric([*labels, each], float(node.state == each))
            for of, family in plain.items():
                family.add_metric(labels, float(node.seconds() if of == "seconds" else getattr(node, of)))
            found = _DONE.search(node.note)
            if found:
                done.add_metric(labels, float(found["done"]))
                total.add_metric(labels, float(found["total"]))
            speed = _RATE.search(node.note)
            if speed:
                rate.add_metric(labels, float(speed["rate"]))
            for told in _WORK.finditer(node.note):
                of, unit = _UNITS.get(told["of"], (told["of"], 1.0))
                work.add_metric([*labels, of], float(told["rate"]) * unit)
            if node.ends_at and node.state == "running":
                left.add_metric(labels, node.ends_at)
            counts, reasons = self._manifest(name, node)
            for what, count in counts.items():
                counted.add_metric([*labels, what], float(count))
            for reason, count in reasons.items():
                skipped.add_metric([*labels, reason], float(count))
        yield from (state, *plain.values(), done, total, rate, work, left, counted, skipped)

    def _manifest(self, name: str, node: NodeState) -> tuple[dict[str, int], dict[str, int]]:
        """(counts, skipped) of a node that is through; read once."""
        if self._store is None or node.state not in GOOD or not node.key:
            return {}, {}
        if name not in self._counts:
            try:
                manifest = self._store.artifact(node.key).manifest
                self._counts[name] = (dict(manifest.counts), dict(manifest.skipped))
            except WfmError:  # collected meanwhile, or a store that does not answer: the next look asks again
                return {}, {}
        return self._counts[name]


@contextlib.contextmanager
def metrics(state: RunState, store: "Store | None", where: str) -> Iterator[None]:
    """Show a run's metrics while the block lasts; ``where`` is a path that ends in ``.prom``, ``PORT`` or ``HOST:PORT``, or "".

    Raises `InputError` for anything else, or a port that is taken; `MissingPackage` without the client. A file that cannot
    be written later is told in the log: a run must not fall over its metrics.
    """
    if not where:
        yield
        return
    try:
        from prometheus_client import CollectorRegistry
    except ImportError as error:
        raise MissingPackage("prometheus-client", extra="curate", purpose=VARIABLE) from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RunCollector(state, store))
    port = _PORT.fullmatch(where)
    if port:
        with _served(registry, port["host"] or "127.0.0.1", int(port["port"])):
            yield
    elif where.endswith(".prom"):
        with _written(registry, Path(where)):
            yield
    else:
        raise InputError(f"{VARIABLE}={where!r} is neither PORT, HOST:PORT nor a file that ends in .prom")


@contextlib.contextmanager
def _served(registry: Any, host: str, port: int) -> Iterator[None]:
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except (OSError, OverflowError) as error:
        raise InputError(f"{VARIABLE}: cannot listen on {host}:{port}: {error}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5.0)


@contextlib.contextmanager
def _written(registry: Any, path: Path) -> Iterator[None]:
    """The file is replaced whole, so a collector never reads half of it; its last state stays after the run."""
    from prometheus_client import write_to_textfile

    if not path.parent.is_dir():
        raise InputError(f"{VARIABLE}={path}: there is no folder {path.parent}: make it first")
    over = threading.Event()

    def write() -> None:
        try:
            write_to_textfile(str(path), registry)
        except OSError as error:
            get_logger(__name__).warning("metrics could not be written to %s: %s", path, error)

    def keep_writing() -> None:
        write()
        while not over.wait(REFRESH_SECONDS):
            write()

    thread = threading.Thread(target=keep_writing, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5.0)
        write()
