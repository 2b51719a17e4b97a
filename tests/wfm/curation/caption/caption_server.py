"""An OpenAI-compatible endpoint that looks at the pictures it is sent, and stalls, answers garbage, swaps answers or dies."""

import base64
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


class Endpoint(ThreadingHTTPServer):
    """Says how bright the first picture is. `faults` are taken one a request, in order; `always` by brightness.

    The plain question that asks whether anybody is there is answered unless the endpoint is `down`, and counted apart.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[str] = []
        self.always: dict[int, str] = {}
        self.down = ""
        self.dies_after = 10**9
        self.seconds = 0.0
        self.asked: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: set[str] = set()
        self.plain = 0
        self.busy = self.busiest = 0
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.swap: list[tuple[str, threading.Event, list[str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is part of the game."""

    def pictures(self) -> int:
        """How many of the requests showed any."""
        return sum(len(request["messages"][0]["content"]) > 1 for request in self.asked)


def brightness(request: dict[str, Any]) -> int:
    """Of the first picture, to the nearest 10; -1 without one."""
    import cv2

    first = request["messages"][0]["content"][0]
    if first["type"] != "image_url":
        return -1
    data = base64.b64decode(first["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
    return round(float(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).mean()) / 10) * 10


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.respond(200, {"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "x"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = request["messages"][0]["content"][-1]["text"]
        found = re.search(r"exactly '(\w+)'", text)
        assert found
        light = brightness(request)
        server = self.server
        with server.lock:
            server.keys.add(self.headers.get("Authorization", ""))
            if found[1].startswith("ready"):
                server.plain += 1
                fault = server.down
            else:
                server.asked.append(request)
                server.times.append(time.monotonic())
                if len(server.asked) > server.dies_after:
                    server.down = "die"
                fault = server.down or server.always.get(light) or (server.faults.pop(0) if server.faults else "")
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        time.sleep(server.seconds)
        said = f"brightness {light}" if light >= 0 else "other words: " + text.split("\n\n")[1]
        try:
            self.answer(fault, json.dumps({"code": found[1], "caption": said}))
        finally:
            with server.lock:
                server.busy -= 1

    def answer(self, fault: str, said: str) -> None:
        if fault == "stall":
            self.server.released.wait(5)
        if fault == "die":
            self.connection.close()
            return
        if fault.isdigit():
            self.respond(int(fault), {"error": {"message": f"no, and the header was {self.headers['Authorization']}"}})
            return
        if fault == "not json at all":
            self.respond(200, b"<html>gateway</html>")
            return
        said = {
            "garbage": "Sure! Here is a caption: a cat.",
            "schema": json.dumps({"code": json.loads(said)["code"], "text": "a cat"}),
            "other code": json.dumps({"code": "0" * 12, "caption": "another clip's"}),
            "empty": json.dumps({**json.loads(said), "caption": " \n"}),
            "endless": json.dumps({**json.loads(said), "caption": "la " * 5000}),
            "10 MB": json.dumps({**json.loads(said), "caption": "x" * 10_000_000}),
        }.get(fault, said)
        if fault == "swap":
            said = self.swapped(said)
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        self.respond(200, body, cut=fault == "die in the middle", drip=fault == "drip")

    def swapped(self, said: str) -> str:
        """The answer of another request that is to be swapped too, if one comes within a moment."""
        with self.server.lock:
            if self.server.swap:
                other, ready, box = self.server.swap.pop()
                box.append(said)
                ready.set()
                return other
            ready, box = threading.Event(), []
            self.server.swap.append((said, ready, box))
        ready.wait(1)
        return box[0] if box else said

    def respond(self, status: int, body: Any, *, cut: bool = False, drip: bool = False) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status in (429, 503):
            self.send_header("Retry-After", "0.2")
        self.end_headers()
        if drip:
            for byte in data[:40]:
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)
            data = data[40:]
        self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.wfile.flush()
            self.connection.close()
