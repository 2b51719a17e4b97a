"""A JSON API over HTTP, as gRPC's gateway serves it, with what goes wrong on purpose."""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Json = dict[str, Any]
Route = tuple[str, "re.Pattern[str]", Callable[..., Json]]
_HTTP_OF = {3: 400, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 13: 500, 14: 503, 16: 401}
"""gRPC's code -> HTTP status, as the gateway has it."""


class RpcError(Exception):
    """A refusal: gRPC's code, and words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass
class Faults:
    """What happens to the next requests: `planned` are (method, path pattern, what)."""

    planned: list[tuple[str, str, str]] = field(default_factory=list)
    slow_seconds: float = 0.0

    def plan(self, what: str, method: str = "", path: str = "") -> None:
        """`what`: drop, lost (done, and no answer), 503, 429, html, redirect:URL, forbidden."""
        self.planned.append((method, path, what))

    def take(self, method: str, path: str) -> str:
        for one in self.planned:
            if one[0] in ("", method) and re.search(one[1], path):
                self.planned.remove(one)
                return one[2]
        return ""


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is no news."""


class Server:
    """Serves ``routes`` until `stop`; a request without the token is refused where there is one."""

    def __init__(self, routes: list[Route], token: str = "", no_token_says: str = "token not valid") -> None:
        self.routes, self.token, self.no_token_says = routes, token, no_token_says
        self.faults = Faults()
        self.requests: list[tuple[str, str]] = []
        self.broken: list[str] = []
        "What no server would say: an object that the official models do not take, in a request or an answer."
        self.tokens: list[str] = []
        "What stood in Authorization, of each request."
        self._server = _Quiet(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True, name="engine server").start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, query: dict[str, str], body: Json | None) -> Json:
        for verb, pattern, call in self.routes:
            found = pattern.fullmatch(path)
            if verb == method and found:
                given = {name: unquote(value) for name, value in found.groupdict().items()}
                return call(query=query, body=body, **given)
        raise RpcError(5, "Not Found")


def route(method: str, path: str, call: Callable[..., Json]) -> Route:
    """``/api/v1/workflows/{namespace}/{name}`` -> a call with these as keywords, beside `query` and `body`."""
    return method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/:]+)", path)), call


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Nothing: `requests` has them."""

        def do(self) -> None:
            split = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.requests.append((self.command, split.path))
            server.tokens.append(self.headers.get("Authorization", ""))
            fault = server.faults.take(self.command, split.path)
            time.sleep(server.faults.slow_seconds)
            if fault == "drop":
                self.close_connection = True
                return
            if fault.startswith("redirect:"):
                self._send(307, b"", Location=fault.partition(":")[2])
                return
            if fault == "html":
                self._send(200, b"<html>log in here</html>", kind="text/html")
                return
            if fault in ("503", "429"):
                self._refuse(RpcError(14 if fault == "503" else 8, "try again later"))
                return
            try:
                if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
                    raise RpcError(16, server.no_token_says)
                if fault == "forbidden":
                    words = 'workflows.argoproj.io is forbidden: User "system:serviceaccount:wfm:reader" cannot do that'
                    raise RpcError(7, words)
                query = {name: values[-1] for name, values in parse_qs(split.query).items()}
                answer = server.answer(self.command, split.path, query, json.loads(raw) if raw.strip() else None)
            except RpcError as error:
                self._refuse(error)
                return
            except Exception as error:
                server.broken.append(f"{self.command} {split.path}: {type(error).__name__}: {error}")
                self._refuse(RpcError(13, server.broken[-1]))
                return
            if fault == "lost":
                self.close_connection = True
                return
            self._send(200, json.dumps(answer).encode())

        do_GET = do_POST = do_PUT = do_DELETE = do

        def _refuse(self, error: RpcError) -> None:
            said = {"code": error.code, "message": error.message, "details": []}
            self._send(_HTTP_OF[error.code], json.dumps(said).encode())

        def _send(self, code: int, data: bytes, kind: str = "application/json", **headers: str) -> None:
            self.send_response(code)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    return Handler
