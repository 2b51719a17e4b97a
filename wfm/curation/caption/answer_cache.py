"""What models said, kept in the store: nothing is asked twice, in this run, after a kill, or in another run.

    captions/<first two digits>/<clip_sha256>/<identity>.json      identity, text

An identity is the sha256 of all that an answer is about: the clip's bytes, the window, the filled prompt, what was shown, and
whom. An answer lies below its clip's hash, so a purge finds all that was said of a clip. One small object for each answer is of
the order of one for each clip, which the store holds already, and a put costs nothing beside asking.
"""

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from wfm.artifacts import schema
from wfm.curation.caption.caption_windows import Window
from wfm.errors import DataError

if TYPE_CHECKING:
    from wfm.artifacts import Store

FOLDER = "captions"
LONGEST_CAPTION = 8000
"Characters of an answer; what is longer is no caption."
_HEX = re.compile(r"[0-9a-f]{64}")


class Question(NamedTuple):
    """One thing to ask of a model, about one window of one clip."""

    clip_sha256: str
    prompt: str
    identity: str

    @property
    def code(self) -> str:
        """What an answer must give back to be taken for the answer to this."""
        return self.identity[:12]


def question(clip_sha256: str, window: Window, prompt: str, *, shown: Any, whom: Any) -> Question:
    """A question with its identity; `shown` and `whom` are plain values: the pictures' settings (None: none), the model's."""
    asked = json.dumps([clip_sha256, list(window), prompt, shown, whom], sort_keys=True)
    return Question(clip_sha256, prompt, hashlib.sha256(asked.encode()).hexdigest())


class AnswerCache:
    """Answers by identity. Safe to use from several threads and processes: an answer is written whole, over an equal one."""

    def __init__(self, store: "Store") -> None:
        self._objects = store.objects

    def read(self, of: Question) -> str | None:
        """What was answered, or None. What is damaged, or lies in another's place, counts as not there."""
        try:
            found = schema.parse(self._objects.read(_path(of)), _path(of))
        except (FileNotFoundError, DataError):
            return None
        if not isinstance(found, dict) or found.get("identity") != of.identity:
            return None
        text = found.get("text")
        return text if isinstance(text, str) and 0 < len(text) <= LONGEST_CAPTION else None

    def keep(self, of: Question, text: str) -> None:
        """Remember an answer."""
        data = json.dumps({"identity": of.identity, "text": text}).encode()
        self._objects.replace(_path(of), data)


def _path(of: Question) -> str:
    if not _HEX.fullmatch(of.clip_sha256):  # it becomes a path
        raise DataError(f"clip_sha256 {of.clip_sha256[:80]!r} is not 64 hex digits: split the videos again")
    return f"{FOLDER}/{of.clip_sha256[:2]}/{of.clip_sha256}/{of.identity}.json"
