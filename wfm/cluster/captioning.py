"""The captioning service stands while a run needs it: raised by the first, and back at zero after the last, whatever crashes.

    scaler = Scaler(api, store, url="http://captioning.wfm.svc:8000/v1")
    scaler.step(now)                # again and again; two at once do no harm

A run needs it while it captions by this address: its launcher has come to that node, or a try at it is open. What tells so lies
in the store, and changes as long as somebody lives: beats of the try, words of the launcher. Each run has a lease in an
annotation of the Deployment: the sign of life that was seen last, and when that was new, by the clock of whoever looks. A lease
whose sign stands still for `LEASE_SECONDS` is over, also when this process was killed and another one looks; a sign that
changes renews it. So a launcher that died holds no device for long, and one that waits in a queue for hours holds none
meanwhile. Nothing is counted up or down: each step looks at everything, so one that never ended is made again by the next.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from wfm import stopping
from wfm.cluster.api import Api
from wfm.cluster.kinds import DEPLOYMENT
from wfm.cluster.names import PREFIX
from wfm.cluster.records import has_ended, read_said
from wfm.cluster.refusals import Conflict, NotFound
from wfm.config import AtLeastZero, Config
from wfm.errors import ConfigError, InputError, TryAgain
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

ANNOTATION_LEASES = f"{PREFIX}captioning-leases"
"Annotation of the Deployment: run -> sign of life and since when, as JSON."
STAGE = "caption_clips"
LEASE_SECONDS = 1800.0
"""A sign of life that stands still for longer is of nobody: a try beats every ten seconds, and a launcher speaks as it goes."""
RENEW_SECONDS = 300.0
"""A lease is written anew after so long at the earliest, so that beats are not requests."""
_MOST_LEASES = 1000
_log = get_logger(__name__)


class Lease(Config):
    """What was seen of a run that needs the service."""

    sign: str
    since: AtLeastZero
    "Unix time, by the clock of whoever saw it."


class Scaler:
    """Holds one Deployment to what runs need."""

    def __init__(self, api: Api, store: "Store", url: str, *, name: str = "captioning", replicas: int = 1) -> None:
        if replicas < 1:
            raise ConfigError(
                f"replicas = {replicas}: give how many servers there are while a run needs them, 1 or more"
            )
        self._api, self._store, self._url = api, store, url.rstrip("/")
        self._name, self._replicas = name, replicas
        self._nodes: dict[str, tuple[str, ...]] = {}
        "Run -> its nodes that caption by this address, as its spec says, which never changes."
        self._ended: dict[tuple[str, str], set[int]] = {}
        "(run, node) -> tries of it that have ended: one of ranges of parts has thousands, and each end is read once."

    def step(self, now: float) -> int:
        """See who needs it, and raise or lower it; returns the servers that there are to be. Raises what store and API server
        raise: then nothing was changed, and the next step goes on."""
        signs = dict(self._signs())
        there = self._api.get(DEPLOYMENT, self._name)
        before = leases_of(there)
        leases = renewed(before, signs, now)
        needed = [run for run, lease in leases.items() if now - lease.since <= LEASE_SECONDS]
        current = _replicas(there)
        wanted = (current or self._replicas) if needed else 0
        if wanted == current and leases == before:
            return wanted
        if wanted != current:
            why = f"for {', '.join(sorted(needed)[:5])}" if needed else "no run needs it"
            _log.info("%s: %d -> %d, %s", self._name, current, wanted, why)
        told = json.dumps({run: lease.resolved() for run, lease in sorted(leases.items())}, separators=(",", ":"))
        metadata = {"resourceVersion": there["metadata"]["resourceVersion"], "annotations": {ANNOTATION_LEASES: told}}
        try:
            self._api.patch(DEPLOYMENT, self._name, {"metadata": metadata, "spec": {"replicas": wanted}})
        except Conflict:
            _log.debug("%s was changed by somebody at this moment: the next step sees how", self._name)
            return current
        return wanted

    def _signs(self) -> Iterator[tuple[str, str]]:
        """(run, sign of life) of each run that needs the service, as the store says."""
        runs = self._store.runs.list()
        alive = {run.id for run in runs}
        self._nodes = {name: nodes for name, nodes in self._nodes.items() if name in alive}
        self._ended = {place: ended for place, ended in self._ended.items() if place[0] in alive}
        for run in runs:
            try:
                nodes = self._captioning(run)
                if nodes and not run.cancelled_by() and not has_ended(run):
                    signs = [sign for node in nodes if (sign := self._sign(run, node))]
                    if signs:
                        yield run.id, hashlib.sha256(json.dumps(signs).encode()).hexdigest()[:16]
            except InputError as error:  # of a run that cannot be read nothing is known
                _log.debug("%s is passed over: %s", run.id, error)

    def _captioning(self, run: "Run") -> tuple[str, ...]:
        if run.id not in self._nodes:
            nodes = run.spec().get("nodes")
            self._nodes[run.id] = tuple(
                node["name"] for node in (nodes if isinstance(nodes, list) else ()) if _asks(node, self._url)
            )
        return self._nodes[run.id]

    def _sign(self, run: "Run", node: str) -> list[Any]:
        """What changes while somebody works at a node, or is about to; empty when nobody does."""
        said = read_said(run, node)
        if said is not None and said.ended:
            return []
        ended = self._ended.setdefault((run.id, node), set())
        beats = []
        for number in run.attempts(node):
            if number not in ended and run.read_outcome(node, number) is not None:
                ended.add(number)
            elif number not in ended:
                beats.append([number, (run.read_usage(node, number) or {}).get("at")])
        if said is None and not beats:
            return []
        return [node, said.words if said is not None else "", len(ended), beats]


def follow(scaler: Scaler, every: float) -> None:
    """Step until this process is asked to stop. Raises InputError for what waiting does not mend: there is no such Deployment,
    or this account may not change it."""
    while not stopping.asked.is_set():
        try:
            scaler.step(time.time())
        except NotFound as error:
            raise InputError(f"{error}: apply manifests/base/captioning, or name another --deployment") from None
        except (TryAgain, OSError) as error:
            _log.warning("nothing is raised or lowered now: %s", error)
        stopping.asked.wait(every)


def renewed(before: Mapping[str, Lease], signs: Mapping[str, str], now: float) -> dict[str, Lease]:
    """The leases by what is seen now. One that is over stays, so that the same sign does not begin it again; that of a run that
    needs nothing any more goes."""
    found = {}
    for run, sign in signs.items():
        lease = before.get(run)
        if lease is None or (lease.sign != sign and now - lease.since >= RENEW_SECONDS) or lease.since > now:
            lease = Lease(sign=sign, since=now)
        found[run] = lease
    newest = sorted(found, key=lambda run: found[run].since, reverse=True)[:_MOST_LEASES]
    return {run: found[run] for run in newest}


def leases_of(deployment: Mapping[str, Any]) -> dict[str, Lease]:
    """The leases that stand on a Deployment. What is no lease of ours counts for none."""
    annotations = (deployment.get("metadata") or {}).get("annotations") or {}
    try:
        told = json.loads(annotations.get(ANNOTATION_LEASES) or "{}")
        return {str(run): Lease.parse(lease) for run, lease in told.items()}
    except (ValueError, TypeError, AttributeError, RecursionError, ConfigError):
        return {}


def _asks(node: Any, url: str) -> bool:
    """Whether a node of a spec captions by this address."""
    if not isinstance(node, dict) or node.get("stage") != STAGE or node.get("done") is True:
        return False
    config = node.get("config")
    if not isinstance(node.get("name"), str) or not isinstance(config, dict) or config.get("source") != "endpoint":
        return False
    endpoint = config.get("endpoint")
    return isinstance(endpoint, dict) and str(endpoint.get("url") or "").rstrip("/") == url


def _replicas(deployment: Mapping[str, Any]) -> int:
    count = (deployment.get("spec") or {}).get("replicas", 1)
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else 1
