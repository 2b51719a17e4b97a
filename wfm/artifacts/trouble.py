"""What an object store's errors mean, when to ask again, and how to speak of them without a secret.

All retries are here: the client libraries' own are switched off, so that the waiting has one cap.
"""

import contextlib
import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from wfm.artifacts.atomic import disk_error
from wfm.credentials import SECRET_OPTION, without_credentials
from wfm.errors import InputError, TryAgain, WfmError

Meaning = Literal[
    "missing", "no_bucket", "taken", "unsupported", "transient", "expired", "skewed", "denied", "disk", "other"
]
T = TypeVar("T")

_TRANSIENT_NAMES = {
    "HTTPClientError",  # botocore: timeouts, closed connections (found among the bases)
    "ConnectionError",  # botocore (not the built-in one): connection refused, no such host
    "ClientPayloadError",
    "ClientConnectionError",  # aiohttp
    "RequestException",  # requests, below gcsfs
    "IncompleteRead",
    "IncompleteReadError",
    "ResponseParserError",
    "FSTimeoutError",
    "ResponseStreamingError",
    "ChecksumError",
    "FlexibleChecksumError",  # the bytes were damaged on the way
}
_DENIED_NAMES = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "CredentialRetrievalError",
    "RefreshError",
}
_TRANSIENT_CODES = {
    "SlowDown",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
    "OperationAborted",
    "ConditionalRequestConflict",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "BadDigest",  # the bytes were damaged on the way up
    "IncompleteBody",
}
_DENIED_CODES = {
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AuthorizationHeaderMalformed",
    "AuthFailure",
    "InvalidClientTokenId",
}
_EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "InvalidToken"}
"""A token is not the right one any more: another may be. (One that never was right is found when the fresh one is refused.)"""


def meaning(error: BaseException) -> Meaning:
    """Sort an exception of fsspec, s3fs, gcsfs, botocore or aiohttp by what to do about it."""
    code, status = _code(error)
    names = {base.__name__ for link in _chain(error) for base in type(link).__mro__}
    if code == "NoSuchBucket":
        return "no_bucket"
    if code == "PreconditionFailed" or status == 412 or isinstance(error, FileExistsError):
        return "taken"
    if code == "NotImplemented" or status == 501:  # it will not learn it while we wait
        return "unsupported"
    if code in _EXPIRED_CODES:
        return "expired"
    if code == "RequestTimeTooSkewed":
        return "skewed"
    if code in _DENIED_CODES or names & _DENIED_NAMES or status in (401, 403):
        return "denied"
    if code in _TRANSIENT_CODES or status in (408, 409, 425, 429) or status >= 500 or names & _TRANSIENT_NAMES:
        return "transient"
    if isinstance(error, FileNotFoundError) or status == 404:
        return "missing"
    if isinstance(error, PermissionError) or str(error).startswith("Forbidden: "):  # the latter from gcsfs
        return "denied"
    if isinstance(error, TimeoutError | ConnectionError):
        return "transient"
    if isinstance(error, OSError) and error.errno is not None and disk_error(error, "") is not error:
        return "disk"
    return "other"


def is_nameless(error: BaseException) -> bool:
    """Whether S3 refused a HEAD, whose answer has no body to say why: its code is the bare status."""
    return _code(error)[0] in ("400", "403")


def seconds_ahead(error: BaseException) -> float:
    """By how much this machine's clock is ahead of the service's, as its answer tells [s]; 0.0 when it does not."""
    for link in _chain(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            date = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
            with contextlib.suppress(ValueError, TypeError):
                return time.time() - parsedate_to_datetime(date).timestamp()
    return 0.0


def is_empty_range(error: BaseException) -> bool:
    """Whether the first bytes of an object were asked for, and it has none."""
    code, status = _code(error)
    return code == "InvalidRange" or status == 416


def bare_url(url: str) -> str:
    """Scheme, host, port and path of a URL: no user, password, query or fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def _chain(error: BaseException) -> list[BaseException]:
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in links and len(links) < 8:
        links.append(link)
        link = link.__cause__
    return links


def _code(error: BaseException) -> tuple[str, int]:
    """(service's error code, HTTP status); "" and 0 when there is none."""
    for link in _chain(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict) and "Error" in response:  # botocore.ClientError
            code = str(response["Error"].get("Code", ""))
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return code, int(status or (code if code.isdigit() else 0))
        status = getattr(link, "code", None)  # gcsfs.HttpError
        if isinstance(status, int) and 100 <= status < 600 and not isinstance(link, OSError):
            return "", status
    return "", 0


class Redactor:
    """Takes secrets out of a text: the values of credential options, and what `wfm.credentials` knows."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    def __call__(self, text: str) -> str:
        return without_credentials(text, self._secrets(self._options))

    def _secrets(self, options: dict[str, Any]) -> set[str]:
        found: set[str] = set()
        for name, value in options.items():
            if isinstance(value, dict):
                found |= self._secrets(value)
            elif isinstance(value, str) and SECRET_OPTION.search(name):
                found.add(value)
        return found


class Patience:
    """Calls the object store until it answers, at most `seconds` long and `most_tries` times, with growing and jittered pauses;
    `rest(seconds)` sits each of them out.

    Raises FileNotFoundError for an object that is not there, FileExistsError for a name that is taken, InputError
    for credentials or a
    bucket that are wrong, TryAgain when it kept failing or the local disk is full; no secret is in any text, nor in
    a chained error.
    """

    def __init__(
        self,
        bucket_url: str,
        options: dict[str, Any],
        seconds: float,
        first_pause: float = 0.1,
        longest_pause: float = 10.0,
        most_tries: int | None = None,
        rest: Callable[[float], None] | None = None,
    ):
        self._bucket_url = bucket_url
        self._redact = Redactor(options)
        self._seconds = seconds
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._most_tries = most_tries
        self._rest = rest or time.sleep

    def call(self, what: str, action: Callable[[], T], renew: Callable[[], str] = lambda: "") -> T:
        """The result of `action()`; `what` names it in errors ("read artifacts/…"). Credentials that have expired are renewed
        once by `renew()`, which returns what to do when that cannot help."""
        deadline = time.monotonic() + self._seconds
        pause = self._first_pause
        tries, renewed, advice = 0, False, ""
        while True:
            tries += 1
            try:
                return action()
            except WfmError:
                raise
            except Exception as error:
                sorted_as = meaning(error)
                if sorted_as == "expired" and not renewed:
                    renewed, advice = True, self._renewed(renew)
                    continue
                wait = pause * random.uniform(0.5, 1.0)
                over = tries == self._most_tries or time.monotonic() + wait > deadline
                raised = (
                    self._translate(error, sorted_as, what, tries, advice) if sorted_as != "transient" or over else None
                )
            if raised is not None:
                raise raised  # outside the handler: a chained original could carry a secret
            self._rest(wait)
            pause = min(pause * 2, self._longest_pause)

    def _renewed(self, renew: Callable[[], str]) -> str:
        """What to do when fresh credentials do not help, or cannot be had: then the next try tells."""
        try:
            return renew() or "renew them"
        except WfmError:
            raise
        except Exception as error:
            return self._redact(f"fresh ones cannot be had ({type(error).__name__}: {error})")[:400]

    def _translate(self, error: Exception, sorted_as: Meaning, what: str, tries: int, advice: str) -> Exception:
        reason = self._redact(f"{type(error).__name__}: {error}")[:400]
        if sorted_as == "missing":
            return FileNotFoundError(what)
        if sorted_as == "taken":
            return FileExistsError(what)
        if sorted_as == "no_bucket":
            return InputError(f"there is no bucket {self._bucket_url}: create it, or correct the store's URL")
        if sorted_as == "skewed":
            ahead = seconds_ahead(error)
            return TryAgain(
                f"{self._bucket_url} refuses signatures of this machine's clock, which is {abs(ahead):.0f} s "
                f"{'ahead of' if ahead > 0 else 'behind'} its own (could not {what}; {reason}): let the machine keep time (NTP)"
            )
        if sorted_as == "expired" and _code(error)[0] != "InvalidToken":
            return TryAgain(
                f"the credentials for {self._bucket_url} have expired (could not {what}; {reason}): {advice}"
            )
        if sorted_as in ("denied", "expired"):
            return InputError(
                f"{self._bucket_url} refuses these credentials (could not {what}; {reason}): check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN (or the profile, or GOOGLE_APPLICATION_CREDENTIALS), the "
                "bucket's policy and this machine's clock"
            )
        if sorted_as == "unsupported":
            return InputError(
                f"{self._bucket_url} does not support this request (could not {what}; {reason}): use another service"
            )
        if sorted_as == "disk" and isinstance(error, OSError):
            return disk_error(error, what)
        if sorted_as == "transient":
            return TryAgain(
                f"{self._bucket_url} kept failing: could not {what} in {tries} tries over {self._seconds:g} s ({reason})"
            )
        return WfmError(f"{self._bucket_url} answered something unexpected: could not {what} ({reason})")
