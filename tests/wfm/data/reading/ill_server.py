"""An ill S3: a proxy before moto's server, with latency, errors, and connections that stall, trickle, break off or flip bytes.

    with ill_server() as server:            # both in this process; `main` is a program of its own
        server.put("bucket", "a.tar", data)
        server.illness = Illness(latency=0.2, errors=0.05, stalls=[3])
        Store.open("s3://bucket/store", server.options)

The n-th GET of a range (from 0, since the illness was set) is what is counted and spoilt; all else passes.
"""

import argparse
import contextlib
import dataclasses
import json
import logging
import random
import sys
import threading
from collections import Counter
from collections.abc import Collection
from http.server import ThreadingHTTPServer

from tests.faults.spoiling_proxy import SpoilingProxy


@dataclasses.dataclass
class Illness:
    """What is wrong with the service. Numbers in the collections are of ranged GETs in the order that they come."""

    latency: float = 0.0
    "Before each answer [s]."
    errors: float = 0.0
    "Share of GETs that are answered by 500 or 503, drawn from `seed` and the number of the GET."
    seed: int = 0
    failing: Collection[int] = ()
    "Answered by 503 each."
    stalls: Collection[int] = ()
    "Answered by headers and half of the body, and then nothing for ever."
    dead: Collection[int] = ()
    "Not answered at all, for ever."
    trickles: Collection[int] = ()
    "Answered by a byte each `trickle_seconds`, for ever or until it is over."
    trickle_seconds: float = 0.05
    truncated: Collection[int] = ()
    "Half of the body, then the connection is closed."
    flipped: Collection[int] = ()
    "One byte of the body is another."
    reset: Collection[int] = ()
    "The connection is closed without an answer."

    def of(self, number: int) -> str:
        """What befalls a GET."""
        for name in ("failing", "stalls", "dead", "trickles", "truncated", "flipped", "reset"):
            if number in getattr(self, name):
                return name
        draw = random.Random(f"{self.seed} {number}")
        return draw.choice(["500", "503"]) if draw.random() < self.errors else ""


class IllServer(SpoilingProxy):
    """The handler; `state` is of the server that it belongs to."""

    state: "Ill"

    def serve(self):
        with self.state.lock:
            self.state.here += 1
            self.state.most = max(self.state.most, self.state.here)
        try:
            self.spoil()
        finally:
            with self.state.lock:
                self.state.here -= 1

    def spoil(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        ill = self.state
        if self.command != "GET" or not self.headers.get("Range"):
            return self.answer(*self.forward(body))
        with ill.lock:
            number, illness = ill.number, ill.illness
            ill.number += 1
            fault, over = illness.of(number), ill.over
            ill.befell[fault] += 1
            ill.asked.append((self.path, self.headers["Range"]))
        if illness.latency and over.wait(illness.latency):
            return self.hang_up()
        if fault in ("500", "503", "failing"):
            code, words = ("500", "InternalError") if fault == "500" else ("503", "SlowDown")
            text = f"<Error><Code>{words}</Code><Message>ill</Message></Error>"
            return self.answer(int(code), {}, text.encode())
        if fault == "reset":
            return self.hang_up()
        if fault == "dead":
            over.wait()
            return self.hang_up()
        status, headers, data = self.forward(body)
        if fault == "flipped":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault in ("stalls", "trickles"):
            seconds = illness.trickle_seconds if fault == "trickles" else None
            return self.slowly(status, headers, data, seconds, over)
        return self.answer(status, headers, data, cut=fault == "truncated")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve

    def slowly(self, status, headers, data, seconds, over):
        """Half of the body at once and nothing more, or a byte each `seconds`."""
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            if seconds is None:
                self.wfile.write(data[: len(data) // 2])
                over.wait()
            for at in range(len(data)):
                self.wfile.write(data[at : at + 1])
                if over.wait(seconds):
                    break
        with contextlib.suppress(OSError):
            self.hang_up()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a client that cuts us is what we are for
            super().handle_error(request, client_address)


class Ill:
    """A running server. `options` opens a store behind it; `befell` counts what befell ranged GETs ("" is nothing), `most` is
    how many requests there were at a time."""

    def __init__(self, upstream):
        self.lock, self.over = threading.Lock(), threading.Event()
        self.upstream = upstream
        self._illness = Illness()
        self.number, self.befell, self.asked = 0, Counter(), []
        self.here = self.most = 0
        handler = type("Handler", (IllServer,), {"upstream": upstream, "state": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.options = {"key": "k", "secret": "secret", "endpoint_url": self.endpoint}

    @property
    def illness(self):
        return self._illness

    @illness.setter
    def illness(self, illness):
        with self.lock:
            self.over.set()  # what an illness before this one held is let go
            self._illness, self.over = illness, threading.Event()
            self.number, self.befell, self.asked = 0, Counter(), []

    def put(self, bucket, key, data):
        """Put an object, past the illness."""
        client = self._client()
        if not client.exists(bucket):
            client.mkdir(bucket)
        client.pipe_file(f"{bucket}/{key}", data)

    def upload(self, bucket, folder, prefix=""):
        """Put all files below a folder."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(bucket, f"{prefix}{path.relative_to(folder).as_posix()}", path.read_bytes())

    def _client(self):
        import s3fs

        host, port = self.upstream
        return s3fs.S3FileSystem(
            key="k", secret="secret", endpoint_url=f"http://{host}:{port}", use_listings_cache=False
        )

    def close(self):
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def ill_server(illness=None):
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    ill = Ill(moto.get_host_and_port())
    ill.illness = illness or Illness()
    try:
        yield ill
    finally:
        ill.close()
        moto.stop()


def main():
    """A server of its own process, so that what it costs is not taken from whoever reads. Prints a line of JSON: `endpoint`
    (ill) and `healthy` (moto itself, to put objects). Ends with its standard input."""
    parser = argparse.ArgumentParser()
    for field in ("latency", "errors", "trickle_seconds"):
        parser.add_argument(f"--{field}", type=float, default=getattr(Illness, field))
    for field in ("failing", "stalls", "dead", "trickles", "truncated", "flipped", "reset"):
        parser.add_argument(f"--{field}", type=int, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    illness = Illness(**vars(parser.parse_args()))
    with ill_server(illness) as ill:
        host, port = ill.upstream
        print(json.dumps({"endpoint": ill.endpoint, "healthy": f"http://{host}:{port}"}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
