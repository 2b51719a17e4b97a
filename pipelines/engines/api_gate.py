"""The gate before the engine's API and UI: who asks by a strange name, or from another site's page, is turned away.

Prefect asks for the password; that does not keep a browser from being used. A page of another site may post to
``http://127.0.0.1:4200`` (its ``Origin`` tells), or have its own name resolved to 127.0.0.1, which makes the two one site to
the browser (the ``Host`` header tells). Applied to everything: API, UI, documentation, websockets.
"""

import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

_POLICY = (
    b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self'; object-src 'none'; "
    b"base-uri 'self'; frame-ancestors 'none'"
)
"""For the UI's pages: they may talk to this server only (Prefect's report to amplitude.com), and stand in no other page."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


def own_names(host: str, more: Iterable[str] = ()) -> frozenset[str]:
    """Names that requests may call a server by that listens on ``host``: it, loopback, and this machine's if it is open."""
    names = {*_LOOPBACK, host, *more}
    if is_wildcard(host):
        import psutil

        names |= {socket.gethostname(), socket.getfqdn()}
        names |= {address.address.partition("%")[0] for card in psutil.net_if_addrs().values() for address in card}
    return frozenset(name.lower().strip("[]") for name in names)


def is_wildcard(host: str) -> bool:
    """Whether ``host`` means every address of this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


class Gate:
    """An ASGI app that lets pass to ``app`` what is addressed to one of ``names`` and comes from no other origin."""

    def __init__(self, app: Any, names: frozenset[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; 421 for a strange host, 403 for another origin."""
        refusal = None if scope["type"] == "lifespan" else self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, _with_policy(send) if scope["type"] == "http" else send)
        elif scope["type"] == "http":
            await _answer(send, *refusal)
        else:
            await receive()  # the handshake; a close before the accept is a 403 to the other side
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        hosts, origins = (
            [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]
            for name in (b"host", b"origin")
        )
        if len(hosts) != 1 or _name_of(hosts[0]) not in self._names:
            return 421, "this server does not answer to that host name (`wfm ui --name` adds one)"
        if any(origin.lower().partition("://")[2] != hosts[0].lower() for origin in origins):
            return 403, "pages of another origin may not use this server"
        return None


def _name_of(host: str) -> str:
    """The name in a Host header, without port and brackets; empty when it is not well-formed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises for a port that is no number
        return (parts.hostname or "") if parts.netloc == host and "@" not in host else ""
    except ValueError:
        return ""


def _with_policy(send: Send) -> Send:
    async def add(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"content-security-policy", _POLICY)]}
        await send(message)

    return add


async def _answer(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"exception_message": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
