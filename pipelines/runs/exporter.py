"""The exporter: the sums of a `ledger` in Prometheus' words, behind a token.

    wfm metrics serve --host 0.0.0.0 --port 9464        # GET /metrics with "Authorization: Bearer $WFM_METRICS_TOKEN"

It reads, and writes what it has counted (`counted`), for the next one to go on from. Labels are stages and outcomes of ours, so
none grows with what lies in the store. ``/healthz``, which anybody may ask, says whether the store was looked at lately; beyond
this machine nothing else is answered without the token.
"""

import hmac
import ipaddress
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from pipelines.runs.ledger import OUTCOMES, Ledger
from pipelines.runs.untold import Elsewhere, tell_untold
from pipelines.stages import STAGES
from pipelines.wfm_home import MINIMUM_LENGTH
from wfm import stopping
from wfm.errors import ConfigError, InputError, MissingPackage, WfmError
from wfm.log import get_logger

TOKEN = "WFM_METRICS_TOKEN"
PORT = 9464
_LATE_LOOKS = 5
"""So many intervals without a whole look, and the exporter says that it is not well."""
_REQUEST_SECONDS = 10.0
_AT_ONCE = 16
_OF_OUTCOME, _OF_STAGE = ("stage", "outcome"), ("stage",)
_log = get_logger(__name__)


class LedgerCollector:
    """What a registry asks."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterator[Any]:
        """Every family, from one state of the ledger. Before the first whole look those of tries are empty: totals that begin
        in the middle of it would look like so many new ones."""
        with self._ledger.lock:
            of_tries = [*self._totals(), *self._now()]
            for family in of_tries if not self._ledger.looked_at else ():
                family.samples.clear()
            return iter([*of_tries, *self._own()])

    def _totals(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily as Counter
        from prometheus_client.core import GaugeMetricFamily as Gauge

        totals = self._ledger.totals
        # from zero: ``increase`` does not see the first step of a series that begins with it
        none = {(stage, outcome): 0.0 for stage in STAGES for outcome in OUTCOMES}
        of_outcome = {
            "attempts": (totals.attempts, "Tries that ended."),
            "attempt_seconds": (totals.seconds, "Wall time of tries that ended [s]."),
            "gpu_seconds": (totals.gpu_seconds, "Time x devices held by tries that ended [s]."),
            "lost_seconds": (totals.lost_seconds, "Wall time of tries that made nothing [s]."),
        }
        for name, (values, words) in of_outcome.items():
            yield _filled(Counter(f"wfm_{name}", words, labels=_OF_OUTCOME), {**none, **values}.items())
        yield _filled(
            Counter("wfm_disruptions", "Tries that ended by nobody's fault: drained, evicted, preempted.", labels=_OF_STAGE),
            {**dict.fromkeys(STAGES, 0.0), **totals.disruptions}.items(),
        )  # fmt: skip
        words = "From when inputs were there, or the try before had ended, to a try's beginning: queue, machines, images [s]."
        yield _filled(
            Counter("wfm_waited_seconds", words, labels=_OF_STAGE),
            {**dict.fromkeys(STAGES, 0.0), **totals.waited_seconds}.items(),
        )
        yield _filled(
            Gauge("wfm_last_success_timestamp_seconds", "When a stage was last done, Unix time.", labels=_OF_STAGE),
            totals.last_success.items(),
        )

    def _now(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily as Gauge

        now = self._ledger.now
        yield _filled(
            Gauge(
                "wfm_open_attempts", "Tries without an end; silent: the beat stands still.", labels=("stage", "state")
            ),
            now.open.items(),
        )
        yield _filled(
            Gauge("wfm_open_gpu_seconds", "Time x devices held by open tries until now [s].", labels=_OF_STAGE),
            now.gpu_seconds.items(),
        )
        yield _filled(
            Gauge("wfm_silent_seconds", "How long a beat of the stage stands still at most [s].", labels=_OF_STAGE),
            now.silent_seconds.items(),
        )
        yield _filled(
            Gauge("wfm_waiting_nodes", "Nodes whose launcher waits, by what for.", labels=("stage", "reason")),
            now.waiting.items(),
        )
        yield Gauge("wfm_runs", "Runs in the store.", value=now.runs)
        yield Gauge(
            "wfm_unreadable_runs", "Runs whose records could not be read at the last look.", value=now.unreadable
        )

    def _own(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily as Counter
        from prometheus_client.core import GaugeMetricFamily as Gauge

        ledger = self._ledger
        words = "When the store was last looked at as a whole, Unix time."
        yield Gauge("wfm_exporter_last_look_timestamp_seconds", words, value=ledger.looked_at)
        yield Gauge("wfm_exporter_look_seconds", "How long that took [s].", value=ledger.look_seconds)
        yield Counter(
            "wfm_exporter_failed_looks", "Looks at which the store did not answer.", value=ledger.failed_looks
        )


def _filled(family: Any, values: Iterable[tuple[Any, float]]) -> Any:
    for labels, value in values:
        family.add_metric([labels] if isinstance(labels, str) else list(labels), float(value))
    return family


def names() -> set[str]:
    """Every metric that there is, as Prometheus calls it."""
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)
    ledger: Any = Ledger(None)  # type: ignore[arg-type]
    registry.register(LedgerCollector(ledger))
    return {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}


def application(ledger: Ledger, token: str, every: float) -> Callable[..., Iterable[bytes]]:
    """The WSGI application; without a `token` everybody is answered."""
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    except ImportError as error:
        raise MissingPackage("prometheus-client", extra="k8s", purpose="wfm metrics serve") from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LedgerCollector(ledger))
    expected = f"Bearer {token}".encode()

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path, given = environ.get("PATH_INFO", ""), str(environ.get("HTTP_AUTHORIZATION", "")).encode("latin-1")
        status, kind, body = "200 OK", "text/plain; charset=utf-8", b"ok\n"
        more: list[tuple[str, str]] = []
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", b"only GET\n"
        elif path == "/healthz":
            if time.time() - ledger.looked_at > _LATE_LOOKS * every:
                status, body = "503 Service Unavailable", b"the store was not looked at lately\n"
        elif token and not hmac.compare_digest(given, expected):
            status, body = "401 Unauthorized", b"give the token\n"
            more = [("WWW-Authenticate", "Bearer")]
        elif path == "/metrics":
            kind, body = CONTENT_TYPE_LATEST, generate_latest(registry)
        else:
            status, body = "404 Not Found", b"there is /metrics and /healthz\n"
        start(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *more])
        return [b"" if environ.get("REQUEST_METHOD") == "HEAD" else body]

    return answer


def check_token(token: str, host: str) -> str:
    """The token that there is. Raises ConfigError for one that will not do, and for none beyond this machine."""
    if token and (len(token) < MINIMUM_LENGTH or not all("!" <= letter <= "~" for letter in token)):
        raise ConfigError(
            f"{TOKEN} has to have at least {MINIMUM_LENGTH} letters, digits or signs of ASCII and no space"
        )
    if not token and not _is_loopback(host):
        raise ConfigError(
            f"--host {host}: beyond this machine metrics are behind a token: put one into {TOKEN} (a Secret, in a pod)"
        )
    return token


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """A thread for each request, so many at once, and each for so long: whoever sends nothing, or a byte now and then, holds
    none for ever."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._open: dict[Any, float] = {}
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """One more than there may be is sent away."""
        if len(self._open) >= _AT_ONCE:
            self.shutdown_request(request)
            return
        self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """At the end of each."""
        self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Now and then: what is over its time is cut off."""
        for request, since in list(self._open.items()):
            if time.monotonic() - since > _REQUEST_SECONDS:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape is no news."""


@contextmanager
def served(ledger: Ledger, host: str, port: int, token: str, every: float) -> Iterator[int]:
    """Answer while the block lasts; gives the port. Raises InputError where it cannot listen, ConfigError for the token."""
    told = application(ledger, check_token(token, host), every)
    try:
        server = make_server(host, port, told, server_class=_Server, handler_class=_Handler)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}:{port}: {error}") from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5.0)


def follow(ledger: Ledger, every: float, elsewhere: Elsewhere) -> None:
    """Look at the store, again and again, until this process is asked to stop, and tell of runs that failed and could not say
    so. A store that is away is asked again."""
    while not stopping.asked.is_set():
        try:
            ledger.look()
            tell_untold(ledger.newest, elsewhere=elsewhere)
        except (WfmError, OSError) as error:
            _log.warning("the store does not answer: %s", error)
        stopping.asked.wait(every)
