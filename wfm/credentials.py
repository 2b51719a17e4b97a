"""Credentials in addresses and messages: seen before they are stored, blanked before they are shown.

An address may carry them as a user (``s3://key:secret@bucket``) or in its query, under names that differ by service: S3 and
Google sign with ``X-Amz-Signature`` and ``X-Goog-Credential``, Azure with ``sig``, CloudFront with ``Key-Pair-Id``, others
take ``?key=`` or ``?apikey=``. What is such a name is decided here, once.
"""

import os
import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import unquote

_WORDS = (
    *("token", "secret", "password", "passwd", "passphrase", "signature", "hmac"),
    *("credential", "apikey", "accesskey", "accessid", "authoriz", "oauth", "cookie", "sessionid"),
)
"""A parameter whose name holds one of these is a credential, however it is spelt (``X-Amz-Security-Token``, ``api_key``)."""
_NAMES = {
    *("key", "sig", "sas", "auth", "jwt", "bearer", "pass", "pwd", "pw", "sk", "ticket"),
    *("keypairid", "subscriptionkey", "hdnts", "hdnea", "phpsessid"),
}
"""Whole names that are one."""
_USER = re.compile(r"([A-Za-z][\w+.-]*:/{1,3})(?:[^\s/?#@'\"]*|[^\s/?#@'\":\[]+:(?!\d{1,5}[/?#])[^\s@'\"]*)@")
"""A secret may have a slash in it, and often has on S3; a host with a port is none, whatever comes later."""
_PARAMETER = re.compile(r"([?&;#]|\b)([\w.%~-]{1,64})(=)([^\s&;#,'\"<>)\]]+)")
_ECHOED = re.compile(
    r"(?i)((?:access.?key(?:.?id)?|secret\w*|token|signature|password|api.?key)['\"]?\s*[=:]\s*['\"]?)[^\s,'\"]+"
)
SECRET_OPTION = re.compile(r"(?i)key|secret|token|password|credential|sas")
"""Names of options and of variables of the environment whose values are secret."""
_ADDRESS = re.compile(r"\S+:/{1,3}\S+")
_SHORTEST_SHOWN = 12
"""The same of `shown`, for variables by any name: ``TOKENIZERS_PARALLELISM=false`` is none."""
_SHORTEST = 4
"""Values shorter than this are not blanked: they would blank half a sentence."""


def names_credential(parameter: str) -> bool:
    """Whether a query parameter of this name holds a credential, percent-encoded or not, in any spelling."""
    plain = _plain(parameter)
    return plain in _NAMES or any(word in plain for word in _WORDS)


def carries_credentials(url: str) -> bool:
    """Whether an address has a user in it, or a parameter that holds a credential (``?apikey=``, ``?X-Amz-Credential=``)."""
    if _USER.search(url):
        return True
    _, *rest = re.split(r"[?&;#]", url)
    return any(names_credential(each.partition("=")[0]) for each in rest if "=" in each)


def fixed_keys(options: Mapping[str, Any]) -> list[str]:
    """Names of the options of a store on S3 that hold keys: such ones stay as they are, and end when they expire."""
    found = [name for name in ("key", "secret", "token") if options.get(name)]
    client = options.get("client_kwargs") or {}
    return found + [
        name for name in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token") if client.get(name)
    ]


def without_credentials(text: str, more: Collection[str] = ()) -> str:
    """`text` with the values of credential variables of the environment, those in `more`, and what addresses and servers'
    answers show of them, blanked out."""
    own = {value for name, value in os.environ.items() if name.startswith("AWS_") and SECRET_OPTION.search(name)}
    for value in sorted((one for one in own.union(more) if len(one) >= _SHORTEST), key=len, reverse=True):
        text = text.replace(value, "***")
    text = _USER.sub(r"\1***@", text)
    text = _PARAMETER.sub(lambda found: f"{found[1]}{found[2]}=***" if _is_secret(found) else found[0], text)
    return _ECHOED.sub(r"\1***", text)


def shown(text: str) -> str:
    """What others said (a server, a library), as it may be written down and read by everybody: addresses lose what they carry,
    and values of credential variables of the environment are blanked. Prose stays: ``train_tokenizer.steps=5`` is no token."""
    own = {
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST_SHOWN and SECRET_OPTION.search(name) and not value.startswith("/")
    }
    for value in sorted(own, key=len, reverse=True):
        text = text.replace(value, "***")
    return _ADDRESS.sub(lambda address: without_credentials(address[0]), text)


def _is_secret(found: re.Match[str]) -> bool:
    """A parameter of an address by any of the names; outside of one (``key=...`` in prose) the telling names only."""
    return names_credential(found[2]) if found[1] else any(word in _plain(found[2]) for word in _WORDS)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", unquote(unquote(name)).lower())
