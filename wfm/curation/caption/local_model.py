"""Captions from a vision-language model in a local folder, by transformers: LLaVA, Qwen-VL and whatever else opens as
image-text-to-text and has a chat template.

Nothing is downloaded, no code of the folder is run, and weights are read as safetensors. The folder enters the key by the
sha256 of its files, which the config must state. Decoding is greedy. Windows are asked about in batches of fixed membership, by
their place in the part, so a run that was killed makes the same batches again, and the same words. What comes out is taken for
the answer to a question only if the question's own code stands in the tokens it was made from.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from wfm.config import Config, Device, how
from wfm.curation.caption.answer_cache import AnswerCache, Question
from wfm.curation.caption.caption_windows import ShownConfig
from wfm.curation.caption.endpoint import Follow, plain
from wfm.curation.embed.embedders import digest
from wfm.curation.step import Skip
from wfm.errors import ConfigError, DataError, MissingPackage, TryAgain, WfmError

Pictures = Callable[[], Sequence[np.ndarray]]
_ONE_AT_A_TIME = threading.RLock()  # a worker with many threads still has one model


class LocalConfig(Config):
    """Which local model, and where it runs."""

    folder_sha256: str = ""
    "Of the folder's files (`embedders.digest`); it decides the result, wherever the folder lies."
    max_tokens: int = pydantic.Field(256, ge=1)
    "Longest answer [tokens]; it is cut there."
    batch: int = pydantic.Field(1, ge=1)
    "Windows asked about at once. A sum in another order may change a word, so it belongs to the result."
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    "Kind of numbers; auto: bfloat16 on a graphics card, else float32."
    folder: str = how("")
    "Local folder of the model and its processor, as save_pretrained writes it."
    device: Device = how("cpu")
    "Where it runs: cpu, cuda, cuda:1."


class LocalModel:
    """Asks the model; used from one thread."""

    def __init__(self, config: LocalConfig, shown: ShownConfig, cache: AnswerCache) -> None:
        self.config = config
        self.ahead = config.batch
        self.source = f"local:{config.folder_sha256[:12]}"
        self.rewriter = ""
        self._shown, self._cache = shown, cache
        self._waiting: list[tuple[Question, str | None, Pictures]] = []
        self._answers: dict[str, str | Skip] = {}

    def identity(self, model: str) -> list[Any]:
        """Whom a question goes to, as plain values; there is but one."""
        config = self.config
        return ["local", config.folder_sha256, config.max_tokens, config.batch, config.dtype]

    def open(self) -> None:
        """Load the model. Raises ConfigError for a folder that is not there or another, DataError for a broken one."""
        with _ONE_AT_A_TIME:
            _open(self.config)

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """What is kept of a picture until it is shown."""
        return pixels

    def begin(self, of: Question, kept: str | None, pictures: Pictures, follow: Follow) -> Callable[[], list[str]]:
        """Put a question into the batch that fills; the answer waits: the caption, and the answers to what follows."""
        self._waiting.append((of, kept, pictures))
        if len(self._waiting) == self.config.batch:
            self._ask_waiting()

        def finish() -> list[str]:
            if of.identity not in self._answers:
                self._ask_waiting()
            caption = _said(self._answers[of.identity])
            return [caption, *self._follow(follow(caption))]

        return finish

    def close(self) -> None:
        """Nothing is left to end; the model stays loaded for the next part."""

    def _ask_waiting(self) -> None:
        batch = {each[0].identity: each for each in self._waiting}  # the same bytes are asked about once
        self._waiting = []
        kept = {of.identity: text for of, text, _ in batch.values() if text is not None}
        if len(kept) < len(batch):  # all of them again: the same batch gives the same words
            questions, _, pictures = zip(*batch.values(), strict=True)
            self._answers |= self._generate(questions, [show() for show in pictures])
        self._answers |= kept

    def _follow(self, questions: Sequence[Question]) -> list[str]:
        kept = [self._cache.read(of) for of in questions]
        if None in kept:
            found = self._generate(questions, [()] * len(questions))
            kept = [_said(found[of.identity]) for of in questions]
        return [text for text in kept if text is not None]

    def _generate(
        self, questions: Sequence[Question], pictures: Sequence[Sequence[np.ndarray]]
    ) -> dict[str, str | Skip]:
        """Answers by identity, kept as well."""
        import torch

        talks = [
            [{"role": "user", "content": [*self._content(shown), {"type": "text", "text": f"[{of.code}] {of.prompt}"}]}]
            for of, shown in zip(questions, pictures, strict=True)
        ]
        with _ONE_AT_A_TIME, _explained(self.config):
            network, processor = _open(self.config)
            given = processor.apply_chat_template(
                talks,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                sanitize_control_tokens=True,  # words from outside are words, not marks of the model
                processor_kwargs={"padding": True, **self._video_arguments(pictures)},
            ).to(network.device, dtype=network.dtype)
            with torch.inference_mode():
                made = network.generate(
                    **given, max_new_tokens=self.config.max_tokens, do_sample=False, num_beams=1, use_cache=True
                )
        return self._read(questions, processor, made.cpu(), given["input_ids"].shape[1])

    def _read(self, questions: Sequence[Question], processor: Any, made: Any, length: int) -> dict[str, str | Skip]:
        """Which row is whose, by the code in it."""
        asked = processor.batch_decode(made[:, :length], skip_special_tokens=True)
        answered = processor.batch_decode(made[:, length:], skip_special_tokens=True)
        found: dict[str, str | Skip] = {}
        for of in questions:
            rows = [answer for before, answer in zip(asked, answered, strict=True) if f"[{of.code}]" in before]
            try:
                if len(rows) != 1:
                    raise Skip("caption_swapped", f"{len(rows)} answers were made from a question with its code")
                found[of.identity] = text = plain(rows[0].strip().removeprefix(f"[{of.code}]"))
                self._cache.keep(of, text)
            except Skip as skip:
                found[of.identity] = skip
        return found

    def _content(self, shown: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        if len(shown) and self._shown.frames_as == "video":
            return [{"type": "video", "video": np.stack(shown)}]
        from PIL import Image

        return [{"type": "image", "image": Image.fromarray(picture)} for picture in shown]

    def _video_arguments(self, pictures: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
        """All the frames given are shown; when they were taken is told, for models that ask."""
        if self._shown.frames_as != "video" or not any(len(shown) for shown in pictures):
            return {}
        rate = self._shown.frames_per_second
        told = [
            {"fps": rate, "total_num_frames": len(shown), "frames_indices": list(range(len(shown))),
             "duration": len(shown) / rate}
            for shown in pictures
        ]  # fmt: skip
        return {"do_sample_frames": False, "video_metadata": told}


@functools.lru_cache(maxsize=1)  # a process captions many parts: the folder is read and hashed once
def _open(config: LocalConfig) -> tuple[Any, Any]:
    """(network, processor)."""
    folder = Path(config.folder)
    if not config.folder or not (folder / "config.json").is_file():
        raise ConfigError(
            f"local.folder = {config.folder!r} has no config.json: give the folder of a vision-language model, as "
            "save_pretrained writes it"
        )
    found = digest(folder)
    if found != config.folder_sha256:
        raise ConfigError(
            f"local.folder_sha256 = {config.folder_sha256!r}, but {folder.name!r} has {found!r}: that is another model"
        )
    try:
        import torch
        import transformers
    except ImportError:
        raise MissingPackage("transformers", extra="text", purpose="captions from a local model") from None
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"local.device = {config.device!r}, but torch sees no graphics card: use cpu, or another machine"
        )
    kind = config.dtype if config.dtype != "auto" else "bfloat16" if config.device.startswith("cuda") else "float32"
    closed = {"local_files_only": True, "trust_remote_code": False}
    with _explained(config):
        processor = transformers.AutoProcessor.from_pretrained(str(folder), **closed)
        network, loaded = transformers.AutoModelForImageTextToText.from_pretrained(
            str(folder), use_safetensors=True, dtype=getattr(torch, kind), output_loading_info=True, **closed
        )
    if wrong := sorted(map(str, [*loaded["missing_keys"], *loaded["mismatched_keys"]])):
        raise DataError(f"local.folder = {config.folder!r}: the weights lack {', '.join(wrong[:5])}: not a whole model")
    if not getattr(processor, "chat_template", None):
        raise ConfigError(
            f"local.folder = {config.folder!r} has no chat template (chat_template.jinja): use a chat model"
        )
    processor.tokenizer.padding_side = "left"  # what is generated follows the question at once
    return network.eval().to(config.device), processor


@contextlib.contextmanager
def _explained(config: LocalConfig) -> Iterator[None]:
    """The many kinds of error of transformers as ours."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"local.folder = {config.folder!r} needs a package that is not here: {error}") from error
    except (MemoryError, WfmError):
        raise
    except Exception as error:
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            raise TryAgain(
                f"local.device = {config.device!r} is out of memory: lower local.batch or shown.*"
            ) from error
        words = " ".join(str(error).split())[:300]
        raise DataError(f"local.folder = {config.folder!r}: transformers cannot use this model ({words})") from error


def _said(answer: str | Skip) -> str:
    if isinstance(answer, Skip):
        raise answer
    return answer
