"""The step that asks a model: a clip -> its windows -> questions -> answers -> its caption, and a row for each window.

    ask about each window (with pictures)  ->  caption
    rewrite.lengths: ask for it in other words (no pictures)  ->  short, medium, long

Both are kept by their own identity (`answer_cache`), so a new way of rewriting asks for no new captions. Clips are begun
ahead of the one that is waited for, so that questions of many clips are on their way, or in one batch, at once.
"""

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from wfm.curation.caption.answer_cache import AnswerCache, Question, question
from wfm.curation.caption.caption_config import CaptionConfig
from wfm.curation.caption.caption_windows import FEWEST_FRAMES, Window, shown_frames, windows
from wfm.curation.caption.endpoint import Endpoint, Follow
from wfm.curation.caption.local_model import LocalModel
from wfm.curation.caption.prompts import rewrite_prompt, window_prompt
from wfm.curation.per_clip import Fetch, or_skip
from wfm.curation.rows import CaptionWindow
from wfm.curation.step import Skip
from wfm.records import Caption, Clip


class Asker(Protocol):
    """A model that answers: `Endpoint`, `LocalModel`."""

    source: str
    rewriter: str
    ahead: int
    "Clips that are worth beginning before the first is waited for."

    def identity(self, model: str) -> list[Any]: ...
    def open(self) -> None: ...
    def picture(self, pixels: Any) -> Any: ...
    def begin(
        self, of: Question, kept: str | None, pictures: Callable[[], Sequence[Any]], follow: Follow
    ) -> Callable[[], list[str]]: ...
    def close(self) -> None: ...


class CaptionByModel:
    """The step: one `Clip` -> its `Caption`. What it returns waits for the model when it is read."""

    name = "caption"

    def __init__(self, config: CaptionConfig, fetch: Fetch, cache: AnswerCache, said: list[CaptionWindow]) -> None:
        self.config = config
        self._fetch, self._cache, self._said = fetch, cache, said
        self._asker: Asker = (
            Endpoint(config.endpoint, config.shown, cache, config.rewrite.model)
            if config.source == "endpoint"
            else LocalModel(config.local, config.shown, cache)
        )
        self.ahead = self._asker.ahead
        self._opened = False

    def __call__(self, item: Clip) -> Iterable[Caption]:
        """Begin. Raises `Skip` (``caption_too_short``, the decoder's reasons); reading the rows raises `Skip` for answers that
        are not right, TryAgain and ConfigError for a model that cannot be asked at all."""
        spans = windows(item.num_frames, self.config.shown.window_frames, still=item.is_image)
        if not spans:
            raise Skip("caption_too_short", f"{item.num_frames} frames, fewer than {FEWEST_FRAMES}")
        questions = [self._question(item, number, spans) for number in range(len(spans))]
        pictures = functools.cache(lambda: self._pictures(item, spans))
        kept = [self._cache.read(each) for each in questions]
        if None in kept:
            self._open()
            pictures()
        waiting = [
            self._asker.begin(
                each, text, functools.partial(_one_of, pictures, number), self._follow(item, spans[number])
            )
            for number, (each, text) in enumerate(zip(questions, kept, strict=True))
        ]
        return self._rows(item, spans, waiting)

    def close(self) -> None:
        """Ask no more."""
        self._asker.close()

    def _open(self) -> None:
        if not self._opened:
            self._asker.open()
            self._opened = True

    def _pictures(self, item: Clip, spans: Sequence[Window]) -> list[list[Any]]:
        return or_skip(shown_frames, self._fetch(item.path), spans, self.config.shown, self._asker.picture)

    def _question(self, item: Clip, number: int, spans: Sequence[Window]) -> Question:
        prompt = window_prompt(self.config.prompt, item, spans[number], number, len(spans))
        return question(
            item.clip_sha256,
            spans[number],
            prompt,
            shown=self.config.shown.what(),
            whom=self._asker.identity(self._asker.source.partition(":")[2]),
        )

    def _follow(self, item: Clip, window: Window) -> Follow:
        rewrite = self.config.rewrite
        whom = self._asker.identity(self._asker.rewriter)

        def follow(caption: str) -> list[Question]:
            prompts = [rewrite_prompt(rewrite.prompt, caption, length) for length in rewrite.lengths]
            return [question(item.clip_sha256, window, prompt, shown=None, whom=whom) for prompt in prompts]

        return follow

    def _rows(
        self, item: Clip, spans: Sequence[Window], waiting: Sequence[Callable[[], list[str]]]
    ) -> Iterator[Caption]:
        rewrite = self.config.rewrite
        rows = []
        for window, answers in zip(spans, waiting, strict=True):
            caption, *others = answers()
            rewritten: dict[str, Any] = dict(zip(rewrite.lengths, others, strict=True))
            if rewritten:
                rewritten["rewrite_model"] = self._asker.rewriter or self._asker.source
                rewritten["rewrite_prompt_sha256"] = _sha256(rewrite.prompt)
            rows.append(
                CaptionWindow(
                    clip_id=item.clip_id,
                    clip_sha256=item.clip_sha256,
                    start_frame=window.start,
                    end_frame=window.end,
                    caption=caption,
                    model=self._asker.source,
                    prompt_sha256=_sha256(self.config.prompt),
                    **rewritten,
                )
            )
        self._said.extend(rows)  # all windows of a clip, or none
        yield Caption(
            clip_id=item.clip_id,
            clip_sha256=item.clip_sha256,
            caption=" ".join(getattr(row, self.config.length) for row in rows),
            caption_source=self._asker.source,
        )


def _one_of(pictures: Callable[[], list[list[Any]]], number: int) -> list[Any]:
    return pictures()[number]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
