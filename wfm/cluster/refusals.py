"""Refusals of an API server: what each means, and in words what to do about it."""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wfm.credentials import shown
from wfm.errors import InputError, TryAgain, WfmError

if TYPE_CHECKING:
    from wfm.cluster.kinds import Resource

_WORDS, _CUT = 600, 6000
"""Letters of an answer that are shown, and that are looked at: a secret that was cut in two is not known for one."""
_USER = re.compile(r'User "([^"]{1,300})"')


class NotFound(WfmError):
    """There is no such object (any more): the state of things, and no verdict on anything."""


class AlreadyExists(WfmError):
    """An object of this name is there: whoever creates by a fixed name reads it."""


class Conflict(WfmError):
    """The object is another than the one that was read (version or uid): read it again."""


class Gone(WfmError):
    """The server does not remember that far back: list anew."""


class Busy(TryAgain):
    """The server does not take this now; `retry_after` is how long it wants to be left alone, where it says so [s]."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QuotaExceeded(Busy):
    """A ResourceQuota of the namespace is used up: it will be free when others end."""


class Forbidden(InputError):
    """This account may not do that."""


class NoSuchResource(InputError):
    """The cluster does not know this kind (its CRD is not installed), or not this namespace."""


class Refused(InputError):
    """The server, or a webhook of it, takes the request for wrong."""


def meaning(
    status: int,
    headers: Mapping[str, str],
    body: bytes | str,
    verb: str,
    resource: "Resource",
    namespace: str,
    name: str = "",
) -> WfmError:
    """What a refusal of the API server means."""
    said, reason, details = _status(body)
    what = f"{verb} {resource}" + (f" {name}" if name else "")
    after = _retry_after(headers)
    if status == 401:
        return Forbidden(
            f"{what}: the API server does not know this account (401): the kubeconfig's token or certificate has run out; "
            "log in again, or give the pod a service account"
        )
    if status == 403 and "exceeded quota" in said:
        return QuotaExceeded(f"waiting for quota: {said}", after)
    if status == 403:
        found = _USER.search(said)
        who = f" ({found[1]})" if found else ""
        hint = "" if "cannot" in said or not said else f". The server says: {said}"
        return Forbidden(
            f"no permission: this account{who} may not {verb} {resource} in the namespace {namespace!r}: give it a Role with "
            f"the verb {verb!r} on {resource.plural!r} of the API group {resource.group!r}{hint}"
        )
    if status == 404:
        if details.get("kind") == "namespaces":
            return NoSuchResource(f"{what}: the cluster has no namespace {namespace!r}: create it, or name another one")
        if name and reason == "NotFound" and "could not find the requested resource" not in said:
            return NotFound(f"there is no {resource} {name} in the namespace {namespace!r}")
        return NoSuchResource(
            f"{what}: this cluster does not know {resource.kind} ({resource.group or 'core'}/{resource.version}), in the "
            f"namespace {namespace!r} or elsewhere: its CRD is not installed. Install its operator, or choose another kind of "
            "job in the settings of the cluster"
        )
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists(f"{resource} {name or ''} is there already: {said}")
    if status == 409:
        return Conflict(f"{what}: it was changed meanwhile: {said}")
    if status == 410:
        return Gone(f"{what}: {said or 'too old'}")
    if status in (408, 425, 429) or status >= 500 or (status == 504 or reason in ("Timeout", "ServerTimeout")):
        return Busy(f"{what}: the API server is in trouble ({status} {reason}): {said}", after)
    return Refused(f"{what}: the API server refuses it ({status} {reason}): {said}")


def _status(body: bytes | str) -> tuple[str, str, Mapping[str, Any]]:
    """(message, reason, details) of a Status; of anything else its text."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    try:
        status = json.loads(text)
    except (ValueError, RecursionError):
        status = None
    if not isinstance(status, dict):
        return shown(" ".join(text.split())[:_CUT])[:_WORDS], "", {}
    details = status.get("details")
    message = shown(" ".join(str(status.get("message") or "").split())[:_CUT])[:_WORDS]
    return message, str(status.get("reason") or ""), details if isinstance(details, dict) else {}


def _retry_after(headers: Mapping[str, str]) -> float:
    for name, value in headers.items():
        if name.lower() == "retry-after" and value.isdecimal():
            return min(float(value), 600.0)
    return 0.0


def shortened(error: object) -> str:
    """An error of another library on a line, bounded."""
    words = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
    return shown(words[:_CUT])[:_WORDS]
