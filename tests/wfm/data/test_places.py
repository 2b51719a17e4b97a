"""Which places a source may name, and which machines a web address reaches."""

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wfm.artifacts import Store
from wfm.data.places import ADDRESSES_VARIABLE, RefusedPlace, problem_of_address, problem_of_place
from wfm.data.remote import object_info, remote_error, remote_file_system
from wfm.data.source import fetch_source
from wfm.errors import ConfigError


class Answers(http.server.BaseHTTPRequestHandler):
    """Counts who reaches it; ``/to/<port>`` leads on to another server of this machine."""

    def _answer(self) -> None:
        self.server.reached.append(self.path)  # type: ignore[attr-defined]
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.2:{self.path.removeprefix('/to/')}/secret")
        else:
            self.send_response(200)
        self.send_header("Content-Length", "0" if self.path.startswith("/to/") else "6")
        self.end_headers()
        if self.command == "GET" and not self.path.startswith("/to/"):
            self.wfile.write(b"secret")

    do_GET = do_HEAD = _answer

    def log_message(self, *_: Any) -> None:
        pass


def serving(address: str) -> Any:
    server = http.server.ThreadingHTTPServer((address, 0), Answers)
    server.reached = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def servers() -> Iterator[tuple[Any, Any]]:
    """(a server on 127.0.0.1, one on 127.0.0.2)."""
    both = serving("127.0.0.1"), serving("127.0.0.2")
    yield both
    for server in both:
        server.shutdown()
        server.server_close()


def asked(url: str) -> Any:
    """What is known of a web address, or the error."""
    try:
        return object_info(*remote_file_system(url, {}))
    except Exception as error:
        return remote_error(url, error)


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "local:///etc/passwd", "memory://x", "data://x", "zip://x", "reference://x", "dir://x"),
        *(
            "zip://a.mp4::file:///x.zip",
            "s3://b/a.zip::file:///etc/passwd",
            "simplecache::s3://b/x",
            "filecache::file://x",
        ),
        *(
            "S3://b/x",
            "FILE:///x",
            "://x",
            "wfm://" + "0" * 64 + "/x",
            "http:///x",
            "s3:///",
            "http://[::1/x",
            "http://h:0/x",
        ),
        *("http://h:99999/x", "ftp://h/x", "github://o:r@/x", "jupyter://x", "hf://x", "blockcache::memory://x"),
        "http://::1/x",
    ],
)
def test_what_no_source_may_name(url: str) -> None:
    """The old code gave any of them to fsspec."""
    assert problem_of_place(url).startswith("refused_place: ")
    with pytest.raises(RefusedPlace):
        remote_file_system(url.replace("o:r@", "o"), {})


@pytest.mark.parametrize(
    "url", ["s3://b/a b.mp4", "gs://b/x", "https://h/x?y=1", "http://h:8080/a:b", "http://[2001:4860:4860::8888]/x"]
)
def test_what_a_source_may_name(url: str) -> None:
    assert problem_of_place(url) == ""


INSIDE = (
    *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.1", "255.255.255.255", "240.0.0.1"),
    *("::1", "::", "fe80::1"),
    *("fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254"),
    *("::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:db8::1"),
)


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_refused_unless_opened(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no address of the open internet" in problem_of_address(address)
    monkeypatch.setenv(ADDRESSES_VARIABLE, "any")
    assert problem_of_address(address) == ""


def test_networks_are_opened_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESSES_VARIABLE, "127.0.0.0/8, 10.1.0.0/16,::1")
    opened = ("127.0.0.1", "::ffff:127.0.0.1", "::1", "10.1.2.3", "8.8.8.8", "2606:4700::1111")
    assert [problem_of_address(address) for address in opened] == [""] * 6
    assert problem_of_address("10.2.0.1")
    monkeypatch.setenv(ADDRESSES_VARIABLE, "127.0.0.1/8")
    with pytest.raises(ConfigError, match=r"WFM_SOURCE_ADDRESSES='127.0.0.1/8': .*; give networks such as"):
        remote_file_system("http://h/x", {})


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost", "[::ffff:127.0.0.1]"]
)
def test_no_way_of_writing_it_reaches_this_machine(servers: tuple[Any, Any], host: str) -> None:
    """The old code fetched each of them."""
    server, _ = servers
    error = asked(f"http://{host}:{server.server_port}/x")
    assert isinstance(error, RefusedPlace), error
    assert server.reached == []


def test_each_hop_of_a_redirect_is_checked(servers: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = servers
    monkeypatch.setenv(ADDRESSES_VARIABLE, "127.0.0.1")
    assert asked(f"http://127.0.0.1:{first.server_port}/x")["size"] == 6
    error = asked(f"http://127.0.0.1:{first.server_port}/to/{second.server_port}")
    assert isinstance(error, RefusedPlace), error
    assert "127.0.0.2 is no address of the open internet" in str(error)
    assert second.reached == [], "the old code read the secret"


def test_the_address_that_was_checked_is_the_one_connected(
    servers: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers with another address each time it is asked: what is connected was looked at."""
    server, _ = servers
    resolve = socket.getaddrinfo
    answers: list[str] = []

    def rebound(host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        if host in ("films.example", b"films.example"):
            answers.append("8.8.8.8" if not answers else "127.0.0.1")
            return resolve(answers[-1], port, *rest, **named)
        return resolve(host, port, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    answers.append("asked before, by whoever checks by name")
    error = asked(f"http://films.example:{server.server_port}/x")
    assert isinstance(error, RefusedPlace), error
    assert answers[-1] == "127.0.0.1"
    assert server.reached == []


class Endless(http.server.BaseHTTPRequestHandler):
    """Says that a file has the bytes of its name (``0``: says nothing), and sends up to 64 MiB whatever is asked for."""

    def do_HEAD(self) -> None:
        stated = self.path.removeprefix("/").partition(".")[0]
        self.send_response(206 if self.headers.get("Range") and stated != "0" else 200)
        if self.command == "HEAD" and stated != "0":
            self.send_header("Content-Length", stated)
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        with contextlib.suppress(OSError):
            for _ in range(1024):
                self.wfile.write(bytes(2**16))
                self.server.sent += 2**16  # type: ignore[attr-defined]

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("1000000.mp4", "its server sends more than the 1,000,000 bytes that it was asked for"),
        ("0.mp4", "bytes or more, and WFM_SOURCE_CACHE_GIB lets the cache hold 10,485,760"),
        ("1000000000000.mp4", "it has 1,000,000,000,000 bytes or more, and WFM_SOURCE_CACHE_GIB"),
    ],
)
def test_a_server_that_sends_without_end(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old code took all that came: of one that sends on, 4 GB into memory in 20 s, and the disk filled up."""
    monkeypatch.setenv(ADDRESSES_VARIABLE, "127.0.0.1")
    monkeypatch.setenv("WFM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WFM_SOURCE_CACHE_GIB", str(10 / 1024))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.sent = 0  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(RefusedPlace, match=words):
            fetch_source(Store.open(tmp_path / "store"), f"http://127.0.0.1:{server.server_port}/{name}")
    finally:
        server.shutdown()
        server.server_close()
    assert server.sent < 40 * 2**20, "the old code read all 64 MiB of each"  # type: ignore[attr-defined]
    assert list((tmp_path / "cache").rglob("*.mp4")) == []
