"""An S3 that fails: a small HTTP proxy before moto's server, which spoils the requests that a test picks."""

import http.client
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler

ERRORS = {
    "500": "InternalError", "503": "SlowDown", "409": "ConditionalRequestConflict", "400": "ExpiredToken",
}  # fmt: skip


class SpoilingProxy(BaseHTTPRequestHandler):
    """Forwards to moto, unless the plan says otherwise.

    Puts go one at a time: moto checks If-None-Match and writes in two steps, which S3 does in one.
    """

    protocol_version = "HTTP/1.1"
    upstream = ("", 0)
    plan = staticmethod(lambda method, path: None)
    one_put = threading.Lock()
    refuses = staticmethod(lambda token: "")
    """The code with which a request with this session token is refused; empty: it is not."""

    def serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = type(self).plan(self.command, self.path)
        refusal = type(self).refuses(self.headers.get("X-Amz-Security-Token") or "")
        if refusal:
            status = 403 if refusal == "RequestTimeTooSkewed" else 400
            return self.answer(status, {}, f"<Error><Code>{refusal}</Code><Message>m</Message></Error>".encode())
        if fault in ERRORS:
            return self.answer(
                int(fault), {}, f"<Error><Code>{ERRORS[fault]}</Code><Message>spoilt</Message></Error>".encode()
            )
        if fault == "hang":
            time.sleep(1.2)
        if fault in ("hang", "drop_request"):
            return self.hang_up()
        if self.command == "PUT":
            with self.one_put:
                status, headers, data = self.forward(body)
        else:
            status, headers, data = self.forward(body)
        if fault == "drop_reply":
            return self.hang_up()
        return self.answer(status, headers, data, cut=fault == "cut")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve

    def forward(self, body):
        connection = http.client.HTTPConnection(*self.upstream, timeout=30)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def answer(self, status, headers, data, cut=False):
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        size = headers.get("Content-Length", len(data)) if self.command == "HEAD" else len(data)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.hang_up()

    def hang_up(self):
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)

    def log_message(self, *args):
        pass


def each_first_time(fault):
    """A plan that spoils the first request of every kind to every path."""
    seen = Counter()

    def plan(method, path):
        seen[method, path] += 1
        return fault if seen[method, path] == 1 else None

    plan.seen = seen
    return plan
