"""Text encoders behind one interface: T5 (what Cosmos was trained with) and BERT-like ones such as MiniLM.

Both come from a local folder through `transformers`: no download, no code from the folder, safetensors only. What is used
is the last hidden state of every token, special tokens included; positions past a caption's end are zero, as in Cosmos. An
embedding does not depend on what else is in the batch, up to rounding.
"""

import json
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from wfm.errors import ConfigError, DataError, MissingPackage
from wfm.models.text.config import TextConfig
from wfm.models.text.identity import encoder_folder, encoder_identity


class TextEncoder(Protocol):
    """Captions in, token embeddings out."""

    identity: str
    "What it is: equal identities give equal embeddings."
    width: int
    "Width of one token's embedding."
    max_length: int
    "Tokens after which a caption is cut."

    def encode(self, captions: Sequence[str], *, pad_to: int = 0) -> tuple[Tensor, Tensor]:
        """(embeddings fp32 `[B, L, width]`, lengths int64 `[B]`); L is the longest length, or `pad_to` when given
        (Cosmos's own checkpoints want 512). Zero past each length."""
        ...


class Architecture(NamedTuple):
    """How one kind of model is opened and how long its captions are by default."""

    model: str
    arguments: dict[str, Any]
    own_length: int
    width_field: str


ARCHITECTURES: dict[str, Architecture] = {
    "t5": Architecture("T5EncoderModel", {}, 512, "d_model"),
    "bert": Architecture("BertModel", {"add_pooling_layer": False}, 256, "hidden_size"),
}
"""`model_type` of a folder's config.json -> how to open it."""


def open_encoder(config: TextConfig, *, device: str = "cpu") -> "FolderEncoder":
    """The configured encoder, ready to encode. Raises MissingPackage naming the extra, ConfigError, or DataError for a
    folder that is not a T5 or BERT encoder."""
    return FolderEncoder(encoder_folder(config), encoder_identity(config), config, device=device)


def normalised(caption: str) -> str:
    """What is encoded of a caption: composed Unicode (NFC), runs of blanks as one space, none at the ends, and a question
    mark for each half of a broken surrogate pair (captions come from outside)."""
    return " ".join(unicodedata.normalize("NFC", caption).split()).encode("utf-8", "replace").decode()


class FolderEncoder:
    """A `TextEncoder` out of a folder that `transformers` can read."""

    def __init__(self, folder: Path, identity: str, config: TextConfig, *, device: str = "cpu") -> None:
        self.identity, self.device, self.batch_size = identity, torch.device(device), config.batch_size
        kind, values = _architecture(folder)
        self.width = int(values[kind.width_field])
        positions = int(values.get("max_position_embeddings", 0) or 0)
        self.max_length = config.max_length or (min(kind.own_length, positions) if positions else kind.own_length)
        if positions and self.max_length > positions:
            raise ConfigError(
                f"text.max_length is {self.max_length}; the encoder in {folder} has {positions} positions"
            )
        self.tokenizer, self.model = _open(folder, kind)
        self.model.to(self.device).eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, captions: Sequence[str], *, pad_to: int = 0) -> tuple[Tensor, Tensor]:
        """See `TextEncoder`. Captions of like length share a batch, so that little is computed for padding."""
        if not captions:
            raise ConfigError("no captions were given to encode")
        ids = self.token_ids(captions)
        lengths = torch.tensor([len(row) for row in ids])
        longest = int(lengths.max())
        if pad_to and pad_to < longest:
            raise ConfigError(
                f"pad_to is {pad_to}; the longest caption has {longest} tokens: set text.max_length={pad_to}"
            )
        out = torch.zeros(len(ids), pad_to or longest, self.width)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            hidden, mask = self._hidden([ids[i] for i in rows])  # [b, l, width], [b, l]
            out[rows, : hidden.shape[1]] = (hidden * mask[..., None]).cpu()
        return out, lengths

    def token_ids(self, captions: Sequence[str]) -> list[list[int]]:
        """Token ids of each caption with the special tokens, cut to `max_length`."""
        found = self.tokenizer([normalised(text) for text in captions], truncation=True, max_length=self.max_length)
        return [list(row) for row in found["input_ids"]]

    def _hidden(self, ids: list[list[int]]) -> tuple[Tensor, Tensor]:
        longest = max(len(row) for row in ids)
        pad = int(self.tokenizer.pad_token_id or 0)
        rows = torch.tensor([row + [pad] * (longest - len(row)) for row in ids], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids], device=self.device)
        hidden: Tensor = self.model(input_ids=rows, attention_mask=mask).last_hidden_state
        return hidden.float(), mask


def _architecture(folder: Path) -> tuple[Architecture, dict[str, Any]]:
    """How to open a folder, and its config.json."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    kind = values.get("model_type") if isinstance(values, dict) else None
    if kind not in ARCHITECTURES:
        raise DataError(f"{path}: model_type is {kind!r}; text encoders can be {', '.join(sorted(ARCHITECTURES))}")
    return ARCHITECTURES[kind], values


def _open(folder: Path, kind: Architecture) -> tuple[Any, Any]:
    """(tokenizer, model) by transformers, from local files alone."""
    try:
        import transformers
    except ImportError as error:
        raise MissingPackage("transformers", extra="text", purpose="encoding captions") from error
    local = {"local_files_only": True, "trust_remote_code": False}
    with _quietly(transformers):
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **local)
            model, found = getattr(transformers, kind.model).from_pretrained(
                str(folder),
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **kind.arguments,
                **local,
            )
        except Exception as error:  # transformers raises many kinds for a broken folder
            raise DataError(f"{folder}: transformers cannot open this text encoder ({error})") from error
    wrong = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
    if wrong:  # transformers would start these at random and only warn
        raise DataError(f"{folder}: the weights do not hold {', '.join(wrong[:5])}: not a whole {kind.model}")
    return tokenizer, model


@contextmanager
def _quietly(transformers: Any) -> Iterator[None]:
    """Without transformers's progress bars and load reports: what matters of them is checked."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
