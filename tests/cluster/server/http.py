"""The API over HTTP, as the official clients speak it.

    server = HttpServer(api, faults)         # streams=False: a watch ends when all is told, for tests with a clock of their own
    server.start(); server.url; server.stop(); server.start()      # the same port again; what is stored stays

A watch with `streams` goes on until its timeoutSeconds, with a bookmark now and then.
"""

import contextlib
import json
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.cluster.server import selectors
from tests.cluster.server.api import Api, ApiError
from tests.cluster.server.faults import Faults
from tests.cluster.server.kinds import RESOURCES, Resource
from tests.cluster.server.storage import ADDED, DELETED, MODIFIED, Change, Compacted, Json

_PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?"
)
_BY_PATH = {(resource.group, resource.plural): resource for resource in RESOURCES}
_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_LONGEST_WATCH = 1800.0
_BOOKMARK_EVERY = 2.0


Around = Callable[[str, str, str, Json], Callable[[], Any] | None]
"""Called before a request with (verb, resource, name, body); what it returns is called after it."""


class HttpServer:
    """Serves an `Api`. `forbidden`: (verb, resource) pairs that RBAC does not allow; "*" stands for any."""

    def __init__(self, api: Api, faults: Faults, *, streams: bool = True, port: int = 0) -> None:
        self.api, self.faults, self.streams = api, faults, streams
        self.forbidden: set[tuple[str, str]] = set()
        self.around: list[Around] = []
        self.token = ""
        "A bearer token that requests must bring; none is asked for without."
        self.requests: list[tuple[str, str, int]] = []
        "(verb, resource, code) of every request."
        self._port = port
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def up(self) -> bool:
        return self._server is not None

    def start(self) -> "HttpServer":
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.front = self
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True, name="api server").start()
        return self

    def stop(self) -> None:
        """Close everything, also the connections that are open."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.hang_up()

    def without(self, resource: str) -> None:
        """Its CRD is not installed (any more)."""
        self.api.installed.discard(resource)

    def fill(self, resource: str) -> None:
        """The namespace's quota of these objects is used up."""
        self.api.quota[resource] = 0

    def free(self) -> None:
        """There is quota again."""
        self.api.quota.clear()

    def compact(self) -> None:
        """Forget all that was before now."""
        self.api.storage.compact()

    def allows(self, verb: str, resource: str) -> bool:
        return not self.forbidden & {(verb, resource), (verb, "*"), ("*", resource), ("*", "*")}


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    front: HttpServer

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.open: set[socket.socket] = set()

    def hang_up(self) -> None:
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that went away in the middle is no news."""


class HangUp(Exception):
    """Close the connection without an answer."""


class _Handler(socketserver.StreamRequestHandler):
    server: _Server
    disable_nagle_algorithm = True
    wbufsize = -1

    def handle(self) -> None:
        self.server.open.add(self.connection)
        try:
            while self.server.front.up and self._one():
                self.wfile.flush()
        except (HangUp, ConnectionError, ValueError, OSError):
            pass
        finally:
            self.server.open.discard(self.connection)

    def _one(self) -> bool:
        line = self.rfile.readline(65536)
        if not line.strip():
            return False
        method, target, _ = line.decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while (line := self.rfile.readline(65536)) not in (b"\r\n", b"\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        body = self.rfile.read(int(headers.get("content-length") or 0))
        split = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(split.query, keep_blank_values=True).items()}
        self._verb, self._resource, code = "", "", 500
        try:
            code = self._answer(method, split.path, query, headers, body)
        except ApiError as error:
            code = error.code
            extra = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
            if code == 404 and not error.reason:
                self._send(404, b"404 page not found\n", "text/plain; charset=utf-8")
            else:
                self._send(code, json.dumps(error.status()).encode(), extra=extra)
        finally:
            self.server.front.requests.append((self._verb, self._resource, code))
        return True

    def _send(
        self, code: int, data: bytes, kind: str = "application/json", extra: dict[str, str] | None = None
    ) -> None:
        lines = [f"HTTP/1.1 {code} {HTTPStatus(code).phrase}", f"Content-Type: {kind}", f"Content-Length: {len(data)}"]
        lines.append(self._date())
        lines += [f"{name}: {value}" for name, value in (extra or {}).items()]
        self.wfile.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    def _date(self) -> str:
        return f"Date: {formatdate(self.server.front.api.now(), usegmt=True)}"

    # -- what is asked

    def _answer(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> int:
        front = self.server.front
        document = json.loads(body) if body.strip() else None
        if front.token and headers.get("authorization") != f"Bearer {front.token}":
            raise ApiError(401, "Unauthorized", "Unauthorized")
        if path in ("/version", "/version/"):
            return self._give(200, {"major": "1", "minor": "34", "gitVersion": "v1.34.4", "platform": "linux/amd64"})
        if path in ("/healthz", "/readyz", "/livez"):
            self._send(200, b"ok", "text/plain")
            return 200
        if path.endswith("/selfsubjectaccessreviews") and method == "POST":
            asked = document["spec"].get("resourceAttributes", {})
            name = f"{asked.get('resource')}.{asked['group']}" if asked.get("group") else str(asked.get("resource"))
            self._verb, self._resource = "create", "selfsubjectaccessreviews.authorization.k8s.io"
            return self._give(201, {**document, "status": {"allowed": front.allows(str(asked.get("verb")), name)}})
        match = _PATH.fullmatch(path)
        row = _BY_PATH.get((match["group"] or "", match["plural"])) if match else None
        if match is None or row is None or row.name not in front.api.installed or match["version"] != row.version:
            if path.startswith("/apis/") and path.count("/") == 3:
                return self._discover(path)
            raise ApiError(404, "", "404 page not found")
        return self._do(method, row, match, query, headers, document)

    def _discover(self, path: str) -> int:
        _, _, group, version = path.split("/")
        rows = [
            r
            for r in RESOURCES
            if (r.group, r.version) == (group, version) and r.name in self.server.front.api.installed
        ]
        if not rows:
            raise ApiError(404, "", "404 page not found")
        verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        found = [{"name": r.plural, "kind": r.kind, "namespaced": r.namespaced, "verbs": verbs} for r in rows]
        return self._give(200, {"kind": "APIResourceList", "groupVersion": f"{group}/{version}", "resources": found})

    def _do(
        self,
        method: str,
        row: Resource,
        match: "re.Match[str]",
        query: dict[str, str],
        headers: dict[str, str],
        document: Any,
    ) -> int:
        front, api = self.server.front, self.server.front.api
        namespace, name, sub = match["namespace"] or "", match["name"] or "", match["sub"] or ""
        verb = _verb(method, name, query)
        self._verb, self._resource = verb, row.name
        if not front.allows(verb, row.name):
            raise forbidden(verb, row, name, namespace)
        spared = front.faults.spared and headers.get("user-agent") == front.faults.spared
        fault = "" if spared else front.faults.take(verb, row.name)
        before(fault)
        if verb == "watch":
            return self._watch(row, namespace, query, fault)
        later = [done for done in (one(verb, row.name, name, document or {}) for one in front.around) if done]
        code, answer = self._change(api, row, namespace, name, sub, verb, query, headers, document)
        for done in later:
            done()
        if fault == "lost":
            raise HangUp
        if isinstance(answer, bytes):
            self._send(code, answer, "text/plain" if sub == "log" else "application/json")
            return code
        return self._give(code, answer)

    def _change(
        self, api: Api, row: Resource, namespace: str, name: str, sub: str, verb: str, query: dict[str, str],
        headers: dict[str, str], document: Any,
    ) -> tuple[int, Any]:  # fmt: skip
        way = headers.get("content-type", "").partition(";")[0]
        if verb == "list":
            found, metadata = api.select(
                row.name, namespace, labels=query.get("labelSelector", ""), fields=query.get("fieldSelector", ""),
                limit=int(query.get("limit") or 0), continue_=query.get("continue", ""),
            )  # fmt: skip
            head = json.dumps({"apiVersion": row.api_version, "kind": f"{row.kind}List", "metadata": metadata}).encode()
            return 200, head[:-1] + b',"items":[' + b",".join(one.data for one in found) + b"]}"
        if sub == "log":
            api.get(row.name, namespace, name)
            return 200, api.logs.get((namespace, name), "").encode()
        if verb == "get":
            return 200, api.stored(row.name, namespace, name).data
        if verb == "create" and sub == "eviction":
            api.evict(namespace, name)
            return 201, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        if verb == "create" and not name:
            return 201, api.create(row.name, namespace, document or {})
        if verb == "update":
            return 200, api.update(row.name, namespace, name, document, status=sub == "status")
        if verb == "patch":
            return 200, api.patch(row.name, namespace, name, document, way=way, status=sub == "status")
        options = {**(document or {})}
        for field in ("propagationPolicy", "gracePeriodSeconds"):
            if field in query:
                options[field] = int(query[field]) if field.endswith("Seconds") else query[field]
        if verb == "delete":
            return 200, api.delete(row.name, namespace, name, options)
        if verb == "deletecollection":
            labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
            for one in api.select(row.name, namespace, labels=labels, fields=fields)[0]:
                api.delete(row.name, namespace, one.object["metadata"]["name"], options)
            return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        raise ApiError(405, "MethodNotAllowed", f"{verb} {row.name}/{sub}")

    def _give(self, code: int, answer: Any) -> int:
        self._send(code, json.dumps(answer).encode())
        return code

    # -- watches

    def _watch(self, row: Resource, namespace: str, query: dict[str, str], fault: str) -> int:
        front, storage = self.server.front, self.server.front.api.storage
        fits = selectors.parse(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        asked = query.get("resourceVersion") or ""
        if asked not in ("", "0"):
            expired = fault in ("gone", "gone_event") or int(asked) < storage.compacted
            way = {"gone": "http", "gone_event": "event"}.get(fault) or front.faults.gone_as
            if expired and (way or front.faults.rng.choice(("http", "event"))) == "http":
                raise ApiError(410, "Expired", f"too old resource version: {asked} ({storage.compacted})")
            if int(asked) > storage.revision + 1000:
                words = f"Too large resource version: {asked}, current: {storage.revision}"
                raise ApiError(504, "Timeout", words, retry_after=1)
            self._begin()
            if expired:
                error = ApiError(410, "Expired", f"too old resource version: {asked} ({storage.compacted})")
                self._event("ERROR", json.dumps(error.status()).encode())
                return self._end()
            at = int(asked)
        else:
            self._begin()
            with storage.lock:
                found, at = storage.of(row.name, namespace), storage.revision
            for one in found:
                if fits(one.object):
                    self._event(ADDED, one.data)
        bookmarks = _is_true(query.get("allowWatchBookmarks")) and fault != "no_bookmark"
        ends = time.monotonic() + min(float(query.get("timeoutSeconds") or _LONGEST_WATCH), _LONGEST_WATCH)
        if fault == "mute":  # it ends as if there had been nothing to say
            while front.streams and front.up and time.monotonic() < ends:
                time.sleep(0.05)
            return self._end()
        marked = time.monotonic()
        while True:
            with storage.lock:
                try:
                    changes = storage.since(at, row.name)
                except Compacted as gone:
                    self._event("ERROR", json.dumps(ApiError(410, "Expired", str(gone)).status()).encode())
                    return self._end()
                seen = storage.revision
            told = [line for change in changes if (line := _told(change, namespace, fits))]
            if fault == "cut":
                told = told[: len(told) // 2]
            for type_, data in told:
                self._event(type_, data)
            if fault == "cut":
                self.wfile.flush()
                raise HangUp
            at = seen
            over = not front.streams or time.monotonic() >= ends or not front.up
            if bookmarks and (over or time.monotonic() - marked > _BOOKMARK_EVERY):
                marked = time.monotonic()
                self._event("BOOKMARK", _bookmark(row, at))
            if over:
                return self._end()
            self.wfile.flush()
            with storage.changed:
                if storage.revision == at:
                    storage.changed.wait(0.2)

    def _begin(self) -> None:
        lines = ["HTTP/1.1 200 OK", "Content-Type: application/json", "Transfer-Encoding: chunked", self._date()]
        self.wfile.write("\r\n".join(lines).encode() + b"\r\n\r\n")

    def _event(self, type_: str, data: bytes) -> None:
        line = b'{"type":"' + type_.encode() + b'","object":' + data + b"}\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def _end(self) -> int:
        self.wfile.write(b"0\r\n\r\n")
        return 200


def asked(method: str, path: str, query: dict[str, str]) -> tuple[str, str, str, str]:
    """(verb, resource, name, namespace) of a request; empty resource: none of the kinds that are known here."""
    match = _PATH.fullmatch(path)
    row = _BY_PATH.get((match["group"] or "", match["plural"])) if match else None
    if match is None or row is None:
        return _VERBS[method], "", "", ""
    name = match["name"] or ""
    return _verb(method, name, query), row.name, name, match["namespace"] or ""


def _verb(method: str, name: str, query: dict[str, str]) -> str:
    verb = _VERBS[method]
    if name:
        return verb
    watch = _is_true(query.get("watch"))
    return {"get": "watch" if watch else "list", "delete": "deletecollection"}.get(verb, verb)


def forbidden(verb: str, row: Resource, name: str, namespace: str) -> ApiError:
    """What RBAC says."""
    where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    return ApiError(
        403, "Forbidden",
        f'{row.name} is forbidden: User "system:serviceaccount:{namespace}:launcher" cannot {verb} resource '
        f'"{row.plural}" in API group "{row.group}"{where}', kind=row.plural, name=name,
    )  # fmt: skip


def _is_true(word: str | None) -> bool:
    """The Python client writes True."""
    return (word or "").lower() in ("true", "1")


def before(fault: str) -> None:
    if fault == "429":
        raise ApiError(
            429, "TooManyRequests", "the server has received too many requests, please try again later", retry_after=1
        )
    if fault in ("500", "503", "504"):
        reason = {"500": "InternalError", "503": "ServiceUnavailable", "504": "Timeout"}[fault]
        raise ApiError(int(fault), reason, "etcdserver: request timed out" if fault == "504" else "the server is ill")
    if fault == "drop":
        raise HangUp


def _told(change: Change, namespace: str, fits: selectors.Test) -> tuple[str, bytes] | None:
    """What a watcher with this selector sees of a change."""
    if namespace and change.key.namespace != namespace:
        return None
    before = change.old is not None and fits(change.old.object)
    after = change.type != DELETED and fits(change.new.object)
    if not before and not after:
        return None
    return (DELETED if not after else MODIFIED if before else ADDED), change.new.data


def _bookmark(row: Resource, revision: int) -> bytes:
    found = {"kind": row.kind, "apiVersion": row.api_version, "metadata": {"resourceVersion": str(revision)}}
    return json.dumps(found).encode()
