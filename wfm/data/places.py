"""Places outside that a source names: which may be asked at all, and which machines are reached.

Whoever writes a list must not choose what this process opens. A place is of one of `SCHEMES`, without fsspec's chains
(``zip://…::file://…``), and a web address is fetched only from machines of the open internet: the filter sits where the
connection is made, so that names, numbers in any notation and each hop of a redirect come past it, and what was checked is what
is connected.
Buckets are reached by the endpoint that the operator has set, which no source can change.
"""

import ipaddress
import os
import re
import socket
from typing import Any
from urllib.parse import urlsplit

from wfm.errors import ConfigError, InputError

SCHEMES = ("s3", "s3a", "gs", "gcs", "http", "https")
"""What a source may begin with, before ``://``."""

ADDRESSES_VARIABLE = "WFM_SOURCE_ADDRESSES"
"""Environment variable: networks that web addresses may lie in besides the open internet, such as
``127.0.0.0/8,10.1.0.0/16``, or ``any``."""

CODE = "refused_place"
LARGEST_ANSWER = 2**29
"""Bytes that a web server may send at one time; files are fetched in pieces, a list as a whole."""
_WEB = ("http", "https")
_METADATA = tuple(map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24")))  # of clouds, which count as public
_UNICAST = ipaddress.ip_network("2000::/3")  # all that the open internet has of IPv6
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # NAT64: the last four bytes are an IPv4 address
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class RefusedPlace(InputError):
    """A place that sources may not name. Its text is ``refused_place: words``."""


class RefusedAddress(OSError):
    """A connection that was not made, since it would have led to a machine of this network."""


def is_web(url: str) -> bool:
    """Whether it is a web address, whose host is whatever a list says."""
    return url.startswith(tuple(f"{scheme}://" for scheme in _WEB))


def problem_of_place(url: str) -> str:
    """Why a URL may not be asked (``refused_place: words``), or "". Asks nobody: a name that leads
    to a machine of this network is found when it is connected to."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    if scheme not in SCHEMES:
        return (
            f"{CODE}: {scheme[:20]!r} is no kind of place that videos are fetched from; known are {', '.join(SCHEMES)}"
        )
    if "::" in path or ("::" in host and not (scheme in _WEB and "[" in host)):
        return f"{CODE}: '::' chains places; name the file itself"
    if not rest.strip("/"):
        return f"{CODE}: it names nothing"
    if scheme in _WEB:
        try:
            parts = urlsplit(url)
            if not parts.hostname or parts.port == 0:
                return f"{CODE}: it names no host, or the port 0"
            if (address := _numeric(parts.hostname)) and (problem := problem_of_address(address)):
                return f"{CODE}: {problem}"
        except ValueError as error:
            return f"{CODE}: no web address: {str(error)[:100]}"
    return ""


def refuse_place(url: str) -> None:
    """Raises `RefusedPlace` for a URL that may not be asked."""
    if problem := problem_of_place(url):
        raise RefusedPlace(problem)


def opened_networks() -> tuple[_Network, ...] | None:
    """What `ADDRESSES_VARIABLE` opens; None: everything. Raises `ConfigError`."""
    text = os.environ.get(ADDRESSES_VARIABLE, "")
    if text.strip() == "any":
        return None
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigError(
            f"{ADDRESSES_VARIABLE}={text!r}: {error}; give networks such as 127.0.0.0/8,10.1.0.0/16, or any"
        ) from None


def problem_of_address(text: str) -> str:
    """Why an address (as a socket has it) is not connected to, or "": loopback, link-local, private, reserved ones are not,
    nor IPv6 forms that stand for one of these."""
    opened = opened_networks()
    address = ipaddress.ip_address(text.partition("%")[0])
    means = _stands_for(address)
    if opened is None or any(one in network for one in (address, means) for network in opened):
        return ""
    public = means.is_global and not means.is_multicast and not any(means in network for network in _METADATA)
    if public and (means.version == 4 or means in _UNICAST):
        return ""
    return f"{address} is no address of the open internet; an operator opens it by {ADDRESSES_VARIABLE}={address}"


async def web_client(**options: Any) -> Any:
    """An ``aiohttp`` session for fsspec that connects to no machine that `problem_of_address` refuses, and takes no more from
    one than was asked for."""
    import aiohttp

    class Bounded(aiohttp.ClientResponse):
        async def read(self) -> bytes:
            """The whole body. Raises `RefusedPlace` when there is more of it than there may be."""
            if self._body is None:
                most = _most_bytes(self.status, self.request_info.headers.get("Range", ""))
                body = bytearray()
                async for chunk in self.content.iter_any():
                    body += chunk
                    if len(body) > most:
                        self.close()
                        raise RefusedPlace(
                            f"{CODE}: its server sends more than the {most:,} bytes that it was asked for"
                        )
                self._body = bytes(body)
            return await super().read()

    patience = aiohttp.ClientTimeout(total=300, sock_connect=20, sock_read=60)
    connector = aiohttp.TCPConnector(socket_factory=_checked_socket, limit_per_host=16)
    return aiohttp.ClientSession(connector=connector, timeout=patience, response_class=Bounded, **options)


def _most_bytes(status: int, asked: str) -> int:
    """Of an answer; 206 says that it is the range that was asked for."""
    piece = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
    return min(int(piece[2]) - int(piece[1]) + 1, LARGEST_ANSWER) if piece and status == 206 else LARGEST_ANSWER


def refusal_in(error: BaseException) -> str:
    """The words of a `RefusedAddress` among the causes of an error; "" when none is there."""
    found: BaseException | None = error
    for _ in range(20):
        if found is None:
            break
        if isinstance(found, RefusedAddress):
            return str(found)
        if isinstance(found, OSError) and CODE in str(found):  # several addresses of a host: texts put together
            return str(found)[:300]
        found = getattr(found, "os_error", None) or found.__cause__ or found.__context__
    return ""


def _numeric(host: str) -> str:
    """The address that a host stands for in itself (``127.1``, ``0x7f000001``, ``::1``); "" for a name."""
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        try:
            return socket.inet_ntoa(socket.inet_aton(host)) if "x" in host or not host[-1].isalpha() else ""
        except (OSError, UnicodeError):
            return ""


def _checked_socket(info: Any) -> socket.socket:
    """The socket for one address that a name resolved to; this very address is then connected to."""
    family, kind, protocol, _, address = info
    if problem := problem_of_address(str(address[0])):
        raise RefusedAddress(f"{CODE}: {problem}")
    return socket.socket(family=family, type=kind, proto=protocol)


def _stands_for(address: _Address) -> _Address:
    """The IPv4 address that an IPv6 one carries to, else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _TRANSLATED or int(address) >> 32 == 0:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if int(address) > 1 else address
    carried = address.ipv4_mapped or address.sixtofour
    return carried or (address.teredo[1] if address.teredo else address)
