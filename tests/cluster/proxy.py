"""A proxy in front of any API server, which makes it ill for the launchers that go through it: real HTTP, real connections.

    front = Proxy("http://127.0.0.1:8001").start()       # `kubectl proxy`, or `tests.cluster.serve`
    front.faults.plan("429", "list", times=3)
    front.stop(); front.start()                          # the server is down, and back on the same port

It has the switches of `server.http.HttpServer`: faults, what is forbidden, not installed or used up, what happens around a
request, a history that is forgotten.
"""

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.cluster.server.api import ApiError
from tests.cluster.server.faults import Faults
from tests.cluster.server.http import Around, HangUp, asked, before, forbidden
from tests.cluster.server.kinds import BY_NAME
from tests.cluster.server.storage import Json

SHORT_SECONDS = 1.0
"""How long a watch with a fault lasts: a server may end any at any time."""
_HOP = ("connection", "transfer-encoding", "content-length", "host", "keep-alive")


class Proxy:
    """To `upstream`, which speaks plain HTTP and asks for no account (``kubectl proxy`` does so for a real server)."""

    def __init__(self, upstream: str, seed: int = 0) -> None:
        split = urlsplit(upstream)
        assert split.scheme == "http", (
            f"--api {upstream!r} is not http://: `kubectl proxy` gives such a URL for any cluster"
        )
        assert split.hostname, f"--api {upstream!r} names no host"
        self.host, self.port = split.hostname, split.port or 80
        self.faults = Faults(random.Random(seed))
        self.forbidden: set[tuple[str, str]] = set()
        self.around: list[Around] = []
        self.requests: list[tuple[str, str, int]] = []
        self.absent: set[str] = set()
        self.full: set[str] = set()
        self.compacted = 0
        "Versions before this one are forgotten."
        self._own_port = 0
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._own_port}"

    @property
    def up(self) -> bool:
        return self._server is not None

    def start(self) -> "Proxy":
        self._server = _Server(("127.0.0.1", self._own_port), _Handler)
        self._server.front = self
        self._own_port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True, name="proxy").start()
        return self

    def stop(self) -> None:
        """Close everything, also the connections that are open."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            for connection in list(server.open):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def without(self, resource: str) -> None:
        """As if the CRD were not installed."""
        self.absent.add(resource)

    def fill(self, resource: str) -> None:
        """As if the namespace's quota of these objects were used up."""
        self.full.add(resource)

    def free(self) -> None:
        """There is quota again."""
        self.full.clear()

    def compact(self) -> None:
        """As if the server forgot all that was before now: watches from before get a 410, those that go on an ERROR."""
        upstream = http.client.HTTPConnection(self.host, self.port, timeout=10)
        upstream.request("GET", BY_NAME["pods"].path("default") + "?limit=1")
        found = json.loads(upstream.getresponse().read())
        upstream.close()
        self.compacted = int(found["metadata"]["resourceVersion"])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    front: Proxy

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.open: set[socket.socket] = set()

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that went away in the middle is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *words: Any) -> None:
        """The launchers' requests are in `Proxy.requests`."""

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def _any(self) -> None:
        front = self.server.front
        split = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(split.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        verb, resource, name, namespace = asked(self.command, split.path, query)
        code = 502
        try:
            code = self._pass_on(verb, resource, name, namespace, query, body)
        except ApiError as error:
            code = error.code
            if code == 404:
                self._give(404, b"404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"})
            else:
                extra = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
                self._give(code, json.dumps(error.status()).encode(), {"Content-Type": "application/json", **extra})
        except (HangUp, OSError, http.client.HTTPException):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
        finally:
            front.requests.append((verb, resource, code))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any

    def _pass_on(self, verb: str, resource: str, name: str, namespace: str, query: dict[str, str], body: bytes) -> int:
        front = self.server.front
        if front.forbidden & {(verb, resource), (verb, "*"), ("*", resource), ("*", "*")}:
            raise forbidden(verb, BY_NAME[resource], name, namespace)
        if resource in front.absent:
            raise ApiError(404, "", "404 page not found")
        if verb == "create" and resource in front.full:
            words = f'{resource} "x" is forbidden: exceeded quota: team, used: count/{resource}=0, limited: count/{resource}=0'
            raise ApiError(403, "Forbidden", words)
        fault = front.faults.take(verb, resource)
        before(fault)
        if verb == "watch":
            too_old = int(query.get("resourceVersion") or 0) < front.compacted
            if fault == "gone" or (too_old and fault != "gone_event"):
                raise ApiError(410, "Expired", "too old resource version")
            if fault == "gone_event":
                return self._forgotten()
        document = json.loads(body) if body.strip() else {}
        later = [done for done in (one(verb, resource, name, document) for one in front.around) if done]
        response = self._upstream(body)
        if verb == "watch" and response.status == 200:
            return self._stream(response, fault)
        data = response.read()
        for done in later:
            done()
        if fault == "lost":
            raise HangUp
        self._give(response.status, data, {k: v for k, v in response.getheaders() if k.lower() not in _HOP})
        return response.status

    def _upstream(self, body: bytes) -> http.client.HTTPResponse:
        front = self.server.front
        connection = http.client.HTTPConnection(front.host, front.port, timeout=600)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        connection.request(self.command, self.path, body or None, headers)
        return connection.getresponse()

    def _give(self, code: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(code)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    # -- watches

    def _begin(self) -> None:
        self.send_response_only(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def _chunk(self, line: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()

    def _error(self) -> int:
        error: Json = ApiError(410, "Expired", "too old resource version").status()
        self._chunk(json.dumps({"type": "ERROR", "object": error}).encode() + b"\n")
        self._chunk(b"")
        return 200

    def _forgotten(self) -> int:
        self._begin()
        return self._error()

    def _stream(self, response: http.client.HTTPResponse, fault: str) -> int:
        front = self.server.front
        known, ends = front.compacted, time.monotonic() + (SHORT_SECONDS if fault else 1e9)
        self._begin()
        with response:
            if fault == "mute":
                time.sleep(SHORT_SECONDS)
                self._chunk(b"")
                return 200
            while (line := response.readline()) and time.monotonic() < ends:
                if not front.up:
                    raise HangUp
                if front.compacted > known:
                    return self._error()
                if fault == "cut":  # in the middle of a line
                    self._chunk(line[: len(line) // 2])
                    raise HangUp
                if fault != "no_bookmark" or b'"type":"BOOKMARK"' not in line:
                    self._chunk(line)
        self._chunk(b"")
        return 200
