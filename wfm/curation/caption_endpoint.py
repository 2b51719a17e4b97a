"""Captions from a vision-language model behind any OpenAI-compatible endpoint (vLLM, TensorRT-LLM, NIM, a cloud).

A clip is asked about in windows of frames (256, as Cosmos does). Each request shows frames of its window as JPEG and a code
made of the clip's bytes, the window and the prompt, which the answer must give back: an answer that belongs to another
request is caught, asked again, and then counted as failed. Answers are kept by that same identity, so that nothing is asked
twice, in this run or the next. Network errors, time-outs and overload are retried by the client with back-off; an endpoint
that stays away stops the stage, to be tried again, with what was answered kept.
"""

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydantic

from wfm.artifacts.atomic import replace_on_disk
from wfm.config import Config, how
from wfm.curation.step import Skip
from wfm.errors import ConfigError, MissingPackage, TryAgain
from wfm.records import Clip

PROMPT = (
    "Describe this part of a video for someone who will make it again without seeing it: what is in it, what it looks like, "
    "how things and people move and change, and what the camera does. Plain sentences in the order of time; nothing that "
    "is not to be seen, no words about the video itself."
)
LENGTHS = {"short": "one sentence of at most 20 words", "medium": "two or three sentences", "long": "all that was said"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"code": {"type": "string"}, **{name: {"type": "string"} for name in LENGTHS}},
    "required": ["code", *LENGTHS],
    "additionalProperties": False,
}
LONGEST_CAPTION = 8000
"Characters taken of an answer."


class EndpointConfig(Config):
    """Which model is asked, about what, and how the endpoint is reached."""

    model: str = ""
    "Name of the model at the endpoint."
    prompt: str = PROMPT
    "What it is asked. Its hash enters the identity of an answer."
    length: str = pydantic.Field("medium", pattern="^(short|medium|long)$")
    "Which of the three wordings becomes the clip's caption; all are kept in the windows' table."
    window_frames: int = pydantic.Field(256, ge=4)
    "Frames of a window. What is left at the end is a window of its own from half of that on, else part of the last."
    frames_per_second: float = pydantic.Field(2.0, gt=0)
    "Frames shown of each second of a window [1/s]; at least one, the first."
    largest_side: int = pydantic.Field(448, ge=16)
    "Frames are shrunk until no side is longer [pixels]."
    url: str = how("")
    "Base address, such as http://localhost:8000/v1."
    api_key_variable: str = how("WFM_CAPTION_API_KEY")
    "Environment variable that holds the key; an endpoint without keys needs none. It is never written anywhere."
    concurrency: int = how(8, ge=1)
    "Windows of a clip that are asked about at once."
    timeout_seconds: float = how(120.0, gt=0)
    "Longest wait for an answer [s]."
    retries: int = how(4, ge=0)
    "Further tries of a request that failed, and of an answer that was wrong."
    cache: str = how("")
    "Folder that keeps answers between runs; empty: none is kept."


class Window(NamedTuple):
    """Frames [start, end) of a clip."""

    start: int
    end: int


class WindowCaption(NamedTuple):
    """What was said of a window."""

    window: Window
    short: str
    medium: str
    long: str


class EndpointCaptioner:
    """Asks about clips; safe to use from one thread, and uses several itself."""

    def __init__(self, config: EndpointConfig) -> None:
        try:
            import openai
        except ImportError:
            raise MissingPackage("openai", extra="caption", purpose="captions from an endpoint") from None
        self.config = config
        self._errors = openai
        self._client = openai.OpenAI(
            base_url=config.url,
            api_key=os.environ.get(config.api_key_variable) or "none",
            timeout=config.timeout_seconds,
            max_retries=config.retries,
        )

    def clip(self, path: Path, clip: Clip) -> list[WindowCaption]:
        """What is said of each window of a clip. Raises `Skip` (``caption_refused``, ``caption_garbled``, ``caption_swapped``)
        for one that the model does not answer rightly, TryAgain for an endpoint that cannot be reached, VideoError."""
        spans = windows(clip.num_frames, self.config.window_frames)
        shown = shown_frames(path, spans, clip.fps, self.config)
        with ThreadPoolExecutor(self.config.concurrency) as pool:
            return list(pool.map(lambda pair: self._window(clip, *pair), zip(spans, shown, strict=True)))

    def _window(self, clip: Clip, window: Window, pictures: Sequence[bytes]) -> WindowCaption:
        identity = identity_of(clip.clip_sha256, window, self.config)
        kept = self._kept(identity)
        if kept is None:
            kept = self._ask(identity, pictures)
            self._keep(identity, kept)
        return WindowCaption(window, *(kept[name] for name in LENGTHS))

    def _ask(self, identity: str, pictures: Sequence[bytes]) -> dict[str, str]:
        code, problem = identity[:12], Skip("caption_garbled")
        for _ in range(self.config.retries + 1):
            try:
                answer = self._client.chat.completions.create(**self._request(code, pictures))
            except (
                self._errors.APIConnectionError,
                self._errors.RateLimitError,
                self._errors.InternalServerError,
            ) as error:
                words = (
                    f"{self.config.url} did not answer after {self.config.retries + 1} tries ({type(error).__name__})"
                )
                raise TryAgain(f"captions: {words}; what was answered is kept if endpoint.cache is set") from error
            except self._errors.AuthenticationError:
                raise ConfigError(
                    f"{self.config.url} refuses the key: set the environment variable {self.config.api_key_variable}"
                ) from None
            except self._errors.NotFoundError as error:
                raise ConfigError(
                    f"{self.config.url} has no model {self.config.model!r} ({error.status_code})"
                ) from None
            except self._errors.APIStatusError as error:
                raise Skip("caption_refused", f"status {error.status_code}") from None
            except (self._errors.APIError, ValueError):  # an answer that is no answer of this interface at all
                continue
            try:
                return checked(answer.choices[0].message.content if answer.choices else None, code)
            except Skip as skip:
                problem = skip
        raise problem

    def _request(self, code: str, pictures: Sequence[bytes]) -> dict[str, Any]:
        lengths = "; ".join(f"{name}: {words}" for name, words in LENGTHS.items())
        told = (
            f"{self.config.prompt}\n\nThe pictures are frames in the order of time. Answer with JSON: "
            f"code: exactly {code!r}; {lengths}."
        )
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + base64.b64encode(picture).decode()}}
            for picture in pictures
        ]
        return {
            "model": self.config.model,
            "messages": [{"role": "user", "content": [*content, {"type": "text", "text": told}]}],
            "temperature": 0,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "caption", "schema": SCHEMA, "strict": True},
            },
        }

    def _kept(self, identity: str) -> dict[str, str] | None:
        if not self.config.cache:
            return None
        path = Path(self.config.cache) / identity[:2] / f"{identity}.json"
        try:
            return checked(path.read_text(), identity[:12])
        except (FileNotFoundError, Skip):  # not there, or not what we wrote: ask again
            return None

    def _keep(self, identity: str, answer: dict[str, str]) -> None:
        if self.config.cache:
            path = Path(self.config.cache) / identity[:2] / f"{identity}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_on_disk(path, json.dumps({"code": identity[:12], **answer}).encode())


def identity_of(clip_sha256: str, window: Window, config: EndpointConfig) -> str:
    """sha256 of everything that an answer is about: the clip's bytes, the window, what was shown and asked, and whom."""
    asked = [config.model, config.prompt, config.frames_per_second, config.largest_side, SCHEMA]
    return hashlib.sha256(json.dumps([clip_sha256, list(window), asked]).encode()).hexdigest()


def checked(text: str | None, code: str) -> dict[str, str]:
    """The three wordings of an answer. Raises `Skip` for what is not the JSON asked for, or not the answer to this request."""
    try:
        answer = json.loads(text or "")
    except json.JSONDecodeError:
        raise Skip("caption_garbled", "not JSON") from None
    if not isinstance(answer, dict) or not all(isinstance(answer.get(name), str) for name in ("code", *LENGTHS)):
        raise Skip("caption_garbled", "fields are missing")
    if answer["code"] != code:
        raise Skip("caption_swapped", "the answer gives back another request's code")
    said = {name: " ".join(answer[name].split())[:LONGEST_CAPTION] for name in LENGTHS}
    if not all(said.values()):
        raise Skip("caption_garbled", "empty")
    return said


def windows(frames: int, length: int) -> list[Window]:
    """Windows of `length` frames over a clip; a rest of half of that or more is one too, a shorter one joins the last."""
    starts = list(range(0, frames, length)) or [0]
    if len(starts) > 1 and frames - starts[-1] < length / 2:
        starts.pop()
    ends = [*starts[1:], max(frames, 1)]
    return [Window(start, end) for start, end in zip(starts, ends, strict=True)]


def shown_frames(path: Path, spans: Sequence[Window], fps: float, config: EndpointConfig) -> list[list[bytes]]:
    """JPEG frames of each window, in one pass over the clip; one frame is held at a time."""
    from wfm.data.decode import open_video, to_array

    step = max(1, round(fps / config.frames_per_second))
    found: list[list[bytes]] = [[] for _ in spans]
    number = 0
    with open_video(path) as video:
        for index, frame in enumerate(video.frames()):
            while number < len(spans) - 1 and index >= spans[number].end:
                number += 1
            if (index - spans[number].start) % step == 0:
                found[number].append(jpeg(to_array(frame), config.largest_side))
    return found


def jpeg(picture: np.ndarray, largest_side: int) -> bytes:
    """uint8 [H, W, 3] RGB as JPEG, shrunk to fit."""
    import cv2

    height, width = picture.shape[:2]
    scale = min(1.0, largest_side / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return data.tobytes()
