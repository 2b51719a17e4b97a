import time

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from s3fs.errors import translate_boto_error

from wfm.artifacts.trouble import Patience, Redactor, meaning
from wfm.errors import InputError, TryAgain, WfmError


def client_error(code, status):
    return ClientError(
        {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject"
    )


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("NoSuchBucket", 404, "no_bucket"),
        ("NoSuchKey", 404, "missing"),
        ("404", 404, "missing"),
        ("PreconditionFailed", 412, "taken"),
        ("ConditionalRequestConflict", 409, "transient"),
        ("OperationAborted", 409, "transient"),
        ("InternalError", 500, "transient"),
        ("SlowDown", 503, "transient"),
        ("Unheard", 502, "transient"),
        ("Throttling", 400, "transient"),
        ("RequestTimeout", 400, "transient"),
        ("AccessDenied", 403, "denied"),
        ("InvalidAccessKeyId", 403, "denied"),
        ("SignatureDoesNotMatch", 403, "denied"),
        ("ExpiredToken", 400, "expired"),
        ("RequestExpired", 400, "expired"),
        ("RequestTimeTooSkewed", 403, "skewed"),
        ("403", 403, "denied"),
        ("InvalidArgument", 400, "other"),
        ("EntityTooLarge", 400, "other"),
    ],
)
def test_answers_of_the_service(code, status, expected):
    error = client_error(code, status)
    assert meaning(error) == expected
    assert meaning(translate_boto_error(error)) == expected  # as s3fs raises it


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EndpointConnectionError(endpoint_url="http://x"), "transient"),
        (ConnectTimeoutError(endpoint_url="http://x"), "transient"),
        (ReadTimeoutError(endpoint_url="http://x"), "transient"),
        (TimeoutError(), "transient"),
        (ConnectionResetError(), "transient"),
        (NoCredentialsError(), "denied"),
        (PermissionError("no"), "denied"),
        (OSError("Forbidden: https://storage.googleapis.com/x"), "denied"),  # gcsfs
        (FileNotFoundError("x"), "missing"),
        (FileExistsError("x"), "taken"),
        (OSError(28, "No space left on device"), "disk"),
        (ValueError("x"), "other"),
    ],
)
def test_errors_on_the_way(error, expected):
    assert meaning(error) == expected


def test_the_google_client_speaks_in_codes():
    class HttpError(Exception):
        code = 503

    assert meaning(HttpError()) == "transient"
    HttpError.code = 401
    assert meaning(HttpError()) == "denied"
    HttpError.code = None
    assert meaning(HttpError()) == "other"


class TestPatience:
    def patience(self, seconds=5.0, **options):
        return Patience("s3://bucket", options, seconds, first_pause=0.01, longest_pause=0.02)

    def test_what_passes_is_asked_again(self):
        left = [client_error("SlowDown", 503)] * 3

        def action():
            if left:
                raise left.pop()
            return "done"

        assert self.patience().call("read x", action) == "done"

    def test_the_waiting_has_a_cap(self):
        calls = []

        def action():
            calls.append(1)
            raise client_error("InternalError", 500)

        begun = time.monotonic()
        with pytest.raises(TryAgain, match=r"could not read x in \d+ tries over 0\.2 s"):
            self.patience(0.2).call("read x", action)
        assert time.monotonic() - begun < 1
        assert len(calls) > 5

    @pytest.mark.parametrize(
        ("error", "raised", "words"),
        [
            (client_error("NoSuchBucket", 404), InputError, "no bucket s3://bucket"),
            (client_error("AccessDenied", 403), InputError, "AWS_ACCESS_KEY_ID"),
            (client_error("InvalidArgument", 400), WfmError, "unexpected"),
            (client_error("NoSuchKey", 404), FileNotFoundError, "read x"),
            (client_error("PreconditionFailed", 412), FileExistsError, "read x"),
            (OSError(28, "full"), TryAgain, "no space left"),
        ],
    )
    def test_what_does_not_pass_is_raised_at_once(self, error, raised, words):
        calls = []

        def action():
            calls.append(1)
            raise error

        with pytest.raises(raised, match=words):
            self.patience().call("read x", action)
        assert len(calls) == 1

    @pytest.mark.parametrize("advice", ["", "ask somebody"])
    def test_what_has_expired_is_renewed_once(self, advice):
        """Before: with no advice to give it was renewed for ever."""
        calls = []

        def renew():
            calls.append("renew")
            return advice

        def action():
            calls.append("action")
            raise client_error("ExpiredToken", 400)

        with pytest.raises(TryAgain, match=f"have expired.*: {advice or 'renew them'}$"):
            self.patience().call("read x", action, renew)
        assert calls == ["action", "renew", "action"]

    def test_without_anybody_to_renew_them_it_ends_too(self):
        with pytest.raises(TryAgain, match="renew them"):
            self.patience().call("read x", lambda: (_ for _ in ()).throw(client_error("ExpiredToken", 400)))

    def test_a_failed_renewal_tells_no_secret_and_is_worth_another_try(self):
        def renew():
            raise ValueError("the program printed sesame-open")

        def action():
            raise client_error("ExpiredToken", 400)

        with pytest.raises(TryAgain, match="fresh ones cannot be had") as caught:
            self.patience(secret="sesame-open").call("read x", action, renew)
        assert "sesame" not in str(caught.value)

    def test_no_secret_and_no_chain_leaves(self):
        def action():
            raise ValueError("signing with sesame-open at X-Amz-Signature=abc123&x")

        with pytest.raises(WfmError) as caught:
            self.patience(secret="sesame-open").call("read x", action)
        assert "sesame-open" not in str(caught.value)
        assert "abc123" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


def test_secrets_are_found_in_options_and_environment(monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-the-session")
    redact = Redactor(
        {"key": "AKIAXYZ", "client_kwargs": {"aws_secret_access_key": "deep-secret"}, "endpoint_url": "http://h"}
    )
    text = "AKIAXYZ deep-secret token-of-the-session http://h"
    assert redact(text) == "*** *** *** http://h"
