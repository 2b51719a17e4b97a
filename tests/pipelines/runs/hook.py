"""A receiver of the webhook, for tests: it answers as it is told to, and keeps what came."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SECRET = "the-secret-of-both-sides"


@dataclass
class Receiver:
    """Answers with these codes, one a request, then with 204; keeps what came."""

    answers: list[int] = field(default_factory=list)
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@contextmanager
def receiving() -> Iterator[Receiver]:
    """One that is up while the block lasts."""
    kept = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.came.append((dict(self.headers.items()), self.rfile.read(int(self.headers["Content-Length"]))))
            code = kept.answers.pop(0) if kept.answers else 204
            self.send_response(code)
            if code in (301, 307, 308):
                self.send_header("Location", kept.url.replace("/hook", "/elsewhere"))
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kept.url = f"http://127.0.0.1:{server.server_address[1]}/hook/a-password"
        yield kept
        server.shutdown()
