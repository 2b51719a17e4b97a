"""Captions from a model behind any OpenAI-compatible endpoint (vLLM, TensorRT-LLM, NIM, a cloud).

Many requests are on their way at once, of one clip and of the next ones. Each carries a code made of the clip's bytes, the
window and the prompt, which the answer must give back: an answer to another request is caught, asked again, and then counted as
failed; the order of answers decides nothing. Network errors, time-outs and overload are retried by the client with back-off,
jitter and Retry-After. What then still fails is told apart by a plain question without pictures: when that is answered, the
fault is the window's own, which is skipped with a reason, else the endpoint is away, and the stage stops, to be tried again.
"""

import base64
import contextlib
import json
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import pydantic

from wfm import pulse, stopping
from wfm.config import Config, added, how
from wfm.curation.caption.answer_cache import LONGEST_CAPTION, AnswerCache, Question
from wfm.curation.caption.caption_windows import ShownConfig, film, jpeg
from wfm.curation.step import Skip
from wfm.errors import ConfigError, MissingPackage, TryAgain
from wfm.log import get_logger

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"code": {"type": "string"}, "caption": {"type": "string"}},
    "required": ["code", "caption"],
    "additionalProperties": False,
}
LONGEST_ANSWER = 2**20
"Bytes read of an answer."
_ASK_AGAIN_SECONDS = 5.0
_log = get_logger(__name__)
PLAIN = Question("", "Say in a few words that you are ready.", "ready" + "0" * 59)
"Asked to see whether anybody answers at all."
Follow = Callable[[str], Sequence[Question]]
"""A caption -> what to ask about it, without pictures."""


class EndpointConfig(Config):
    """Which model is asked, and how the endpoint is reached."""

    model: str = ""
    "Name of the model at the endpoint."
    revision: str = ""
    "Any word for the weights behind that name; another word asks everything anew."
    quantization: str = added("")
    "How these weights are rounded where they are served, such as fp8; another word asks everything anew."
    max_tokens: int = pydantic.Field(1024, ge=16)
    "Longest answer [tokens]; one that is cut there is a wrong answer."
    url: str = how("")
    "Base address, such as http://localhost:8000/v1."
    api_key_variable: str = how("WFM_CAPTION_API_KEY")
    "Environment variable that holds the key; an endpoint without keys needs none. It is never written anywhere."
    concurrency: int = how(8, ge=1)
    "Requests on their way at once, for each worker."
    timeout_seconds: float = how(120.0, gt=0)
    "Longest wait for the first byte of an answer, and from there to its last [s]."
    retries: int = how(4, ge=0)
    "Further tries of a request that failed, and of an answer that was wrong."
    start_seconds: float = how(0.0, ge=0, le=86400)
    "How long nobody may answer at the beginning: a service that is raised for this run loads its model first [s]."

    @pydantic.model_validator(mode="after")  # not of the field: its value is not to be shown
    def _without_secrets(self) -> Self:
        parts = urllib.parse.urlsplit(self.url)
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "url holds a user, a password or a query, and is written to manifests: put the key into the environment "
                f"variable {self.api_key_variable}"
            )
        if self.url and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError(f"url = {self.url!r} is not an http(s) address: give one such as http://localhost:8000/v1")
        return self


class Endpoint:
    """Asks; answers come in any order. `begin` is called from one thread."""

    def __init__(self, config: EndpointConfig, shown: ShownConfig, cache: AnswerCache, rewriter: str = "") -> None:
        try:
            import openai
        except ImportError:
            raise MissingPackage("openai", extra="caption", purpose="captions from an endpoint") from None
        self.config = config
        self.ahead = 2 * config.concurrency
        self.source = f"endpoint:{config.model}"
        self.rewriter = rewriter or config.model
        self._shown, self._cache, self._errors = shown, cache, openai
        self._key = os.environ.get(config.api_key_variable, "")
        self._client = openai.OpenAI(
            base_url=config.url, api_key=self._key or "none", timeout=config.timeout_seconds, max_retries=config.retries
        )
        self._away: TryAgain | None = None
        self._pool = ThreadPoolExecutor(config.concurrency)

    def identity(self, model: str) -> list[Any]:
        """Whom a question goes to, as plain values."""
        rounded = [self.config.quantization] if self.config.quantization else []
        return ["endpoint", model, self.config.revision, self.config.max_tokens, SCHEMA, *rounded]

    def open(self) -> None:
        """See whether the models answer a plain question. Raises TryAgain when nobody does in `start_seconds`, ConfigError for
        a wrong answer."""
        for model in sorted({self.config.model, self.rewriter}):
            try:
                self._first_answer(model)
            except Skip as skip:
                raise ConfigError(
                    f"endpoint.model = {model!r} at {self.config.url} does not answer a plain question as asked "
                    f"({skip.reason}): captions need a chat model with JSON-schema answers (response_format json_schema)"
                ) from None

    def _first_answer(self, model: str) -> None:
        end = time.monotonic() + self.config.start_seconds
        while True:
            try:
                with pulse.expecting("captioning service", self.config.start_seconds + pulse.START_SECONDS):
                    self._answer(PLAIN, model, ())
                return
            except TryAgain as away:
                left = end - time.monotonic()
                if left <= 0 or stopping.asked.wait(min(left, _ASK_AGAIN_SECONDS)):
                    raise
                _log.info("%s; it is waited for, %.0f s at most", away, left)

    def picture(self, pixels: Any) -> bytes:
        """What is kept of a picture until it is sent."""
        return jpeg(pixels)

    def begin(
        self, of: Question, kept: str | None, pictures: Callable[[], Sequence[bytes]], follow: Follow
    ) -> Callable[[], list[str]]:
        """Start asking what is not `kept`; the answer waits: the caption, and the answers to what follows from it.

        It raises `Skip`, TryAgain, ConfigError.
        """
        shown = () if kept is not None else pictures()

        def chain() -> list[str]:
            if self._away is not None:  # nobody is there: what waits in line need not find out again
                raise self._away
            try:
                caption = kept if kept is not None else self._asked(of, self.config.model, shown)
                return [caption, *(self._kept_or_asked(each, self.rewriter) for each in follow(caption))]
            except TryAgain as away:
                self._away = away
                raise

        return self._pool.submit(chain).result

    def close(self) -> None:
        """Ask no more; what is on its way is given up."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _kept_or_asked(self, of: Question, model: str) -> str:
        kept = self._cache.read(of)
        return kept if kept is not None else self._asked(of, model, ())

    def _asked(self, of: Question, model: str, pictures: Sequence[bytes]) -> str:
        try:
            text = self._answer(of, model, pictures)
        except TryAgain as away:
            if isinstance(away.__cause__, self._errors.RateLimitError):
                raise
            with contextlib.suppress(Skip):
                self._answer(PLAIN, model, ())  # raises TryAgain as well when nobody is there
            raise Skip("caption_unanswered", f"others are answered; {_kind(away.__cause__)}") from away
        self._cache.keep(of, text)
        return text

    def _answer(self, of: Question, model: str, pictures: Sequence[bytes]) -> str:
        """The checked answer. Raises `Skip`, TryAgain (caused by the client's last error), ConfigError."""
        problem: Exception = Skip("caption_garbled")
        for _ in range(self.config.retries + 1):
            with self._explained(model):
                try:
                    return checked(self._body(self._request(of, model, pictures)), of.code)
                except Skip as skip:
                    problem = skip
        raise problem

    @contextlib.contextmanager
    def _explained(self, model: str) -> Iterator[None]:
        errors, config = self._errors, self.config
        try:
            yield
        except (errors.AuthenticationError, errors.PermissionDeniedError) as error:
            words = f"{config.url} refuses the key ({error.status_code})"
            raise ConfigError(f"{words}: set the environment variable {config.api_key_variable}") from None
        except errors.NotFoundError:
            raise ConfigError(f"{config.url} has no model {model!r} (404). Choices: {self._models()}") from None
        except (errors.APIConnectionError, errors.RateLimitError, errors.InternalServerError) as error:
            tries = f"{config.retries + 1} tries ({_kind(error)})"
            raise TryAgain(
                f"endpoint.url = {config.url!r} did not answer after {tries}: see that it runs and can be reached from here; "
                "what was answered is kept"
            ) from error
        except errors.APIStatusError as error:
            said = str(error.message)
            words = " ".join((said.replace(self._key, "***") if self._key else said).split())[:200]
            raise Skip("caption_refused", f"status {error.status_code}: {words}") from None

    def _models(self) -> str:
        try:
            return ", ".join(sorted(model.id for model in self._client.models.list())) or "none"
        except (self._errors.OpenAIError, ValueError, TypeError, AttributeError):
            return "not told"

    def _body(self, request: dict[str, Any]) -> bytes:
        """At most `LONGEST_ANSWER` bytes, within the time from its first one on, whatever the other side sends."""
        data = b""
        try:
            with self._client.chat.completions.with_streaming_response.create(**request) as response:
                end = time.monotonic() + self.config.timeout_seconds
                for piece in response.iter_bytes():
                    data += piece
                    if len(data) > LONGEST_ANSWER:
                        raise Skip("caption_garbled", f"an answer of more than {LONGEST_ANSWER} bytes")
                    if time.monotonic() > end:
                        raise Skip(
                            "caption_unanswered", f"an answer that took longer than {self.config.timeout_seconds:g} s"
                        )
        except Exception as error:
            if not type(error).__module__.startswith("httpx"):  # httpx or its successor, as the client's version has it
                raise
            raise Skip("caption_unanswered", f"{type(error).__name__} in the middle of an answer") from error
        return data

    def _request(self, of: Question, model: str, pictures: Sequence[bytes]) -> dict[str, Any]:
        told = f"{of.prompt}\n\nAnswer with JSON: code: exactly {of.code!r}; caption: your words."
        if pictures:
            told = f"The pictures are frames of the video in the order of time.\n\n{told}"
        return {
            "model": model,
            "messages": [{"role": "user", "content": [*self._content(pictures), {"type": "text", "text": told}]}],
            "temperature": 0,
            "max_tokens": self.config.max_tokens,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "caption", "schema": SCHEMA, "strict": True},
            },
        }

    def _content(self, pictures: Sequence[bytes]) -> list[dict[str, Any]]:
        if pictures and self._shown.frames_as == "video":
            url = "data:video/mp4;base64," + _text(film(pictures, self._shown.frames_per_second))
            return [{"type": "video_url", "video_url": {"url": url}}]
        urls = ["data:image/jpeg;base64," + _text(picture) for picture in pictures]
        return [{"type": "image_url", "image_url": {"url": url}} for url in urls]


def checked(body: bytes, code: str) -> str:
    """The caption in an answer. Raises `Skip` for what is not the JSON asked for, or not the answer to this request."""
    try:
        choice = json.loads(body)["choices"][0]
        content = choice["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Skip("caption_garbled", "not a chat completion") from None
    try:
        answer = json.loads(content)
    except (ValueError, TypeError, RecursionError):
        cut = isinstance(choice, dict) and choice.get("finish_reason") == "length"
        raise Skip("caption_garbled", "cut at endpoint.max_tokens" if cut else "not JSON") from None
    if not isinstance(answer, dict) or not all(isinstance(answer.get(name), str) for name in SCHEMA["required"]):
        raise Skip("caption_garbled", "fields are missing")
    if answer["code"] != code:
        raise Skip("caption_swapped", "the answer gives back another request's code")
    return plain(answer["caption"])


def plain(text: str) -> str:
    """A caption on one line. Raises `Skip` for none, and for one that is too long to be one."""
    said = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not said:
        raise Skip("caption_garbled", "empty")
    if len(said) > LONGEST_CAPTION:
        raise Skip("caption_garbled", f"{len(said)} characters, more than {LONGEST_CAPTION}")
    return said


def _kind(error: BaseException | None) -> str:
    status = getattr(error, "status_code", None)
    return f"status {status}" if status else type(error).__name__


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
