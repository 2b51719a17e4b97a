"""Who may speak to the engine's API: by which names, from which pages."""

import asyncio
from typing import Any

import pytest

from pipelines.engines.api_gate import Gate, own_names


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


def status(names: frozenset[str], *headers: tuple[str, str], kind: str = "http") -> int:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": f"{kind}.connect"}

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    asyncio.run(Gate(app, names)({"type": kind, "headers": raw}, receive, send))
    return int(sent[0].get("status") or sent[0]["code"])


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("127.0.0.1:4200", 200), ("localhost", 200), ("LOCALHOST:1", 200), ("[::1]:4200", 200), ("here.example", 200),
        ("evil.example", 421), ("localhost.evil.example", 421), ("127.0.0.1@evil.example", 421), ("evil@localhost", 421),
        ("localhost:x", 421), ("localhost/evil", 421), ("127.0.0.2", 421), ("", 421), ("[::1", 421), ("local host", 421),
        ("0177.0.0.1", 421), ("localhost.", 421),
    ],
)  # fmt: skip
def test_only_its_own_names(host: str, wanted: int) -> None:
    names = own_names("127.0.0.1", ["Here.Example"])
    assert status(names, ("host", host)) == wanted
    assert status(names, ("host", host), kind="websocket") == {200: 200, 421: 1008}[wanted]


def test_one_host_header_and_no_other() -> None:
    names = own_names("127.0.0.1")
    assert status(names) == 421
    assert status(names, ("host", "localhost"), ("Host", "evil.example")) == 421


@pytest.mark.parametrize(
    ("origin", "wanted"),
    [
        ("http://localhost:4200", 200), ("https://LOCALHOST:4200", 200), ("http://localhost:4201", 403),
        ("http://localhost", 403), ("http://127.0.0.1:4200", 403), ("null", 403), ("", 403), ("http://evil.example", 403),
        ("localhost:4200", 403), ("http://evil.example://localhost:4200", 403), ("http://localhost:4200/", 403),
    ],
)  # fmt: skip
def test_only_pages_of_its_own(origin: str, wanted: int) -> None:
    names = own_names("127.0.0.1")
    assert status(names, ("host", "localhost:4200"), ("Origin", origin)) == wanted


def test_an_open_server_answers_to_this_machines_names_and_not_to_all() -> None:
    import socket

    names = own_names("0.0.0.0")
    assert {"localhost", socket.gethostname().lower()} <= names
    assert status(names, ("host", "evil.example")) == 421
    assert status(own_names("::"), ("host", "evil.example")) == 421
