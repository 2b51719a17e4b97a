"""How this machine reaches the server of an engine, and what that server's refusals mean.

Where it is, and who asks, stands in the environment alone. The token is sent to that address and nowhere else: plain HTTP is
for this machine only, and an answer that sends the client elsewhere is refused, not followed. No message repeats the token.
"""

import ipaddress
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wfm.cluster.fields import short, text_of
from wfm.errors import ConfigError, InputError, TryAgain, WfmError

Json = dict[str, Any]

CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
LIMITS = (CONNECT_SECONDS, READ_SECONDS)
"""Of one request [s]."""
MOST_BYTES = 64 * 2**20
"""Of one answer."""


class NotThere(InputError):
    """The server has no such thing (any more)."""


class ThereAlready(InputError):
    """Something of this name is there."""


@dataclass(frozen=True)
class Variables:
    """Names of the variables that say how a server is reached."""

    server: str
    token: str
    token_file: str
    ca_file: str
    example: str


@dataclass(frozen=True)
class Server:
    """One server, as the environment describes it."""

    what: str
    "In words: Argo's server."
    url: str
    variables: Variables
    token: str = field(default="", repr=False)
    ca_file: str = ""

    @classmethod
    def here(cls, what: str, variables: Variables) -> "Server":
        """Raises ConfigError that names the variable, its value and what to give."""
        url = address(os.environ.get(variables.server, ""), what, variables)
        return cls(what, url, variables, _token(variables), _ca_file(variables))

    def ask(self, doing: str, call: Callable[..., Any], *given: Any, **more: Any) -> Json:
        """One request by a client's own call; its answer, an object. Raises NotThere, ThereAlready, InputError or TryAgain in
        words that begin with ``doing``."""
        from urllib3.exceptions import HTTPError, SSLError

        try:
            response = call(*given, **more, _preload_content=False, _request_timeout=LIMITS)
            try:
                data = response.read(MOST_BYTES + 1)
            finally:
                response.release_conn()
        except (HTTPError, OSError) as error:
            if isinstance(error, SSLError):
                raise self._certificate(doing, error) from None
            raise TryAgain(f"{doing}: {self.what} at {self.url} does not answer: {self.hide(error)}") from None
        except Exception as error:
            if not hasattr(error, "status") or not hasattr(error, "body"):
                raise
            raise self.refusal(doing, error) from None
        if len(data) > MOST_BYTES:
            raise InputError(f"{doing}: the answer of {self.what} has more than {MOST_BYTES} bytes: it is not read")
        try:
            answer = json.loads(data or b"{}")
        except (ValueError, RecursionError):
            raise TryAgain(f"{doing}: the answer of {self.what} broke off, or is no JSON") from None
        if not isinstance(answer, dict):
            raise TryAgain(f"{doing}: the answer of {self.what} is no object")
        return answer

    def refusal(self, doing: str, error: Any) -> WfmError:
        """What a refusal means: by its HTTP status, in the server's words."""
        status, said = int(error.status or 0), self.hide(said_in(error.body))
        if not status:
            return self._certificate(doing, error.reason)
        if 300 <= status < 400:
            return InputError(
                f"{doing}: {self.what} at {self.url} sends us elsewhere ({status}), which a token does not follow: give the "
                f"address that answers itself in {self.variables.server}"
            )
        if status == 401:
            return InputError(
                f"{doing}: {self.what} does not take the token (401): {said}. Give another in {self.variables.token}, or a "
                f"file of it in {self.variables.token_file}"
            )
        if status == 403 and "exceeded quota" not in said:
            return InputError(f"{doing}: the account of this token may not do that (403): {said}")
        if status == 404:
            return NotThere(f"{doing}: {said}")
        if status == 409:
            return ThereAlready(f"{doing}: {said}")
        if status in (403, 408, 425, 429) or status >= 500:
            return TryAgain(f"{doing}: {self.what} is in trouble ({status}): {said}")
        return InputError(f"{doing}: {self.what} refuses it ({status}): {said}")

    def _certificate(self, doing: str, why: Any) -> WfmError:
        return InputError(
            f"{doing}: the certificate of {self.url} is not accepted: {self.hide(why)}. Give the file of its authority in "
            f"{self.variables.ca_file}"
        )

    def hide(self, said: Any) -> str:
        """Words from outside on a line, bounded, without the token."""
        text = str(said)
        return short(text.replace(self.token, "***") if self.token else text)


def said_in(body: Any) -> str:
    """The message of a refusal, as gRPC's gateway writes it (``{"code": 5, "message": …}``), else its text."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(found, Mapping):
        return text
    return text_of(found, "message") or text_of(found, "error") or text


def address(given: str, what: str, variables: Variables) -> str:
    """The URL that a variable holds. Raises ConfigError."""
    named = f"{variables.server}={given!r}"
    if not given:
        raise ConfigError(f"no address of {what}: set {variables.server}, such as {variables.example}")
    url = given if "://" in given else f"https://{given}"
    try:
        split = urlsplit(url)
        host, _ = split.hostname or "", split.port
    except ValueError as error:
        raise ConfigError(f"{variables.server} is no address: {error}. Give one such as {variables.example}") from None
    if split.username or split.password or split.query or split.fragment:
        raise ConfigError(
            f"{variables.server}: the address holds more than host, port and path: give {variables.example}, and the token "
            f"in {variables.token}"
        )
    if split.scheme not in ("https", "http") or not host:
        raise ConfigError(f"{named} is no address: give one such as {variables.example}")
    if split.scheme == "http" and not _loopback(host):
        raise ConfigError(
            f"{named}: plain HTTP shows the token to whoever listens, and is taken for this machine alone: give "
            f"https://{host}…, or forward a port and give http://localhost:…"
        )
    return url.rstrip("/")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _token(variables: Variables) -> str:
    found, file = os.environ.get(variables.token, ""), os.environ.get(variables.token_file, "")
    if found and file:
        raise ConfigError(f"{variables.token} and {variables.token_file} are both set: keep one")
    if file:
        try:
            found = Path(file).read_text()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{variables.token_file}={file!r} cannot be read: {error}") from None
    found = found.strip().removeprefix("Bearer ").strip()
    if any(not " " < letter < "\x7f" for letter in found):
        raise ConfigError(f"the token in {variables.token_file if file else variables.token} is more than one word")
    return found


def _ca_file(variables: Variables) -> str:
    file = os.environ.get(variables.ca_file, "")
    if file and not Path(file).is_file():
        raise ConfigError(f"{variables.ca_file}={file!r} is no file: give the certificate of the server's authority")
    return file
