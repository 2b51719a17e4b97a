"""Whoever wants to hear that a run failed: one POST, signed, tried again for a while; it never changes how the run ends. Of one
that was killed whoever looks next tells it (`untold`).

``WFM_WEBHOOK`` is the address and ``WFM_WEBHOOK_SECRET`` the secret that both sides know; without the variables they are read
from ``~/.wfm/webhook.json`` (``{"url": …, "secret": …}``), which only this user may read. Headers and signature are those of
https://www.standardwebhooks.com: ``webhook-id``, ``webhook-timestamp``, ``webhook-signature: v1,BASE64(HMAC-SHA256(secret,
"id.timestamp.body"))``, so that receivers in any language have a library for it. In Python::

    from pipelines.runs.webhook import verify
    seen = {}                                       # kept between calls
    payload = verify(body, headers, secret, seen)   # raises InputError for a forged, an old or a repeated one

A delivery that was taken and is sent again, because the answer was lost, has the same id: answer it with 200.
"""

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipelines.runs.submission import submission_of
from pipelines.wfm_home import home, read_private
from wfm.artifacts import schema
from wfm.artifacts.address import age_seconds, new_id, utc_now
from wfm.credentials import without_credentials
from wfm.errors import InputError, WfmError
from wfm.log import get_logger, printable

if TYPE_CHECKING:
    from pipelines.runs.state import RunState
    from wfm.artifacts.runs import Run

URL, SECRET = "WFM_WEBHOOK", "WFM_WEBHOOK_SECRET"
FILE = "webhook.json"
TOLD_FILE = "webhook.json"
"""In the run: whether it was told."""
CLAIMS = "webhook"
"""A folder of the run: which of its ends was told, or is being told."""
TOLERANCE_SECONDS = 300.0
"""How far the clocks of both sides may be apart; an older delivery is one that somebody kept."""
_TRIES, _WAIT_SECONDS, _ANSWER_SECONDS, _LONGEST_SECONDS = 5, 1.0, 10.0, 60.0
_SHORTEST_SECONDS = 1.0
_TAKERS = 3
"""So many processes try to tell one end of a run; a receiver that none of them reached is not there."""
_SHORTEST_SECRET = 16
_LONGEST_REASON = 2000
_PREFIX = "whsec_"


@dataclass(frozen=True)
class Webhook:
    """Where to, and the secret; neither is ever shown."""

    url: str = field(repr=False)
    secret: str = field(repr=False)

    @property
    def host(self) -> str:
        """What may be shown: for many services the path of the address is a password."""
        return str(urlsplit(self.url).hostname)


def webhook() -> Webhook | None:
    """Where failures are told; None where nobody wants to hear. Raises InputError for an address or a secret that is none."""
    url, secret = os.environ.get(URL, ""), os.environ.get(SECRET, "")
    where = URL
    if not url:
        path = home().parent / FILE
        try:
            told = schema.parse(read_private(path, forbidden=0o077).encode(), str(path))
        except FileNotFoundError:
            return None
        if not isinstance(told, dict) or not all(isinstance(told.get(name), str) for name in ("url", "secret")):
            raise InputError(f'{path}: give {{"url": "https://…", "secret": "…"}}')
        url, secret, where = told["url"], told["secret"], str(path)
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or any(ord(letter) <= 32 for letter in url):
        raise InputError(f"{where}: the address is none of http:// or https:// (it is not shown: it may be a password)")
    if parts.username or parts.password:
        raise InputError(f"{where}: an address with a user in it is not taken; the signature shows who sends")
    _check_secret(secret, where)
    return Webhook(url, secret)


def _check_secret(secret: str, where: str) -> None:
    if len(_key(secret, where)) < _SHORTEST_SECRET:
        raise InputError(
            f"{SECRET}: give at least {_SHORTEST_SECRET} letters that the receiver knows, too: it checks the signature"
        )


def tell_failure(
    run: "Run", state: "RunState", *, wait: Callable[[float], None] = time.sleep, seconds: float = _LONGEST_SECONDS
) -> bool:
    """Tell whoever wants to hear that a run failed, or died, and write down whether that worked; returns it. Each end of a run
    is told once, whoever sees it: of several at once one tells, in at most so many `seconds`. Raises nothing."""
    host, told = "", False
    try:
        hook = webhook()
        claim = _claim(run, state) if hook is not None else None
        if hook is None or claim is None:
            return False
        host = hook.host
        words, told = _post(hook, json.dumps(payload(run, state)).encode(), claim.delivery, wait, seconds)
        run.write(claim.name, claim.encoded(told))
        run.write(TOLD_FILE, schema.encode({"schema_version": 1, "at": utc_now(), "told": told, "words": words}))
    except (WfmError, OSError, ValueError) as error:
        words = f"{type(error).__name__}: {error}"
    if not told:
        get_logger(__name__).warning("the webhook at %s was not told of run %s: %s", host, run.id, words)
    return told


@dataclass(frozen=True)
class _Claim:
    """Who tells of one end of a run: ``runs/<id>/webhook/<when it began, ms>.json``. Whoever goes on where it was killed sends
    the same delivery, of which a receiver that has it already knows."""

    name: str
    delivery: str
    takers: int = 1

    def encoded(self, told: bool) -> bytes:
        """As it is written down now."""
        document = {"delivery": self.delivery, "takers": self.takers, "told": told, "at": utc_now()}
        return schema.encode({"schema_version": 1, **document})


def _claim(run: "Run", state: "RunState") -> _Claim | None:
    """Ours to tell; None where another did, or is at it."""
    submission = submission_of(run)
    began = max(state.started, submission.begun_at if submission is not None and submission.background else 0.0)
    claim = _Claim(f"{CLAIMS}/{int(began * 1000):013d}.json", new_id())
    if run.create(claim.name, claim.encoded(False)):
        return claim
    there = run.record(claim.name) or {}
    delivery, takers = there.get("delivery"), there.get("takers")
    if (
        there.get("told") is True
        or not isinstance(delivery, str)
        or not isinstance(takers, int)
        or takers >= _TAKERS
        or age_seconds(str(there.get("at"))) < TOLERANCE_SECONDS
    ):
        return None
    claim = _Claim(claim.name, delivery, takers + 1)
    run.write(claim.name, claim.encoded(False))
    return claim


def payload(run: "Run", state: "RunState") -> dict[str, Any]:
    """What is sent: names, states and reasons, in which addresses have lost what they carry."""
    spec = run.record("spec.json") or {}
    failed = [
        {
            "stage": name,
            "outcome": node.outcome,
            "reason": printable(without_credentials(node.reason))[:_LONGEST_REASON],
            "tries": node.attempts,
        }
        for name, node in state.nodes.items()
        if node.state == "failed"
    ]
    return {
        "type": "run.failed",
        "timestamp": utc_now(),
        "data": {
            "run": run.id,
            "pipeline": state.pipeline,
            "profile": state.profile,
            "team": str(spec.get("team") or ""),
            "state": state.state,
            "reason": printable(without_credentials(state.reason))[:_LONGEST_REASON],
            "seconds": round(max(state.ended - state.started, 0.0), 1),
            "store": without_credentials(run.path_of().partition("/runs/")[0]),
            "failed": failed,
            "what_to_do": f"wfm status {run.id}; wfm rerun {run.id}",
        },
    }


def sign(body: bytes, secret: str, delivery: str, timestamp: int) -> dict[str, str]:
    """The headers of a delivery."""
    signed = hmac.new(_key(secret, SECRET), f"{delivery}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": delivery,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secret: str,
    seen: MutableMapping[str, float] | None = None,
    *,
    now: float | None = None,
) -> Any:
    """The payload of a delivery, for receivers. `body`: the bytes as they came; `seen`: what the receiver keeps of earlier
    ones, id -> when; without it a delivery that is repeated within five minutes is not noticed.

    Raises InputError for one without a signature, with another's, older than `TOLERANCE_SECONDS`, or seen before; and for a
    secret that is empty or short, with which anybody could sign.
    """
    _check_secret(secret, SECRET)
    given = {name.lower(): value for name, value in headers.items()}
    delivery, timestamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    now = time.time() if now is None else now
    if (
        not delivery.isprintable()
        or not delivery
        or not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 12)
    ):
        raise InputError("the delivery has no webhook-id, or no webhook-timestamp: it is none of ours")
    expected = sign(body, secret, delivery, int(timestamp))["webhook-signature"]
    offered = given.get("webhook-signature", "").split()
    if not any(hmac.compare_digest(expected.encode(), one.encode(errors="replace")) for one in offered):
        raise InputError(
            "the signature is not of this body and this secret: the delivery is forged, or the secret is another"
        )
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise InputError(
            f"the delivery is {now - int(timestamp):.0f} s old: it is repeated, or one of the clocks is wrong"
        )
    if seen is not None:
        for old in [one for one, at in seen.items() if now - at > 2 * TOLERANCE_SECONDS]:
            del seen[old]
        if delivery in seen:
            raise InputError(f"delivery {delivery} was here before: it is repeated")
        seen[delivery] = now
    return schema.parse(body, "the delivery")


def _key(secret: str, where: str) -> bytes:
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"{where}: after {_PREFIX} a secret is base64") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Who is redirected would show the payload, and a signature, to somebody else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _post(hook: Webhook, body: bytes, delivery: str, wait: Callable[[float], None], seconds: float) -> tuple[str, bool]:
    """What came of it in words, and whether it was taken."""
    until, words = time.monotonic() + seconds, ""
    for number in range(1, _TRIES + 1):
        left = until - time.monotonic()
        answer = _answer(hook, body, delivery, max(min(left, _ANSWER_SECONDS), _SHORTEST_SECONDS))
        if isinstance(answer, int) and answer < 300:
            return f"told the webhook at {hook.host} (answer {answer}, try {number})", True
        if isinstance(answer, int):
            words = f"the webhook at {hook.host} answered {answer}"
            if answer < 500 and answer not in (408, 425, 429):
                return f"{words}, which another try does not change", False
        else:
            words = f"the webhook at {hook.host} could not be reached: {answer}"
        pause = _WAIT_SECONDS * 2.0 ** (number - 1)
        if number == _TRIES or time.monotonic() + pause >= until:
            break
        wait(pause)
    return f"{words}, {number} times", False


def _answer(hook: Webhook, body: bytes, delivery: str, seconds: float) -> int | str:
    """The code of its answer, or why there is none. The time limit of a socket is one for each piece that comes, and there is
    none for names: one that trickles would keep us for ever, so that the whole is waited for from outside."""
    found: list[int | str] = []

    def ask() -> None:
        signed = sign(body, hook.secret, delivery, int(time.time()))
        headers = {"Content-Type": "application/json", "User-Agent": "wfm", **signed}
        request = urllib.request.Request(hook.url, body, headers, method="POST")
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=seconds) as answer:
                found.append(int(answer.status))
        except urllib.error.HTTPError as error:
            error.close()
            found.append(error.code)
        except (OSError, http.client.HTTPException) as error:
            found.append(type(getattr(error, "reason", error)).__name__)

    asking = threading.Thread(target=ask, name="webhook", daemon=True)
    asking.start()
    asking.join(seconds)
    return found[0] if found else f"no answer in {seconds:.0f} s"
