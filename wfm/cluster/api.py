"""The Kubernetes API server, over the official client: seven verbs on any resource, and every refusal in words.

    api = Api.connect(namespace="training")             # kubeconfig, else the pod's service account; url= in tests
    api.create(PYTORCHJOB, job)
    for job in api.list(PYTORCHJOB, selector=LABEL_JOB).objects: ...

Nothing is asked twice in here: a passing refusal (429, 5xx, no connection, 403 "exceeded quota") is raised with how long to
wait, and whoever asked waits by its own clock (`Backoff`), so that one busy moment does not hold up five hundred jobs. Each
request has a time limit, and each answer a size.
"""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from wfm.cluster.kinds import Resource
from wfm.cluster.refusals import Busy, Conflict, Gone, NotFound, Refused, meaning, shortened
from wfm.errors import ConfigError, InputError, MissingPackage
from wfm.log import get_logger

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
PAGE = 250
"""Objects of a list that are asked for at once."""
MOST_BYTES = 64 * 2**20
"""Of one answer; a page of the largest objects that etcd takes is larger, and none of ours is a hundredth of that."""
MOST_LINE = 8 * 2**20
"""Of one event of a watch: etcd takes objects of 1.5 MB."""


@dataclass(frozen=True)
class Listing:
    """Objects, and the version of the whole from which a watch goes on."""

    objects: list[dict[str, Any]]
    version: str


class Backoff:
    """How long to leave something alone that does not work now: doubled each time, with jitter, bounded.

    `patience` seconds after the first failure in a row `over` turns true: then it is no passing trouble any more."""

    def __init__(self, first: float = 1.0, longest: float = 60.0, patience: float = 600.0) -> None:
        self.first, self.longest, self.patience = first, longest, patience
        self._failures, self._since, self.until = 0, 0.0, 0.0

    def failed(self, now: float, at_least: float = 0.0) -> float:
        """Note a failure; returns how long to wait [s]."""
        self._since = self._since if self._failures else now
        wait = max(min(self.first * 2.0**self._failures, self.longest) * random.uniform(0.5, 1.5), at_least)
        self._failures = min(self._failures + 1, 30)
        self.until = now + wait
        return wait

    def worked(self) -> None:
        """Note that it works again."""
        self._failures, self.until = 0, 0.0

    def over(self, now: float) -> bool:
        """Whether it has not worked for longer than `patience`."""
        return self._failures > 0 and now - self._since > self.patience


_EXACT_SECONDS, _SLOW_SECONDS, _SKEW_SECONDS = 2.0, 3.0, 10.0
"""Clocks that differ by less agree; an answer that took longer says nothing of them; more than the last is told."""
_log = get_logger("wfm.launcher")


class Api:
    """The server as one account sees it, in one namespace."""

    def __init__(self, client: Any, namespace: str) -> None:
        self._client, self.namespace = client, namespace
        self._accepted = False
        self.clock: Callable[[], float] = time.time
        "Ours, by which `skew` is measured; a launcher puts its own here."
        self.skew = 0.0
        "How far the server's clock is ahead of ours [s], as the Date of its answers says."
        self.requests = 0
        "How many were sent: figures of `tests/benchmarks/launcher.py`."

    @classmethod
    def connect(cls, *, namespace: str = "", url: str = "") -> "Api":
        """From `url` (plain, without an account: tests), else ``KUBECONFIG`` or ``~/.kube/config``, else the service account of
        the pod this runs in. `namespace`: empty means that of the kubeconfig's context, or of the pod. Raises InputError when
        there is nothing of this or it is of another form, MissingPackage without the client."""
        try:
            from kubernetes import client, config
        except ImportError as error:
            raise MissingPackage("kubernetes", extra="k8s", purpose="a launcher") from error
        settings = client.Configuration()
        own = ""
        if url:
            if not url.startswith(("http://", "https://")):
                raise ConfigError(f"--api {url!r} is no URL of an API server: it begins with https:// or http://")
            settings.host = url.rstrip("/")
        else:
            own = _load(config, settings)
        settings.retries = False  # it would wait by a clock of its own, and ask for changes twice
        settings.connection_pool_maxsize = 16
        return cls(client.ApiClient(settings), namespace or own or "default")

    # -- verbs

    def get(self, resource: Resource, name: str) -> dict[str, Any]:
        """One object. Raises NotFound."""
        return self._json("GET", "get", resource, name)

    def list(self, resource: Resource, selector: str = "", limit: int = PAGE) -> Listing:
        """All objects that `selector` names, page by page. A list that the server has forgotten in the middle is begun anew."""
        for _ in range(3):
            try:
                found: list[dict[str, Any]] = []
                version = ""
                for page in self.pages(resource, selector, limit):
                    found += page.objects
                    version = page.version
                return Listing(found, version)
            except Gone:
                continue
        raise Busy(f"the list of {resource} is forgotten by the API server faster than it can be read")

    def pages(
        self, resource: Resource, selector: str = "", limit: int = PAGE, *, fields: str = ""
    ) -> Iterator[Listing]:
        """The same a page at a time, so that a caller need not hold all of it (`fields`: a field selector). Raises Gone in the
        middle."""
        token = ""
        while True:
            asked = {"limit": str(limit), **({"continue": token} if token else {})}
            answer = self._json(
                "GET", "list", resource, query=_with(asked, labelSelector=selector, fieldSelector=fields)
            )
            meta = answer.get("metadata") or {}
            items = answer.get("items")
            yield Listing(items if isinstance(items, list) else [], str(meta.get("resourceVersion") or ""))
            token = str(meta.get("continue") or "")
            if not token:
                return

    def watch(self, resource: Resource, version: str, selector: str = "", seconds: float = 300.0) -> "Lines":
        """The lines of one watch from `version` on, until the server ends it (after `seconds` by itself), or it is silent for
        much longer. Raises Gone at once for a version that is too old."""
        query = {
            "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(seconds))),
        }  # fmt: skip
        query = _with(query, labelSelector=selector)
        limits = (CONNECT_SECONDS, seconds + 30.0)
        return Lines(self._call("GET", "watch", resource, query=query, limits=limits), resource)

    def create(self, resource: Resource, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object of a fixed name. Raises AlreadyExists, QuotaExceeded."""
        return self._json("POST", "create", resource, body=body)

    def patch(self, resource: Resource, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A merge patch; with ``metadata.resourceVersion`` in it only of the object that was read. Raises Conflict,
        NotFound."""
        return self._json("PATCH", "patch", resource, name, body=body)

    def delete(
        self, resource: Resource, name: str, *, uid: str = "", version: str = "", grace: float | None = None
    ) -> bool:
        """Ask for an object to go, and what belongs to it after it; False when it is gone already, or is another by now
        (`uid`), or was changed (`version`).

        `grace`: seconds its processes get, 0 for none: then a pod's name is free although its machine may not answer."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid or version:
            body["preconditions"] = _with({}, uid=uid, resourceVersion=version)
        if grace is not None:
            body["gracePeriodSeconds"] = max(0, round(grace))
        try:
            self._json("DELETE", "delete", resource, name, body=body)
        except (NotFound, Conflict):
            return False
        return True

    # -- one request

    def _json(
        self,
        method: str,
        verb: str,
        resource: Resource,
        name: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        import urllib3

        response = self._call(method, verb, resource, name, query=query, body=body)
        try:
            data = response.read(MOST_BYTES + 1)
            if len(data) > MOST_BYTES:
                raise Refused(f"the answer to {verb} {resource} has more than {MOST_BYTES} bytes: it is not read")
            answer = json.loads(data)
        except (urllib3.exceptions.HTTPError, OSError, ValueError, RecursionError) as error:
            raise Busy(f"the answer to {verb} {resource} broke off or is no JSON: {shortened(error)}") from error
        finally:
            response.close()
            response.release_conn()
        if not isinstance(answer, dict):
            raise Busy(f"the answer to {verb} {resource} is no object")
        return answer

    def _call(
        self,
        method: str,
        verb: str,
        resource: Resource,
        name: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        limits: tuple[float, float] = (CONNECT_SECONDS, READ_SECONDS),
    ) -> Any:
        import urllib3
        from kubernetes.client.exceptions import ApiException

        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        inside = "" if resource.everywhere else f"/namespaces/{self.namespace}"
        path = f"{resource.path}{inside}/{resource.plural}" + (f"/{name}" if name else "")
        self.requests += 1
        asked = self.clock()
        try:
            response = self._client.call_api(
                path, method, query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": kind}, body=dict(body) if body else None,
                auth_settings=["BearerToken"], _preload_content=False, _return_http_data_only=True,
                _request_timeout=limits,
            )  # fmt: skip
            self._accepted = True
            self._measure(response.headers.get("Date"), asked)
            return response
        except ApiException as error:
            body_text = error.body if isinstance(error.body, bytes | str) else b""
            what = f"{verb} {resource}" + (f" {name}" if name else "")
            if not error.status:
                raise Refused(
                    f"{what}: the API server's certificate is not accepted: {shortened(error.reason)}"
                ) from None
            if error.status == 401 and self._accepted:  # a token that is about to be replaced
                raise Busy(f"{what}: the API server does not know this account any more (401)") from None
            raise meaning(
                error.status, dict(error.headers or {}), body_text, verb, resource, self.namespace, name
            ) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Busy(
                f"the API server at {self._client.configuration.host} does not answer: {shortened(error)}"
            ) from error

    def _measure(self, date: str | None, asked: float) -> None:
        """Compare clocks: a Date is in whole seconds, and of a moment between question and answer. Nearer than that, what was
        measured first stays, so that time does not jump to and fro."""
        answered = self.clock()
        try:
            said = parsedate_to_datetime(date or "").timestamp() + 0.5
        except (ValueError, TypeError, OverflowError):
            return
        found = said - (asked + answered) / 2
        if answered - asked <= _SLOW_SECONDS and abs(found - self.skew) > _EXACT_SECONDS:
            self.skew = found if abs(found) > _EXACT_SECONDS else 0.0
            if abs(self.skew) > _SKEW_SECONDS:
                way = "behind" if self.skew > 0 else "ahead of"
                words = "this machine's clock is %.0f s %s the API server's: the server's counts; set the clock (NTP)"
                _log.warning(words, abs(self.skew), way)


class Lines:
    """The lines of a watch, whole: bytes that end in the middle of one are no line."""

    def __init__(self, response: Any, resource: Resource) -> None:
        self._response, self._resource = response, resource

    def __iter__(self) -> Iterator[bytes]:
        """Raises Busy when the connection breaks, or says nothing for too long."""
        import urllib3

        rest = b""
        try:
            while True:
                piece = self._response.read1(65536)
                if not piece:
                    return
                *lines, rest = (rest + piece).split(b"\n")
                yield from (line for line in lines if line.strip())
                if len(rest) > MOST_LINE:
                    raise Busy(f"an event of {self._resource} has more than {MOST_LINE} bytes")
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Busy(f"the watch of {self._resource} broke off: {shortened(error)}") from error
        finally:
            self.close()

    def close(self) -> None:
        """Give the connection up."""
        self._response.close()

    def shut(self) -> None:
        """Make a read that waits in another thread return."""
        import contextlib
        import socket

        connection = getattr(self._response, "_connection", None) or getattr(self._response, "connection", None)
        sock = getattr(connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _load(config: Any, settings: Any) -> str:
    """Fill `settings` with where the server is and who we are; returns the namespace that goes with it."""
    import os
    from pathlib import Path

    service = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    places = [place for place in (os.environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep) if place]
    if not any(Path(place).expanduser().is_file() for place in places):
        try:
            config.load_incluster_config(client_configuration=settings)
        except config.ConfigException as error:
            raise InputError(
                f"no cluster to talk to: there is no kubeconfig at {' or '.join(places)} (KUBECONFIG names another place), and "
                f"this is no pod with a service account ({error})"
            ) from None
        own = service / "namespace"
        return own.read_text().strip() if own.is_file() else ""
    # named: the client has looked at the environment when it was imported
    named = os.pathsep.join(str(Path(place).expanduser()) for place in places)
    try:
        config.load_kube_config(config_file=named, client_configuration=settings)
        _, context = config.list_kube_config_contexts(config_file=named)
    except Exception as error:  # YAML, certificates, plug-ins: they have no common name
        raise InputError(f"the kubeconfig at {' or '.join(places)} cannot be used: {shortened(error)}") from None
    return str((context.get("context") or {}).get("namespace") or "")


def _with(query: dict[str, str], **more: str) -> dict[str, str]:
    return {**query, **{name: value for name, value in more.items() if value}}
