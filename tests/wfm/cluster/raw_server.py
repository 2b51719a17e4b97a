"""An HTTP server that says exactly what a test wants, byte by byte: chunks that end in the middle, silence, nonsense."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
END = b"0\r\n\r\n"


class Asked:
    """One request, as it came."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        self.method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        self.path = urlsplit(target).path
        self.query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        self.headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Asked], Iterator[bytes]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def line(kind: str, found: dict[str, Any]) -> bytes:
    """An event of a watch, as one chunk."""
    return chunk(json.dumps({"type": kind, "object": found}).encode() + b"\n")


def whole(document: Any, status: int = 200, **headers: str) -> bytes:
    """An answer at once."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n{more}\r\n".encode() + body


def status(code: int, reason: str, message: str, **more: Any) -> bytes:
    """A refusal as Kubernetes words it."""
    return whole(
        {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message, **more}, code
    )


@contextmanager
def served(answer: Answer) -> Iterator[tuple[str, list[Asked]]]:
    """(url, what was asked so far). Each connection serves one request, and is closed after what `answer` yields."""
    asked: list[Asked] = []
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def one(connection: socket.socket) -> None:
        with connection:
            raw = b""
            while b"\r\n\r\n" not in raw:
                piece = connection.recv(65536)
                if not piece:
                    return
                raw += piece
            length = Asked(raw).headers.get("Content-Length", "0")
            while len(raw.partition(b"\r\n\r\n")[2]) < int(length):
                raw += connection.recv(65536)
            found = Asked(raw)
            asked.append(found)
            try:
                for piece in answer(found):
                    connection.sendall(piece)
            except OSError:  # whoever asked has left
                return

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
    finally:
        over.set()
        listening.close()
